"""The harness: samplers of known quality, runs that stop and go on, families that fail, and the tables."""

import csv
import math
import pickle
import re
import statistics
import sys

import pytest
import torch
from torch import nn

from course_lib import probability
from course_lib.data import Batches, images
from course_lib.evaluation import __main__ as command
from course_lib.evaluation import board
from course_lib.evaluation.board import Budget, budget_for, leaderboard
from course_lib.evaluation.families import FAMILIES, IMAGE_FAMILIES
from course_lib.evaluation.features import Classifier
from course_lib.evaluation.harness import evaluate, image_metrics, point_metrics
from course_lib.evaluation.metrics import inception_score, ks_per_dim
from course_lib.evaluation.problem import Problem, Run, Trained, problem
from course_lib.train import minimize

RING = probability.ring()
SMALL = Budget(steps=0, batch_size=4, samples=200)


# ------------------------------------------------------------------------------------------------------- evaluate


def test_a_perfect_sampler_lies_on_the_floor_and_corrupted_ones_do_not():
    real = RING.sample(1000)
    metrics = point_metrics(real, mixture=RING)
    angle = 2 * math.pi * torch.rand(500)
    samplers = {
        "perfect": RING.sample(500),
        "dropped mode": probability.GaussianMixture(RING.means[1:], RING.covariances[1:]).sample(500),
        "noise": RING.sample(500) + 0.05 * torch.randn(500, 2),
        "circle": 2 * torch.stack([angle.cos(), angle.sin()], dim=1),
    }
    row = {name: evaluate(x, real, metrics=metrics, resamples=6, splits=6) for name, x in samplers.items()}

    def outside(name, figure, side):
        value, _, _, floor = row[name][figure]
        return value > floor.high if side == "above" else value < floor.low

    for figure in ("C2ST", "sliced W2", "KS"):
        value, _, _, floor = row["perfect"][figure]
        assert value < floor.value + 2 * (floor.high - floor.value)
    assert row["perfect"]["modes covered"].value == 8 and row["perfect"]["near a mode"].floor.value > 0.98
    assert row["dropped mode"]["modes covered"].value == 7 and outside("dropped mode", "KL of modes", "above")
    assert outside("dropped mode", "recall", "below") and row["dropped mode"]["near a mode"].value > 0.98
    assert outside("dropped mode", "coverage", "below") and row["dropped mode"]["precision"].value > 0.9
    for name in ("noise", "circle"):
        assert outside(name, "near a mode", "below") and outside(name, "C2ST", "above")
        assert outside(name, "density", "below")
    for figures in row.values():
        assert all(f.low <= f.value <= f.high for f in figures.values() if not math.isnan(f.low))


def test_modes_on_the_wrong_diagonal_are_seen_beside_ks():
    right, wrong = (probability.two_clusters(center=c, std=0.5) for c in ((2.0, 2.0), (2.0, -2.0)))
    row = evaluate(wrong, right.sample(800), resamples=4, splits=6)
    # KS sees marginals only; its floor varies with the number of points in each mode
    assert row["KS"].value < 0.15 and row["C2ST"].low > 0.9
    assert row["sliced W2"].low > row["sliced W2"].floor.high and row["precision"].high < row["precision"].floor.low


def test_every_comparison_is_between_samples_of_one_size():
    sizes = []

    def spy(fake, real):
        sizes.append((len(fake), len(real)))
        return 0.0

    evaluate(RING, torch.randn(101, 2), metrics={"spy": spy}, resamples=2, splits=2)
    assert sizes == [(25, 25)] * 2 + [(50, 50)] + [(50, 50)] * 2
    sizes.clear()
    evaluate(torch.randn(30, 2), torch.randn(90, 2), other=torch.randn(70, 2), metrics={"spy": spy}, resamples=2)
    assert set(sizes) == {(15, 15), (30, 30)}


