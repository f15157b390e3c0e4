r"""Judge any sampler by the same metrics: one row of a table, every figure with its interval and its floor.

A figure without an interval may be luck. A figure without the floor, what real data gets against other real data of the
same size, has no scale: most distances are not 0 even for a perfect model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.evaluation.checks import require_pair
from course_lib.evaluation.classifier_tests import c2st
from course_lib.evaluation.distances import ks_per_dim, sliced_wasserstein
from course_lib.evaluation.features import Classifier
from course_lib.evaluation.frechet import fid
from course_lib.evaluation.intervals import Interval, half_samples, random_splits, shuffled, spread_interval
from course_lib.evaluation.kernels import kid, median_bandwidth, mmd
from course_lib.evaluation.labels import inception_score
from course_lib.evaluation.modes import mode_coverage
from course_lib.evaluation.neighbours import precision_recall_density_coverage
from course_lib.probability import GaussianMixture
from course_lib.protocols import Samples

__all__ = ["Figure", "evaluate", "floors", "image_metrics", "point_metrics", "with_intervals"]

# Each maps (fake, real) to a figure, or to several by name.
Metrics = Mapping[str, Callable[[Tensor, Tensor], float | dict[str, float]]]


class Figure(NamedTuple):
    """A figure with its confidence interval, and the ``floor``: what real data gets, and between which bounds."""

    value: float
    low: float
    high: float
    floor: Interval


def point_metrics(real: Tensor, *, mixture: GaussianMixture | None = None) -> Metrics:
    r"""What points in a few dimensions are judged by.

    Args:
        real: Real samples, shape (N, D); they fix the bandwidth of MMD, so that all models get the same.
        mixture: The true density if it is known: then modes are counted.

    Returns:
        The metrics by name.

    Example:
        >>> list(point_metrics(torch.randn(100, 2)))
        ['sliced W2', 'C2ST', 'MMD²', 'KS', 'prdc']
    """
    bandwidth = median_bandwidth(real, real)
    metrics: dict[str, Callable[[Tensor, Tensor], float | dict[str, float]]] = {
        "sliced W2": lambda fake, real: sliced_wasserstein(fake, real, projections=200),
        "C2ST": lambda fake, real: c2st(fake, real).accuracy,
        "MMD²": lambda fake, real: mmd(fake, real, bandwidth=bandwidth),
        "KS": lambda fake, real: ks_per_dim(fake, real).max().item(),
        "prdc": lambda fake, real: precision_recall_density_coverage(fake, real)._asdict(),
    }
    if mixture is not None:
        metrics["modes"] = lambda fake, real: _modes(fake, mixture)
    return metrics


def image_metrics(classifier: Classifier) -> Metrics:
    r"""What the features of images are judged by.

    Real images must be new to the classifier: it knows those it was trained on by heart, and so their features differ.

    Args:
        classifier: The network that made the features.

    Returns:
        The metrics by name.

    Example:
        >>> list(image_metrics(Classifier((1, 8, 8), classes=10)))
        ['FID', 'KID', 'IS', 'C2ST', 'prdc']
    """
    return {
        "FID": fid,
        "KID": kid,
        "IS": lambda fake, real: inception_score(classifier.head(F.silu(fake))),
        "C2ST": lambda fake, real: c2st(fake, real).accuracy,
        "prdc": lambda fake, real: precision_recall_density_coverage(fake, real)._asdict(),
    }


def evaluate(
    source: Samples | Tensor,
    real: Tensor,
    *,
    other: Tensor | None = None,
    metrics: Metrics | None = None,
    resamples: int = 20,
    splits: int = 10,
    generator: torch.Generator | None = None,
) -> dict[str, Figure]:
    r"""One row of a table: what each metric says of a sampler, how sure that is, and what real data would get.

    Args:
        source: A model with ``sample``, or its samples, shape (N, D).
        real: Real samples that the model was not trained on, shape (M, D). Of images give features, and of the
            samples too: :mod:`course_lib.evaluation.features`.
        other: Real samples for the floor, shape (M, D). When omitted, ``real`` is cut in two, at random. The longer
            samples are cut at random to the length of the shortest.
        metrics: Metrics by name; :func:`point_metrics` when omitted.
        resamples: Number of halves for the intervals.
        splits: Number of splits for the floor.
        generator: Source of cuts, halves and splits; the global random state when omitted.

    Returns:
        Figures by name. A metric that gives several figures adds all, by their own names.

    Raises:
        ValueError: If the samples cannot be compared, or there are fewer than 2 ``resamples`` or ``splits``.

    Example:
        >>> from course_lib.probability import ring
        >>> row = evaluate(ring(), ring().sample(1000), resamples=4, splits=4)
        >>> 0.4 < row["C2ST"].value < 0.6, sorted(row)[:3]
        (True, ['C2ST', 'KS', 'MMD²'])
    """
    if min(resamples, splits) < 2:
        raise ValueError(f"expected at least 2 resamples and 2 splits, got {resamples} and {splits}")
    if other is None:
        real, other = next(random_splits(real, splits=1, generator=generator))
    fake = source if isinstance(source, Tensor) else source.sample(min(len(real), len(other)))
    require_pair(fake=fake, real=real, other=other)
    n = min(len(fake), len(real), len(other))  # figures depend on the sizes, so all have the same
    fake, real, other = (shuffled(x, generator=generator)[:n] for x in (fake, real, other))
    metrics = point_metrics(real) if metrics is None else metrics
    figures = with_intervals(metrics, fake, real, resamples=resamples, generator=generator)
    floor = floors(metrics, real, other, splits=splits, generator=generator)
    return {name: Figure(*figure, floor[name]) for name, figure in figures.items()}


def with_intervals(
    metrics: Metrics, fake: Tensor, real: Tensor, *, resamples: int = 20, generator: torch.Generator | None = None
) -> dict[str, Interval]:
    """All figures of one pair of samples with their intervals, which :func:`~.intervals.bootstrap` explains.

    Args:
        metrics: Metrics by name.
        fake: Shape (N, D).
        real: Shape (M, D).
        resamples: Number of halves.
        generator: Source of the halves; the global random state when omitted.

    Returns:
        Intervals by name.

    Example:
        >>> x = torch.randn(100, 2)
        >>> with_intervals({"shift": lambda x, y: (x - y).mean().item()}, x + 3, x)["shift"].value
        3.0
    """
    draws = [_row(metrics, *halves) for halves in half_samples(fake, real, resamples=resamples, generator=generator)]
    return {
        name: spread_interval(value, [row[name] for row in draws]) for name, value in _row(metrics, fake, real).items()
    }


def floors(
    metrics: Metrics, real: Tensor, other: Tensor, *, splits: int = 10, generator: torch.Generator | None = None
) -> dict[str, Interval]:
    """What real data gets against real data, which :func:`~.intervals.real_floor` explains.

    Args:
        metrics: Metrics by name.
        real: Shape (N, D).
        other: More real samples, shape (N, D).
        splits: Number of splits.
        generator: Source of the splits; the global random state when omitted.

    Returns:
        Means and bounds by name.

    Example:
        >>> floors({"shift": lambda x, y: (x - y).mean().item()}, torch.ones(10, 2), torch.ones(10, 2))["shift"].value
        0.0
    """
    draws = [
        _row(metrics, *pair) for pair in random_splits(torch.cat([real, other]), splits=splits, generator=generator)
    ]
    return {
        name: spread_interval(sum(row[name] for row in draws) / splits, [row[name] for row in draws])
        for name in draws[0]
    }


def _modes(fake: Tensor, mixture: GaussianMixture) -> dict[str, float]:
    found = mode_coverage(fake, mixture)
    return {
        "modes covered": found.covered,
        "near a mode": found.near,
        "KL of modes": found.kl,
        "spread in modes": found.spread,
    }


def _row(metrics: Metrics, fake: Tensor, real: Tensor) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, metric in metrics.items():
        result = metric(fake, real)
        row |= result if isinstance(result, dict) else {name: result}
    return row
