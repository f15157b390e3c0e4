r"""The leaderboard: every family trained on the same data under one budget, judged by the same metrics, over seeds.

Each training with its judgement is one *run*, and leaves one file. So an interrupted leaderboard goes on where it was,
several processes can share the work, and one family that fails costs one row, which says why.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from course_lib.data import IMAGES, LabelledImages
from course_lib.evaluation.families import from_sampler
from course_lib.evaluation.features import in_batches, train_classifier
from course_lib.evaluation.harness import Metrics, floors, image_metrics, point_metrics, with_intervals
from course_lib.evaluation.intervals import Interval
from course_lib.evaluation.labels import train_on_synthetic
from course_lib.evaluation.likelihood import held_out_likelihood
from course_lib.evaluation.neighbours import memorization
from course_lib.evaluation.problem import Family, Problem, Run, Trained, problem
from course_lib.train import Progress

__all__ = ["Budget", "Row", "budget_for", "leaderboard"]

COSTS = ("parameters", "training, CPU s", "1,000 samples, CPU s", "network passes")


@dataclass(frozen=True)
class Budget:
    """What every run gets: training steps and examples per step; and by how many samples it is judged."""

    steps: int
    batch_size: int
    samples: int


@dataclass(frozen=True)
class Row:
    """One family: its figures, a mean and a standard deviation over seeds each, and what went wrong."""

    name: str
    figures: Mapping[str, tuple[float, float]]
    seeds: int
    errors: tuple[str, ...] = ()


def budget_for(data: str) -> Budget:
    r"""The budget of a leaderboard unless another is asked for.

    Args:
        data: Name of the data.

    Returns:
        Steps, batch size and samples; seconds for each run on a toy or the digits, minutes on MNIST, on one core.

    Example:
        >>> budget_for("ring8")
        Budget(steps=2000, batch_size=256, samples=2000)
    """
    chosen = problem(data)
    if chosen.train is None:
        return Budget(steps=2000, batch_size=256, samples=2000)
    if chosen.dim < 100:
        return Budget(steps=1000, batch_size=64, samples=len(chosen.test.x))
    return Budget(steps=4000, batch_size=128, samples=2000)


def leaderboard(
    entries: Mapping[str, Family],
    data: str,
    *,
    out: str | Path,
    seeds: Iterable[int] = range(5),
    budget: Budget | None = None,
    jobs: int = 1,
    made_by: str = "",
) -> list[Row]:
    r"""Train and judge every family with every seed, and write the table as ``DATA.csv`` and ``DATA.md``.

    What was done before, with the same budget, is loaded; what failed before is tried again. So is a sampler that needs
    no training here (:func:`~course_lib.evaluation.families.from_sampler`): it may have changed since.

    Args:
        entries: Families by name, such as :data:`~course_lib.evaluation.families.FAMILIES`.
        data: Name of a toy or of images.
        out: Folder for the tables, and for what is needed to go on: results, checkpoints, the feature network.
        seeds: Seeds of the runs.
        budget: The same for every run; :func:`budget_for` when omitted.
        jobs: Processes that share the runs. With more than one, each has one thread, and entries must be functions of
            a module.
        made_by: The command, to be written under the table.

    Returns:
        The rows, the floor first.

    Raises:
        ValueError: If there is no such data, no entry, or no seed.
        DataError: If images are missing.

    Example:
        >>> import tempfile
        >>> def perfect(problem, run):
        ...     return Trained(problem.mixture.sample, problem.mixture.log_prob)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     budget = Budget(steps=0, batch_size=1, samples=200)
        ...     rows = leaderboard({"perfect": perfect}, "ring8", out=folder, seeds=[0, 1], budget=budget)
        >>> [row.name for row in rows], rows[1].figures["modes covered"]
        (['real data', 'perfect'], (8.0, 0.0))
    """
    seeds, out, budget = list(seeds), Path(out), budget or budget_for(data)
    if not entries or not seeds:
        raise ValueError(f"expected at least one entry and one seed, got {list(entries)} and {seeds}")
    out.mkdir(parents=True, exist_ok=True)
    floor = _bench(data, budget.samples, out).floor  # made before the processes, which then load the features
    tasks = [(name, entries[name], data, seed, budget, out) for seed in seeds for name in entries]
    results: dict[tuple[str, int], dict] = {}
    with Progress(len(tasks), label=data) as progress:
        for (name, _, _, seed, _, _), result in zip(tasks, _all_done(tasks, jobs), strict=True):
            results[name, seed] = result
            progress.advance()
    rows = [Row("real data", {name: (f.value, (f.high - f.low) / 2 / 1.96) for name, f in floor.items()}, 0)]
    rows += [_row(name, {seed: results[name, seed] for seed in seeds}) for name in entries]
    _write_csv(out / f"{data}.csv", rows)
    _write_markdown(out / f"{data}.md", rows, data, seeds, budget, made_by)
    return rows


# ------------------------------------------------------------------------------------------------------------ a run


@dataclass(frozen=True)
class _Bench:
    """Everything that judges: real samples, what to look at, the metrics, and the floor."""

    real: Tensor  # of the data, (N, *shape)
    real_features: Tensor
    metrics: Metrics
    floor: Mapping[str, Interval]
    features: Callable[[Tensor], Tensor]
    more: Callable[[Tensor, Tensor], dict[str, Interval]]  # (samples, their features) -> figures with labels


def _bench(data: str, n: int, out: Path) -> _Bench:
    # images for the floor are kept from the feature network, and how many these are depends on n
    return _bench_of(data, n, out / f"features-{data}-{n}.pt" if data in IMAGES else None)


@lru_cache(maxsize=1)
def _bench_of(data: str, n: int, path: Path | None) -> _Bench:
    with torch.random.fork_rng([]):
        torch.manual_seed(2**31)
        return _bench_of_points(problem(data), n) if path is None else _bench_of_images(problem(data), n, path)


def _bench_of_points(chosen: Problem, n: int) -> _Bench:
    real, other = chosen.mixture.sample(n), chosen.mixture.sample(n)
    metrics = point_metrics(real, mixture=chosen.mixture)
    floor = floors(metrics, real, other)
    floor["NLL, nats"] = held_out_likelihood(chosen.mixture.log_prob, real).nll
    return _Bench(real, real, metrics, floor, features=lambda x: x, more=lambda x, h: {})


def _bench_of_images(chosen: Problem, n: int, path: Path) -> _Bench:
    """Real images are test images; others, for the floor, are training images that the feature network never saw."""
    most = min(len(chosen.test.x), len(chosen.train.x) // 2)
    if not 4 <= n <= most:
        raise ValueError(f"models of {chosen.name} can be judged by 4 to {most} samples, not by {n}")
    order, chosen_test = torch.randperm(len(chosen.train.x)), torch.randperm(len(chosen.test.x))[:n]
    real = LabelledImages(*(t[chosen_test] for t in chosen.test))
    other, rest = (LabelledImages(*(t[i] for t in chosen.train)) for i in (order[:n], order[n:]))
    classifier = train_classifier(rest, path=path)

    def features(x: Tensor) -> Tensor:
        return in_batches(classifier.features, x)

    train_features, real_features = features(chosen.train.x), features(real.x)
    metrics = image_metrics(classifier)

    def copies(fake: Tensor, held_out: Tensor) -> dict[str, float]:
        ratio, copies = memorization(fake, train_features, held_out)
        return {"distance to training data": ratio, "copies": copies}

    def more(x: Tensor, h: Tensor) -> dict[str, Interval]:
        figures = with_intervals({"memorization": copies}, h, real_features)
        labels = in_batches(classifier.head, torch.nn.functional.silu(h)).argmax(1)
        return figures | {"synthetic to real": _synthetic_to_real(x, labels, real)}

    floor = floors(metrics, real_features, features(other.x))
    floor |= floors({"memorization": copies}, *real_features.split((n + 1) // 2))
    floor["synthetic to real"] = _synthetic_to_real(other.x, other.y, real)
    return _Bench(real.x, real_features, metrics, floor, features=features, more=more)


def _synthetic_to_real(x: Tensor, labels: Tensor, real: LabelledImages) -> Interval:
    return train_on_synthetic(x.flatten(1), labels, real.x.flatten(1), real.y)


def _all_done(tasks: list[tuple], jobs: int) -> Iterable[dict]:
    if jobs == 1:
        return map(_done, tasks)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    return _mapped(pool, tasks)


def _mapped(pool: ProcessPoolExecutor, tasks: list[tuple]) -> Iterable[dict]:
    with pool:
        yield from pool.map(_done, tasks)


def _done(task: tuple) -> dict:
    """The result of one run, from its file if it was done before."""
    name, family, data, seed, budget, out = task
    path = out / "runs" / f"{data}-{name}-{seed}.json"
    key = {"data": data, "steps": budget.steps, "batch_size": budget.batch_size, "samples": budget.samples}
    if path.is_file() and getattr(family, "func", None) is not from_sampler:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["budget"] == key and not result["error"]:
            return result
    try:
        figures, error = _judged(family, data, seed, budget, out, name), ""
    except Exception as failure:  # whatever a family does wrong belongs in its row
        figures, error = {}, f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
    result = {"budget": key, "error": error, "figures": figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(result, indent=1), encoding="utf-8")
    os.replace(partial, path)
    return result


def _judged(family: Family, data: str, seed: int, budget: Budget, out: Path, name: str) -> dict[str, list[float]]:
    chosen, bench = problem(data), _bench(data, budget.samples, out)
    file = f"{data}-{name}-{seed}-{budget.steps}x{budget.batch_size}.pt"
    run = Run(budget.steps, budget.batch_size, seed, out / "checkpoints" / file)
    torch.manual_seed(seed)
    trained = family(chosen, run)
    torch.manual_seed(1_000_000 + seed)
    samples = torch.as_tensor(trained.sample(budget.samples)).detach()
    if samples.shape != bench.real.shape:
        raise ValueError(f"expected samples of shape {tuple(bench.real.shape)}, got {tuple(samples.shape)}")
    samples = samples.to(bench.real)
    h = bench.features(samples)
    figures = with_intervals(bench.metrics, h, bench.real_features) | bench.more(samples, h)
    if trained.log_prob is not None:
        likelihood = held_out_likelihood(trained.log_prob, bench.real)
        unit = "NLL, nats" if chosen.train is None else "bits/dim"
        figures[unit] = likelihood.nll if chosen.train is None else likelihood.bits
    costs = (trained.parameters, run.clock.seconds, _seconds_of_sampling(trained), trained.passes)
    figures |= {name: Interval(cost, cost, cost) for name, cost in zip(COSTS, costs, strict=True) if cost is not None}
    if trained.bound:
        figures["bound"] = Interval(1, 1, 1)
    return {name: list(figure) for name, figure in figures.items()}


def _seconds_of_sampling(trained: Trained) -> float:
    start = time.process_time()
    trained.sample(1000)
    return time.process_time() - start


# ------------------------------------------------------------------------------------------------------- the tables


def _row(name: str, results: Mapping[int, dict]) -> Row:
    good = [result["figures"] for result in results.values() if not result["error"]]
    figures = {}
    for key in good[0] if good else ():
        values = [figure[key][0] for figure in good]
        figures[key] = (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan)
    errors = tuple(f"seed {seed}: {result['error']}" for seed, result in results.items() if result["error"])
    return Row(name, figures, len(good), errors)


def _columns(rows: list[Row]) -> list[str]:
    seen = dict.fromkeys(key for row in rows for key in row.figures if key not in ("bound", *COSTS))
    return [*seen, *(cost for cost in COSTS if any(cost in row.figures for row in rows))]


def _write_csv(path: Path, rows: list[Row]) -> None:
    columns = _columns(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["family", "seeds", *(part for c in columns for part in (c, f"{c} std")), "likelihood", "errors"]
        )
        for row in rows:
            cells = [cell for c in columns for cell in row.figures.get(c, ("", ""))]
            kind = (
                "bound" if "bound" in row.figures else "exact" if {"NLL, nats", "bits/dim"} & set(row.figures) else ""
            )
            writer.writerow([row.name, row.seeds, *cells, kind, "; ".join(row.errors)])


def _write_markdown(path: Path, rows: list[Row], data: str, seeds: list[int], budget: Budget, made_by: str) -> None:
    columns = _columns(rows)
    judged = [c for c in columns if c not in COSTS]
    lines = [f"# {data}", ""]
    lines += [
        f"Mean and standard deviation over {len(seeds)} seeds; {budget.steps} steps of {budget.batch_size} examples, "
        f"judged by {budget.samples} samples. For *real data* they are those of random splits of real samples: the "
        "floor. A likelihood after ≤ is an upper bound.",
        "",
    ]
    for part in (judged, [c for c in columns if c in COSTS]):
        lines += ["| family | " + " | ".join(part) + " |", "|---" * (len(part) + 1) + "|"]
        for row in rows:
            if row.figures and any(c in row.figures for c in part):
                lines.append(f"| {row.name} | " + " | ".join(_cell(row, c) for c in part) + " |")
            elif row.errors:
                lines.append(f"| {row.name} | failed" + " |" * len(part))
        lines.append("")
    lines += [f"- {row.name}, {error}" for row in rows for error in row.errors]
    if made_by:
        lines += ["", f"Made by `{made_by}`."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(row: Row, column: str) -> str:
    if column not in row.figures:
        return "—"
    mean, std = row.figures[column]
    if math.isnan(mean):  # such as the spread of samples none of which is near a mode
        return "—"
    if column in ("parameters", "network passes"):
        return f"{mean:,.0f}"
    sign = "≤ " if "bound" in row.figures and column in ("NLL, nats", "bits/dim") else ""
    if math.isnan(std):
        return f"{sign}{mean:.3g}"
    digits = max(0, min(4, 1 - math.floor(math.log10(std)))) if std > 0 else 2  # two digits of the uncertainty
    return f"{sign}{mean:.{digits}f} ± {std:.{digits}f}"
