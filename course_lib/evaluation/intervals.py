r"""How sure is a figure, and what would real data get? No figure of merit means anything without both.

The usual bootstrap draws N of N points with replacement, so points repeat. A repeated point is its own neighbour at
distance 0, is recognised by every classifier, and is left out of no diagonal: metrics of samples break. Half of the
points, drawn *without* replacement, serve as well. The mean of N/2 out of N values varies, over draws, by

.. math:: \operatorname{Var} = \left(1 - \frac{N/2}{N}\right) \frac{s^2}{N/2} = \frac{s^2}{N} ,

which is just the variance of the mean of all N. To first order the same holds for every smooth figure. In the language
of the bootstrap each point has the weight 0 or 2 instead of a random count: both have mean 1 and variance 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Interval",
    "bootstrap",
    "half_samples",
    "mean_interval",
    "random_splits",
    "real_floor",
    "share_interval",
    "shuffled",
    "spread_interval",
]

Metric = Callable[..., float]


class Interval(NamedTuple):
    """A figure and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(
    metric: Metric,
    *samples: Tensor,
    resamples: int = 50,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Interval:
    r"""A figure with its confidence interval, from random halves of the samples.

    .. math:: \hat\theta \pm z \left[ \frac{1}{B - 1} \sum_b \left(\theta_b - \bar\theta\right)^2 \right]^{1/2}

    The spread is taken about the mean of the halves' own figures, so a bias that depends on the size of the sample, as
    FID has, does not enter the width. It stays in the figure itself, and no interval removes it.

    Args:
        metric: Maps the samples to a number.
        *samples: Each of shape (N, ...). They are resampled independently of each other.
        resamples: Number of halves B. The width is itself random by about :math:`1/\sqrt{2 B}` of it.
        level: Probability that the interval should have of containing the true figure.
        generator: Source of the halves; the global random state when omitted.

    Returns:
        The figure of all samples, and the bounds.

    Raises:
        ValueError: If there are no samples, one has fewer than 4 rows, ``resamples`` is less than 2, or ``level``
            outside (0, 1).

    Reference:
        Praestgaard and Wellner, *Exchangeably Weighted Bootstraps of the General Empirical Process* (1993), example
        3.2; Efron, *The Jackknife, the Bootstrap and Other Resampling Plans* (1982), section 8.3, for half-samples.

    Example:
        >>> x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
        >>> value, low, high = bootstrap(lambda x: x.mean().item(), x, resamples=500)
        >>> low < 0 < high, abs((high - low) / 2 - 1.96 / 1000**0.5) < 0.01
        (True, True)
    """
    if not samples or min(len(x) for x in samples) < 4 or resamples < 2:
        raise ValueError(
            f"expected samples of at least 4 rows and at least 2 resamples, "
            f"got {[len(x) for x in samples]} rows and {resamples} resamples"
        )
    values = [metric(*halves) for halves in half_samples(*samples, resamples=resamples, generator=generator)]
    return spread_interval(metric(*samples), values, level=level)


def half_samples(
    *samples: Tensor, resamples: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Draw a random half of the rows of each sample, again and again: what :func:`bootstrap` looks at.

    Args:
        *samples: Each of shape (N, ...).
        resamples: How often.
        generator: Source of the halves; the global random state when omitted.

    Returns:
        Tuples of as many halves as there are samples.

    Example:
        >>> [(x.shape, y.shape) for x, y in half_samples(torch.zeros(4, 2), torch.zeros(9, 3), resamples=1)]
        [(torch.Size([2, 2]), torch.Size([4, 3]))]
    """
    for _ in range(resamples):
        yield tuple(shuffled(x, generator=generator)[: len(x) // 2] for x in samples)


def real_floor(
    metric: Metric,
    real: Tensor,
    *,
    splits: int = 10,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Interval:
    r"""What real data itself gets: the figure of one random half of it against the other.

    A model whose figure lies between the bounds cannot be told from real data by this metric at this sample size.

    Args:
        metric: Maps (fake, real) to a number. It must judge as many fakes as there are in half of ``real``: most
            figures depend on the sizes.
        real: Real data or its features, shape (2 N, ...).
        splits: Number of random splits.
        level: Share of the figures of real halves that should lie between the bounds.
        generator: Source of the splits; the global random state when omitted.

    Returns:
        The mean over the splits, and the bounds of a single one.

    Raises:
        ValueError: If ``real`` has fewer than 4 rows, ``splits`` is less than 2, or ``level`` outside (0, 1).

    Example:
        >>> from course_lib.evaluation.distances import sliced_wasserstein
        >>> floor = real_floor(sliced_wasserstein, torch.randn(2000, 2))
        >>> 0 < floor.low < floor.value < floor.high < 0.2  # two samples of one distribution are not at distance 0
        True
    """
    n = len(real) // 2
    if n < 2 or splits < 2:
        raise ValueError(f"expected at least 4 rows and at least 2 splits, got {len(real)} rows and {splits} splits")
    values = [metric(*halves) for halves in random_splits(real, splits=splits, generator=generator)]
    return spread_interval(sum(values) / splits, values, level=level)


def random_splits(
    real: Tensor, *, splits: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a sample at random into two halves, again and again: what :func:`real_floor` looks at.

    Args:
        real: Shape (2 N, ...).
        splits: How often.
        generator: Source of the splits; the global random state when omitted.

    Returns:
        Pairs of disjoint halves.

    Example:
        >>> [(x.shape, y.shape) for x, y in random_splits(torch.zeros(10, 2), splits=1)]
        [(torch.Size([5, 2]), torch.Size([5, 2]))]
    """
    n = len(real) // 2
    for _ in range(splits):
        mixed = shuffled(real, generator=generator)
        yield mixed[:n], mixed[n : 2 * n]


def mean_interval(values: Tensor, *, level: float = 0.95) -> Interval:
    r"""Mean of independent values, such as log-densities of held-out data, with its confidence interval.

    .. math:: \bar v \pm z \, s / \sqrt N

    Args:
        values: Shape (N,), at least two.
        level: Probability that the interval should have of containing the true mean.

    Returns:
        The mean and the bounds.

    Raises:
        ValueError: If there are fewer than 2 values, they are not of shape (N,), or ``level`` is outside (0, 1).

    Example:
        >>> mean_interval(torch.tensor([1.0, 1.0, 1.0]))
        Interval(value=1.0, low=1.0, high=1.0)
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected values of shape (N,), at least 2, got {tuple(values.shape)}")
    values = values.double()
    half = _z(level) * values.std().item() / math.sqrt(len(values))
    return Interval(values.mean().item(), values.mean().item() - half, values.mean().item() + half)


def share_interval(right: float, n: float, *, level: float = 0.95) -> Interval:
    r"""A share, such as an accuracy, with Wilson's interval; unlike the normal one it stays within [0, 1].

    .. math:: \frac{p + z^2 / 2 n \pm z \sqrt{p (1 - p) / n + z^2 / 4 n^2}}{1 + z^2 / n}, \qquad p = \text{right} / n

    Args:
        right: How many; fractions serve where dependent ones count for less than one.
        n: Out of how many independent ones.
        level: Probability that the interval should have of containing the true share.

    Returns:
        The share and the bounds.

    Raises:
        ValueError: If ``right`` lies outside 0 to n, n is less than 1, or ``level`` is outside (0, 1).

    Reference:
        Wilson, *Probable Inference, the Law of Succession, and Statistical Inference* (1927).

    Example:
        >>> value, low, high = share_interval(50, 100)
        >>> value, round(low, 3), round(high, 3)
        (0.5, 0.404, 0.596)
    """
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"expected n >= 1 and right from 0 to n, got right {right} of n {n}")
    z, share = _z(level), right / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # the bounds of 0 and of n are 0 and 1 but for rounding
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def spread_interval(value: float, draws: Sequence[float], *, level: float = 0.95) -> Interval:
    r"""An interval about a figure, as wide as its draws are spread.

    .. math:: v \pm z \left[ \frac{1}{B - 1} \sum_b \left(v_b - \bar v\right)^2 \right]^{1/2}

    Args:
        value: The figure v.
        draws: Draws :math:`v_b` of it, at least two.
        level: Probability that a normal variable falls inside.

    Returns:
        The figure and the bounds.

    Raises:
        ValueError: If there are fewer than 2 draws, or ``level`` is outside (0, 1).

    Example:
        >>> value, low, high = spread_interval(10.0, [1.0, 2.0, 3.0])
        >>> value, round(low, 2), round(high, 2)
        (10.0, 8.04, 11.96)
    """
    if len(draws) < 2:
        raise ValueError(f"the spread of {len(draws)} draw{'s' * (len(draws) != 1)} is unknown: at least 2 are needed")
    half = _z(level) * torch.tensor(draws, dtype=torch.float64).std().item()
    return Interval(value, value - half, value + half)


def shuffled(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """The rows of a sample in random order.

    Args:
        x: Shape (N, ...).
        generator: Source of the order; the global random state when omitted.

    Returns:
        Shape (N, ...).

    Example:
        >>> shuffled(torch.tensor([3, 1, 2])).sort().values
        tensor([1, 2, 3])
    """
    return x[torch.randperm(len(x), generator=generator).to(x.device)]


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)