def test_a_row_is_repeatable_and_takes_the_fake_first():
    fake, real = torch.randn(100, 2), torch.randn(200, 2) + 5
    metrics = {"first": lambda x, y: x.mean().item(), "second": lambda x, y: y.mean().item()}
    rows = [evaluate(fake, real, metrics=metrics, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert rows[0] == rows[1]
    assert rows[0]["first"].value < 1 < 4 < rows[0]["second"].value and rows[0]["first"].floor.value > 4
    assert rows[0]["first"].high - rows[0]["first"].value == pytest.approx(1.96 / math.sqrt(200), rel=0.5)


def test_the_floor_sees_all_real_samples_and_none_on_both_sides():
    real, other = torch.arange(40.0)[:, None], torch.arange(100.0, 140.0)[:, None]
    metrics = {
        "shared": lambda x, y: float(len({*x.flatten().tolist()} & {*y.flatten().tolist()})),
        "largest": lambda x, y: torch.cat([x, y]).max().item(),
    }
    for row, largest in (
        (evaluate(real - 50, real, metrics=metrics), 39),
        (evaluate(real - 50, real, other=other, metrics=metrics), 139),
    ):
        assert row["shared"].value == row["shared"].floor.value == 0 and row["largest"].floor.value == largest


def test_the_bandwidth_comes_from_what_is_real():
    """To fakes that are far apart the kernel is 0, and E k(y, y') of a normal has a closed form."""
    bandwidth = math.sqrt(4 * math.log(2))  # the median distance of two draws of a normal in the plane
    row = evaluate(1000 * torch.randn(500, 2), torch.randn(1000, 2), resamples=2, splits=2)
    assert row["MMD²"].value == pytest.approx(bandwidth**2 / (bandwidth**2 + 2), abs=0.03)


def test_the_inception_score_of_features_is_that_of_their_images():
    classifier, x = Classifier((1, 8, 8), classes=10), 100 * torch.randn(2, 50, 1, 8, 8)
    classifier.head.weight.data *= 100
    h, other = classifier.features(x[0]), classifier.features(x[1])
    score = image_metrics(classifier)["IS"](h, other)
    assert score == pytest.approx(inception_score(classifier(x[0]))) and score > 1.1


def test_points_and_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"differ in dimension: fake has shape \(50, 3\), real \(50, 2\)"):
        evaluate(torch.randn(50, 3), torch.randn(100, 2))
    with pytest.raises(ValueError, match="fake holds NaN or infinity: 50 of 50 rows"):
        evaluate(torch.full((50, 2), math.nan), torch.randn(100, 2))
    with pytest.raises(ValueError, match="2 resamples and 2 splits, got 20 and 1"):
        evaluate(torch.randn(50, 2), torch.randn(100, 2), splits=1)


def test_samples_in_order_are_cut_at_random():
    x, real, other = torch.randn(3, 900, 1).sort(dim=1).values
    metrics = {"KS": lambda fake, real: ks_per_dim(fake, real).item()}
    for row in (
        evaluate(x[::3], real, metrics=metrics),
        evaluate(x, real, metrics=metrics),
        evaluate(x, real[::3], other=other, metrics=metrics),
        evaluate(x[::3], real, other=other, metrics=metrics),
    ):
        assert row["KS"].value < 0.2 and row["KS"].floor.value < 0.2


# -------------------------------------------------------------------------------------------------------- problems


@pytest.fixture(scope="module")
def digits():
    return problem("digits")


def test_images_become_points_and_come_back(digits):
    x = images("digits").x[:200]
    v = digits.to_points(x)
    assert v.shape == (200, 64) and v.min() >= -2 and v.max() < 2
    torch.testing.assert_close(digits.to_data(v), x)
    levels = torch.linspace(0, 1, 17)
    assert torch.equal(
        (digits.to_data(torch.linspace(-9, 9, 64 * 500).view(500, 64)) * 16).unique().long(), torch.arange(17)
    )
    torch.testing.assert_close(levels[(x * 16).long()], x)
    assert problem("ring8").to_points(x[:, 0, 0, :2]) is not None and problem("ring8").log_volume == 0


def test_likelihoods_of_points_become_log_probabilities_of_images(digits):
    """A density that is flat on every level's interval has probabilities that sum to one; the bound is then tight."""
    one = Problem("one pixel", train=digits.train, levels=17)
    x = torch.arange(17.0).view(17, 1) / 16
    heights = torch.rand(17)
    heights = heights / heights.sum()

    def log_density(v):  # on [-2, 2], 17 intervals of width 4 / 17
        return (heights[((v[:, 0] + 2) / 4 * 17).long()] * 17 / 4).log()

    per_pixel = one.log_volume / 64
    log_p = log_density(one.to_points(x)) + per_pixel
    torch.testing.assert_close(log_p.exp(), heights)


def test_every_toy_and_image_set_has_a_budget():
    for name in ("ring8", "tilted-gaussian", "digits"):
        assert budget_for(name).samples >= 360 and budget_for(name).steps > 0
    with pytest.raises(ValueError, match=r"no data is called 'rings'; there are ring8, .*fashion-mnist"):
        problem("rings")


def test_more_samples_than_test_images_are_refused(tmp_path):
    for n in (3, 361):
        with pytest.raises(ValueError, match=f"models of digits can be judged by 4 to 360 samples, not by {n}"):
            leaderboard({"none": perfect}, "digits", out=tmp_path, seeds=[0], budget=Budget(0, 1, n))


def test_an_interrupted_training_goes_on_to_the_same_weights_and_counts_all_its_time(tmp_path):
    class Stop(Exception):
        pass

    def train(path, stop_at=None):
        torch.manual_seed(3)
        model = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        batches = Batches(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), batch_size=8)
        calls = 0

        def loss(x):
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Stop
            return (model(x + 0.1 * torch.randn_like(x)) - x).square().mean()

        run = Run(steps=40, batch_size=8, checkpoint=path)
        try:
            run.fit(minimize(loss, optimizer), batches, model=model, optimizer=optimizer)
        except Stop:
            return None, calls, run
        return model.state_dict(), calls, run

    straight, _, _ = train(tmp_path / "a.pt")
    train(tmp_path / "b.pt", stop_at=27)
    saved = torch.load(tmp_path / "b.pt", weights_only=True)["parts"]["clock"]["seconds"]
    resumed, calls, run = train(tmp_path / "b.pt")
    assert calls == 20 and all(torch.equal(resumed[k], straight[k]) for k in straight)
    assert run.clock.seconds > saved > 0
    _, calls, again = train(tmp_path / "b.pt")
    assert calls == 0 and again.clock.seconds == pytest.approx(run.clock.seconds, rel=0.5)


