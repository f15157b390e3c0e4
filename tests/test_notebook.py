"""What a chapter leans on: setup that reproduces, claims that fail, figures with a description."""

import base64
import random
import sys
import types

import numpy as np
import pytest
import torch

from course_lib import notebook, plot, train
from course_lib.notebook import ClaimError, check


def test_a_claim_that_holds_prints_one_line(capsys):
    check("the error is small", 0.1 < 0.2, "0.1, margin 0.2")
    check("no figures", np.float64(1) < 2)
    check("a tensor", torch.tensor(1.0) < 2)
    assert capsys.readouterr().out.splitlines() == [
        "✓ the error is small  [measured: 0.1, margin 0.2]",
        "✓ no figures",
        "✓ a tensor",
    ]


@pytest.mark.parametrize("ok", [2 < 1, float("nan") < 1, np.float64("nan") < 1, torch.tensor(float("nan")) < 1])
def test_a_claim_that_does_not_hold_raises(ok, capsys):
    with pytest.raises(ClaimError, match=r"✗ the claim  \[measured: 2\]"):
        check("the claim", ok, "2")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ok", [1, "yes", None, [True], torch.tensor([True, True]), torch.tensor(1), float("nan")])
def test_a_claim_needs_a_comparison(ok):
    with pytest.raises(TypeError, match="the result of a comparison"):
        check("the claim", ok)


def test_figures_behind_a_claim_stay_within_their_brackets():
    with pytest.raises(ValueError, match="square brackets"):
        check("the claim", True, "[1, 2]")


def test_a_claim_is_one_line(capsys):
    with pytest.raises(ValueError, match=r"on one line .* got 'first\\nsecond'"):
        check("first\nsecond", True)
    with pytest.raises(ValueError, match=r"on one line .* got '1\\n2'"):
        check("the claim", True, "1\n2")
    assert capsys.readouterr().out == ""


@pytest.fixture
def plain_environment(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


def test_profile_by_argument_then_environment_then_default(plain_environment):
    assert notebook.setup("x").profile == "quick"
    plain_environment.setenv("COURSE_PROFILE", "full")
    assert notebook.setup("x").profile == "full"
    assert notebook.setup("x", profile="quick").profile == "quick"
    assert notebook.setup("x").pick(quick=1, full=2) == 2
    plain_environment.setenv("COURSE_PROFILE", "medium")
    with pytest.raises(ValueError, match="'quick' or 'full', got 'medium'"):
        notebook.setup("x")


def test_full_is_the_default_on_colab_with_a_gpu(plain_environment):
    plain_environment.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    plain_environment.setattr(torch.cuda, "is_available", lambda: True)
    plain_environment.setattr(torch, "manual_seed", lambda seed: None)
    plain_environment.setattr(torch, "use_deterministic_algorithms", lambda *a, **k: None)
    assert notebook.setup("x").profile == "quick"
    google = types.ModuleType("google")
    google.__path__ = []
    google.__spec__ = types.SimpleNamespace(name="google")
    plain_environment.setitem(sys.modules, "google", google)
    colab = types.ModuleType("google.colab")
    colab.__spec__ = types.SimpleNamespace(name="google.colab")
    plain_environment.setitem(sys.modules, "google.colab", colab)
    run = notebook.setup("x")
    assert run.profile == "full" and run.device.type == "cuda"
    plain_environment.setattr(torch.cuda, "is_available", lambda: False)
    assert notebook.setup("x").profile == "quick"


def test_setup_makes_every_source_of_chance_reproducible(plain_environment):
    def draws(seed):
        notebook.setup("x", seed=seed)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draws(1) == draws(1)
    assert all(a != b for a, b in zip(draws(1), draws(2), strict=True))


@pytest.fixture
def displayed(monkeypatch):
    """What was handed to the page: pairs of an object and its metadata."""
    shown = []
    monkeypatch.setattr(notebook, "display", lambda obj, metadata=None, raw=False: shown.append((obj, metadata)))
    return shown


def test_a_shown_figure_carries_its_description(displayed):
    figure, _ = plot.subplots(width=4, height=1)
    notebook.show(figure, alt="Nothing, in a frame")
    ((data, metadata),) = displayed
    assert metadata["image/png"] == {"alt": "Nothing, in a frame", "width": 400}
    assert data["text/plain"] == "Figure: Nothing, in a frame"
    assert base64.b64decode(data["image/png"]) == plot.png(figure)


def test_shown_source_is_the_code_that_runs(displayed):
    notebook.show_source(train.fit)
    notebook.show_source(train.EMA)
    function, cls = (markdown.data for markdown, _ in displayed)
    for text in (function, cls):
        code = text.removeprefix("```python\n").removesuffix("```")
        compile(code, "shown", "exec")
        assert '"""' not in code
    assert "history.append(step(batches[k]))" in function
    assert "multi_avg_fn=get_ema_multi_avg_fn(decay)" in cls and "def update(self)" in cls
    with pytest.raises(TypeError, match="no Python source"):
        notebook.show_source(torch.tanh)


square = lambda x: x * x  # noqa: E731


class Shop:
    async def serve(self, guests):
        """Serve all of them,
        one after the other."""

        text = """a text
that begins further left"""
        return [text for _ in guests]

    def closed(self):
        "Not today."


def shown_code(displayed):
    return displayed[-1][0].data.removeprefix("```python\n").removesuffix("```")


def test_source_of_an_async_function_is_code_without_its_docstring_unless_that_is_all(displayed):
    notebook.show_source(Shop.serve)
    code = shown_code(displayed)
    assert "Serve all" not in code and "one after" not in code and "that begins further left" in code
    names = {}
    exec(code, names)
    served = names["serve"](None, range(2))
    with pytest.raises(StopIteration) as ended:
        served.send(None)
    assert ended.value.value == ["a text\nthat begins further left"] * 2
    notebook.show_source(Shop.closed)
    exec(shown_code(displayed), names)
    assert names["closed"].__doc__ == "Not today."


def test_a_lambda_is_shown_with_its_line_or_refused_with_a_reason(displayed):
    notebook.show_source(square)
    assert shown_code(displayed).startswith("square = lambda x: x * x")
    table = {
        "first": lambda x: x + 1,
        "second": square,
    }
    with pytest.raises(TypeError, match=r"<lambda>.* has no Python source to show: expected a function, a class or"):
        notebook.show_source(table["first"])
    assert len(displayed) == 1


def test_drawings_carry_their_description_and_the_pages_colours():
    svg = notebook.drawing("autoencoder", alt='an "x" & a z').data
    assert 'aria-label="an &quot;x&quot; &amp; a z"' in svg and "currentColor" in svg
    with pytest.raises(ValueError, match="no drawing is called 'nothing'; there are autoencoder"):
        notebook.drawing("nothing", alt="x")
