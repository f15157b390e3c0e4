"""Pairs: executed reproducibly, compared by content, never half-written."""

import json
import os

import nbformat
import pytest

from course_lib import pairs
from course_lib.pairs import PairError

HEADER = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

"""


def source(folder, body, *, name="09_small.py", header=HEADER):
    path = folder / name
    path.write_text(header + body, encoding="utf-8")
    return path


BODY = """# %% [markdown]
# # Title

# %% tags=["nbval-check-output"]
import sys
print("one", flush=True)
print("two")

# %%
try:
    import google.colab  # noqa: F401

    # %pip install nothing
except ImportError:
    pass
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    path = source(tmp_path_factory.mktemp("pair"), BODY)
    pairs.execute(path)
    return path


def test_executing_twice_gives_the_same_bytes(executed):
    before = executed.with_suffix(".ipynb").read_bytes()
    pairs.execute(executed)
    assert executed.with_suffix(".ipynb").read_bytes() == before
    assert pairs.problems(executed) == []


def test_the_notebook_holds_outputs_and_the_magic_of_colab(executed):
    notebook = nbformat.read(executed.with_suffix(".ipynb"), as_version=4)
    assert [c.cell_type for c in notebook.cells] == ["markdown", "code", "code"]
    assert [o.text for o in notebook.cells[1].outputs] == ["one\ntwo\n"]
    assert "\n    %pip install nothing" in notebook.cells[2].source
    assert notebook.cells[1].metadata == {"tags": ["nbval-check-output"]}
    assert "version" not in json.dumps(notebook.metadata)


def test_ids_come_from_content(tmp_path):
    first = pairs.read(source(tmp_path, "# %%\n1\n\n# %%\n2\n\n# %%\n1\n"))
    second = pairs.read(source(tmp_path, "# %%\n0\n\n# %%\n1\n\n# %%\n2\n"))
    one, two, again = (c.id for c in first.cells)
    assert len({one, two, again}) == 3
    assert [c.id for c in second.cells][1:] == [one, two]


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def picture(alt):
    metadata = {"image/png": {"alt": alt}} if alt else {}
    return nbformat.v4.new_output("display_data", {"image/png": "iVBOR"}, metadata=metadata)


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", text=text, name=name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda n: n.cells[1].update(source="print(1)"), "differs from it at cell 1"),
        (lambda n: n.cells[1].metadata.update(tags=[]), "differs from it at cell 1"),
        (lambda n: n.cells[0].update(id="other"), "differs from it at cell 0"),
        (lambda n: n.cells.pop(), "differs from it at cell 2"),
        (lambda n: n.cells[1].update(execution_count=None), "was not executed"),
        (lambda n: n.cells[1].outputs.append(nbformat.v4.new_output("error", ename="KeyError")), "an error: KeyError"),
        (lambda n: n.cells[1].outputs.append(stream("UserWarning: x", "stderr")), "a warning: UserWarning"),
        (lambda n: n.cells[1].outputs.append(stream("in /home/ann/data")), "path of one machine: /home/ann"),
        (lambda n: n.cells[1].outputs.append(picture("")), "without a description"),
        (lambda n: n.cells[1].outputs.append(stream("x" * 3_000_001)), "stays under 3 MB"),
    ],
)
def test_problems_are_found_and_named(executed, tmp_path, change, complaint):
    path = tmp_path / executed.name
    path.write_bytes(executed.read_bytes())
    path.with_suffix(".ipynb").write_bytes(executed.with_suffix(".ipynb").read_bytes())
    assert pairs.problems(path) == []
    edit(path.with_suffix(".ipynb"), change)
    (line,) = pairs.problems(path)
    assert complaint in line


def test_a_described_picture_and_a_web_address_are_no_problem(executed, tmp_path):
    path = tmp_path / executed.name
    path.write_bytes(executed.read_bytes())
    path.with_suffix(".ipynb").write_bytes(executed.with_suffix(".ipynb").read_bytes())
    edit(path.with_suffix(".ipynb"), lambda n: n.cells[1].outputs.append(picture("a curve")))
    edit(path.with_suffix(".ipynb"), lambda n: n.cells[1].outputs.append(stream("https://a.org/home/x and 1/2")))
    assert pairs.problems(path) == []