# ------------------------------------------------------------------------------------------------------ leaderboard

CALLS = []


def perfect(problem, run):
    CALLS.append(("perfect", run.seed))
    return Trained(problem.mixture.sample, problem.mixture.log_prob, passes=1, parameters=16)


def shifted(problem, run):
    CALLS.append(("shifted", run.seed))
    return Trained(lambda n: problem.mixture.sample(n) + 1.0 * (run.seed + 1))


def broken(problem, run):
    CALLS.append(("broken", run.seed))
    if run.seed == 1:
        raise RuntimeError("the critic exploded\nat step 7")
    return Trained(problem.mixture.sample)


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


def table(folder, data="ring8"):
    with (folder / f"{data}.csv").open(encoding="utf-8") as file:
        return {row["family"]: row for row in csv.DictReader(file)}


def test_the_table_has_means_and_spreads_over_seeds_and_the_floor_beside(tmp_path, calls):
    entries = {"perfect": perfect, "shifted": shifted}
    rows = leaderboard(entries, "ring8", out=tmp_path, seeds=[0, 1, 2], budget=SMALL, made_by="the command")
    assert [row.name for row in rows] == ["real data", "perfect", "shifted"] and len(calls) == 6
    got = table(tmp_path)
    assert float(got["perfect"]["C2ST"]) == pytest.approx(0.5, abs=0.04) and got["perfect"]["modes covered"] == "8.0"
    assert float(got["perfect"]["NLL, nats"]) == pytest.approx(-2.907, abs=0.2)
    assert got["perfect"]["likelihood"] == "exact" and got["shifted"]["NLL, nats"] == got["shifted"]["likelihood"] == ""
    assert float(got["real data"]["near a mode"]) == pytest.approx(0.989, abs=0.02)
    # a shift by (s, s) has a squared sliced distance of s^2, and s is 1, 2, 3
    assert float(got["shifted"]["sliced W2"]) == pytest.approx(2, abs=0.15)
    assert float(got["shifted"]["sliced W2 std"]) == pytest.approx(statistics.stdev([1, 2, 3]), rel=0.2)
    text = (tmp_path / "ring8.md").read_text(encoding="utf-8")
    assert "| perfect | " in text and "over 3 seeds; 0 steps of 4 examples" in text and "`the command`" in text
    header, *body = [line for line in text.splitlines() if line.startswith("|")][:5]
    assert len({line.count("|") for line in (header, *body)}) == 1
    assert re.search(r"\| shifted \| [12]\.\d+ ± [01]\.\d+ \|", text)