@pytest.mark.parametrize("comment", ["# NBVAL_SKIP", "  #NBVAL_IGNORE_OUTPUT", "# PYTEST_VALIDATE_IGNORE_OUTPUT"])
def test_comments_that_steer_nbval_are_refused(tmp_path, comment):
    path = source(tmp_path, f"# %%\nif True:\n{comment}\n  print(1)\n")
    pairs.execute(path)
    assert any("steers nbval" in line for line in pairs.problems(path))


def test_missing_broken_and_headless_pairs_are_named(tmp_path):
    path = source(tmp_path, "# %%\n1\n")
    assert "there is no 09_small.ipynb beside it; run: make notebooks NB=09_small" in pairs.problems(path)[0]
    path.with_suffix(".ipynb").write_text("{ half")
    assert "not a notebook" in pairs.problems(path)[0]
    assert "format_name: percent" in pairs.problems(source(tmp_path, "# %%\n1\n", header=""))[0]


def test_a_failed_cell_is_named_and_leaves_the_old_notebook(tmp_path, capfd):
    path = source(tmp_path, "# %%\nprint('fine')\n")
    pairs.execute(path)
    before = path.with_suffix(".ipynb").read_bytes()
    source(tmp_path, "# %%\nprint('fine')\n\n# %%\n1 / 0\n")
    with pytest.raises(PairError, match=r"(?s)09_small.py: a cell failed: ZeroDivisionError.*in cell 1:\s+1 / 0"):
        pairs.execute(path)
    assert path.with_suffix(".ipynb").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["09_small.ipynb", "09_small.py"]
    assert pairs.main(["execute", str(path)]) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_refresh_takes_text_but_no_code(executed, tmp_path):
    path = tmp_path / executed.name
    path.with_suffix(".ipynb").write_bytes(executed.with_suffix(".ipynb").read_bytes())
    path.write_text(executed.read_text().replace("# # Title", "# # A better title"))
    pairs.refresh(path)
    assert pairs.problems(path) == []
    outputs = nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells[1].outputs
    assert [o.text for o in outputs] == ["one\ntwo\n"]
    path.write_text(path.read_text().replace('print("two")', 'print("three")'))
    before = path.with_suffix(".ipynb").read_bytes()
    with pytest.raises(PairError, match="code changed"):
        pairs.refresh(path)
    assert path.with_suffix(".ipynb").read_bytes() == before


def test_the_command_counts_pairs_and_finds_orphans(executed, tmp_path, capsys):
    assert pairs.main(["check", str(executed.parent)]) == 0
    assert capsys.readouterr().out == "1 pair agrees\n"
    (tmp_path / "lost.ipynb").write_text("{}")
    assert pairs.main(["check", str(tmp_path)]) == 1
    assert "there is no lost.py beside it" in capsys.readouterr().out
    assert pairs.main(["check", str(tmp_path / "nowhere.py")]) == 1
    assert "there is no notebook source" in capsys.readouterr().err


def test_a_notebook_that_cannot_be_written_is_reported(executed, tmp_path, monkeypatch):
    def read_only(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(pairs.os, "replace", read_only)
    with pytest.raises(PairError, match=r"cannot write .*Read-only file system"):
        pairs.write(pairs.read(executed), tmp_path / "x.ipynb")
    assert os.listdir(tmp_path) == []


def test_exercises_are_passed_over_in_a_folder(executed, tmp_path, capsys):
    (tmp_path / "exercises").mkdir()
    source(tmp_path / "exercises", "# %%\nraise NotImplementedError\n")
    (tmp_path / "exercises" / "lost.ipynb").write_text("{}")
    path = tmp_path / executed.name
    path.write_bytes(executed.read_bytes())
    path.with_suffix(".ipynb").write_bytes(executed.with_suffix(".ipynb").read_bytes())
    assert pairs.sources([tmp_path]) == [path]
    assert pairs.main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 pair agrees\n"
    assert pairs.sources([tmp_path / "exercises"]) != []  # asked for by name