def test_what_is_done_is_not_done_again_and_what_changed_is(tmp_path, calls):
    first = leaderboard({"perfect": perfect}, "ring8", out=tmp_path, seeds=[0, 1], budget=SMALL)
    assert len(calls) == 2
    assert leaderboard({"perfect": perfect}, "ring8", out=tmp_path, seeds=[0, 1], budget=SMALL) == first
    assert len(calls) == 2
    leaderboard({"perfect": perfect}, "ring8", out=tmp_path, seeds=[0, 1, 2], budget=SMALL)
    assert calls[2:] == [("perfect", 2)]
    leaderboard({"perfect": perfect}, "ring8", out=tmp_path, seeds=[0], budget=Budget(1, 4, 200))
    leaderboard({"perfect": perfect}, "two-clusters-flat", out=tmp_path, seeds=[0], budget=Budget(1, 4, 200))
    assert calls[3:] == [("perfect", 0), ("perfect", 0)]
    leaderboard({"perfect": perfect}, "ring8", out=tmp_path, seeds=[0], budget=Budget(1, 4, 200))
    assert len(calls) == 5  # the other data did not take its place


def test_training_and_sampling_start_from_the_seed_of_the_run(tmp_path):
    weights, checkpoints = [], set()

    def family(problem, run):
        weights.append(torch.randn(()).item())
        torch.randn(len(weights))  # training that goes on after an interruption draws fewer numbers
        checkpoints.add(run.checkpoint.name)
        return Trained(problem.mixture.sample)

    tasks = [("family", family, "ring8", seed, SMALL, tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))]
    figures = [board._done(task)["figures"]["sliced W2"] for task in tasks]
    assert weights[0] == weights[1] != weights[2] and figures[0] == figures[1] != figures[2]
    for change in ({2: "two-clusters-flat"}, {0: "other"}, {4: Budget(1, 4, 200)}, {4: Budget(0, 8, 200)}):
        board._done(tuple(change.get(i, value) for i, value in enumerate(tasks[0])))
    assert len(checkpoints) == 6  # one for each run, so that none goes on from another's


def test_an_interruption_costs_only_the_run_it_hits(tmp_path, calls):
    def impatient(problem, run):
        if run.seed == 1 and len(calls) == 1:
            calls.append("interrupted")
            raise KeyboardInterrupt
        return perfect(problem, run)

    with pytest.raises(KeyboardInterrupt):
        leaderboard({"impatient": impatient}, "ring8", out=tmp_path, seeds=[0, 1], budget=SMALL)
    assert not (tmp_path / "ring8.md").exists()
    leaderboard({"impatient": impatient}, "ring8", out=tmp_path, seeds=[0, 1], budget=SMALL)
    assert calls == [("perfect", 0), "interrupted", ("perfect", 1)]


def test_a_family_that_fails_is_a_row_that_says_why_and_is_tried_again(tmp_path, calls):
    def never(problem, run):
        raise ModuleNotFoundError("No module named 'course_lib.models.gan'")

    def wrong_shape(problem, run):
        return Trained(lambda n: torch.zeros(n, 3))

    def not_a_number(problem, run):
        return Trained(lambda n: torch.full((n, 2), math.nan))

    entries = {"broken": broken, "never": never, "shape": wrong_shape, "nan": not_a_number}
    rows = {row.name: row for row in leaderboard(entries, "ring8", out=tmp_path, seeds=[0, 1], budget=SMALL)}
    assert rows["broken"].seeds == 1 and rows["broken"].errors == ("seed 1: RuntimeError: the critic exploded",)
    assert rows["never"].seeds == 0 and "No module named" in rows["never"].errors[0]
    assert "expected samples of shape (200, 2), got (200, 3)" in rows["shape"].errors[0]
    assert "NaN or infinity" in rows["nan"].errors[0]
    text = (tmp_path / "ring8.md").read_text(encoding="utf-8")
    assert "| never | failed" in text and "- never, seed 1: ModuleNotFoundError" in text
    assert table(tmp_path)["broken"]["errors"] == "seed 1: RuntimeError: the critic exploded"
    leaderboard({"broken": broken}, "ring8", out=tmp_path, seeds=[0, 1], budget=SMALL)
    assert calls == [("broken", 0), ("broken", 1), ("broken", 1)]


def test_a_bound_is_marked_as_one(tmp_path):
    def bounded(problem, run):
        return Trained(problem.mixture.sample, lambda x: problem.mixture.log_prob(x) - 1, bound=True)

    leaderboard({"bounded": bounded}, "ring8", out=tmp_path, seeds=[0], budget=SMALL)
    assert re.search(r"≤ -[12]\.\d+ \|", (tmp_path / "ring8.md").read_text(encoding="utf-8"))
    assert table(tmp_path)["bounded"]["likelihood"] == "bound"


def copies_of_training_images(problem, run):
    x = problem.train.x
    return Trained(lambda n: x[torch.randint(len(x), (n,))])


def half_the_classes(problem, run):
    x = problem.test.x[problem.test.y < 5].double().requires_grad_()  # as a student's sampler may give them
    return Trained(lambda n: x[torch.randint(len(x), (n,))])


def uniform_images(problem, run):
    return Trained(
        lambda n: torch.rand(n, *problem.shape),
        lambda x: torch.full((len(x),), -problem.dim * math.log(4)) + problem.log_volume,
    )


def test_images_are_judged_by_features_likelihood_and_what_they_teach(tmp_path):
    entries = {"copies": copies_of_training_images, "half": half_the_classes, "noise": uniform_images}
    leaderboard(entries, "digits", out=tmp_path, seeds=[0], budget=Budget(0, 1, 300))
    rows = table(tmp_path, "digits").items()
    got = {name: {k: float(v) for k, v in row.items() if re.match(r"^-?[\d.]", v)} for name, row in rows}
    assert got["noise"]["bits/dim"] == pytest.approx(math.log2(17), rel=1e-5)
    assert (
        got["copies"]["distance to training data"] == 0
        and got["copies"]["copies"] == 1
        and got["real data"]["copies"] < 0.1
    )
    assert got["half"]["recall"] < got["real data"]["recall"] - 0.2 and got["half"]["precision"] > 0.6
    assert got["half"]["IS"] < 6 < 8 < got["copies"]["IS"] <= 10
    assert got["half"]["synthetic to real"] < 0.65 < 0.85 < got["copies"]["synthetic to real"]
    assert got["noise"]["FID"] > 5 * got["copies"]["FID"] and got["noise"]["C2ST"] > 0.8
    assert (tmp_path / "features-digits-300.pt").exists()
    # training images that the feature network never saw look like test images: the floor means something
    assert (
        got["real data"]["C2ST"] == pytest.approx(0.5, abs=0.05)
        and abs(got["real data"]["KID"]) < 0.2 * got["half"]["KID"]
    )


def test_a_run_depends_on_nothing_but_its_task(tmp_path):
    """So several processes may share the runs in any order: what ran before does not matter."""
    tasks = [
        (f.__name__, f, "ring8", seed, SMALL, tmp_path / str(i))
        for i, f in enumerate((shifted, perfect))
        for seed in (0, 1)
    ]
    assert pickle.loads(pickle.dumps(tasks)) == tasks
    there = [board._done(task)["figures"] for task in tasks]
    back = [board._done((*task[:-1], tmp_path / "again"))["figures"] for task in reversed(tasks)]
    for first, second in zip(there, reversed(back), strict=True):
        kept = [{k: v for k, v in figures.items() if "CPU" not in k} for figures in (first, second)]
        assert repr(kept[0]) == repr(kept[1])  # as text, for NaN does not equal NaN


# ------------------------------------------------------------------------------------------------------ the command


def test_a_student_enters_a_sampler_of_their_own(tmp_path, monkeypatch, capsys):
    code = "import numpy\n\nSHIFT = 0\n\ndef draw(n):\n    return numpy.random.randn(n, 2) + SHIFT\n"
    (tmp_path / "my_model.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    options = ["leaderboard", "--data", "ring8", "--seeds", "2", "--out", "board", "--samples", "200", "--families"]
    assert command.main([*options, "--sampler", "my_model:draw"]) == 0
    assert capsys.readouterr().out.strip() == "board/ring8.md"
    text = (tmp_path / "board" / "ring8.md").read_text(encoding="utf-8")
    assert "| my_model.draw | " in text and "--sampler my_model:draw`" in text and "judged by 200 samples" in text
    before = float(table(tmp_path / "board")["my_model.draw"]["sliced W2"])
    sys.modules["my_model"].SHIFT = 10.0  # the student changes the sampler and enters it again
    assert command.main([*options, "--sampler", "my_model:draw"]) == 0
    assert float(table(tmp_path / "board")["my_model.draw"]["sliced W2"]) > before + 5


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--sampler", "nowhere:draw"], "cannot find nowhere:draw: No module named 'nowhere'"),
        (["--sampler", "math:draw"], "cannot find math:draw: module 'math' has no attribute 'draw'"),
        (["--sampler", "math"], "expected module:function, got 'math'"),
        ([], "expected at least one entry and one seed"),
        (["--sampler", "math:sqrt", "--seeds", "0"], "expected at least one entry and one seed"),
    ],
)
def test_the_command_says_what_is_wrong(extra, message, tmp_path, capsys):
    options = ["leaderboard", "--data", "ring8", "--out", str(tmp_path), "--families"]
    assert command.main([*options, *extra]) == 2
    assert message in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- families


@pytest.mark.parametrize("name", [*FAMILIES, *IMAGE_FAMILIES])
@pytest.mark.parametrize("data", ["two-clusters-flat", "digits"])
def test_every_family_trains_samples_and_reports(name, data, tmp_path):
    chosen, few = problem(data), 3
    if name in IMAGE_FAMILIES and chosen.train is None:
        pytest.skip("images only")
    torch.manual_seed(0)
    run = Run(few, 32, 0, tmp_path / "run.pt")
    trained = (FAMILIES | IMAGE_FAMILIES)[name](chosen, run)
    x = trained.sample(20)
    assert x.shape == (20, *chosen.shape) and x.isfinite().all() and not x.requires_grad
    assert trained.parameters > 1000 and trained.passes >= 1 and run.clock.seconds > 0
    assert (tmp_path / "run.pt").exists()
    if chosen.train is not None:
        torch.testing.assert_close((x * 16).round() / 16, x)
        assert x.min() >= 0 and x.max() <= 1
    if trained.log_prob is not None:
        real = chosen.mixture.sample(10) if chosen.train is None else chosen.test.x[:10]
        with torch.no_grad():
            assert trained.log_prob(real).shape == (10,) and (trained.log_prob(real) < 20).all()
    without = ("gan", "wgan-gp") if data != "digits" else ("gan", "wgan-gp", "diffusion", "flow-matching")
    assert (trained.log_prob is None) == (name in without)


def test_the_families_learn(tmp_path):
    """Half a minute of training is the leaderboard's business; here one fast family must beat chance by far."""
    chosen = problem("two-clusters-flat")
    torch.manual_seed(0)
    trained = FAMILIES["autoregressive"](chosen, Run(150, 128))
    assert ks_per_dim(trained.sample(1000), chosen.mixture.sample(1000)).max() < 0.3
