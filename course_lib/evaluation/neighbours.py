r"""Nearest neighbours: what is sampled but not real, what is real but never sampled, and what is only copied.

A sample's *manifold* is the union of balls, one around each point, that reach to its k-th nearest neighbour. A fake
point is good if it lies on the real manifold; a real point is found if it lies on the fake one. Distances between
features that mean something (see :mod:`course_lib.evaluation.features`) are better than distances between pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.evaluation.blocks import kth_neighbour, squared_distances
from course_lib.evaluation.checks import require_pair

__all__ = ["PRDC", "Memorization", "memorization", "precision_recall_density_coverage"]


class PRDC(NamedTuple):
    """``precision`` and ``density``: are fakes realistic? ``recall`` and ``coverage``: is everything real found?"""

    precision: float
    recall: float
    density: float
    coverage: float


class Memorization(NamedTuple):
    """``ratio`` of median distances to the training data (1 if new, 0 if copied), and the share of near ``copies``."""

    ratio: float
    copies: float


@torch.no_grad()
def precision_recall_density_coverage(fake: Tensor, real: Tensor, *, k: int = 5) -> PRDC:
    r"""Fidelity and diversity apart, by nearest neighbours.

    With :math:`B_k(x)` the open ball around x that reaches to its k-th nearest neighbour in its own sample,

    - precision is the share of fake points in at least one :math:`B_k(\text{real})`;
    - recall is the share of real points in at least one :math:`B_k(\text{fake})`;
    - density is the number of :math:`B_k(\text{real})` that hold a fake point, averaged and divided by k: an outlier of
      the real data, with its wide ball, counts less than in precision. It can exceed 1;
    - coverage is the share of :math:`B_k(\text{real})` that hold at least one fake point: outliers of the fake data,
      with their wide balls, cannot raise it as they raise recall.

    For equal distributions and equal sizes density is 1 on average and coverage about :math:`1 - 2^{-k}`; precision and
    recall have no such value, so look at the real-against-real floor.

    Args:
        fake: Features of generated data, shape (N, D).
        real: Features of real data, shape (M, D).
        k: Number of neighbours.

    Returns:
        The four figures.

    Raises:
        ValueError: If the samples cannot be compared, or have no more than k rows.

    Reference:
        Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models* (2019), equations
        (1) and (2); Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative Models* (2020), equations
        (4) and (5).

    Example:
        >>> half = torch.randn(1000, 2).abs()  # fakes in one quadrant of what is real: good, but not diverse
        >>> result = precision_recall_density_coverage(half, torch.randn(1000, 2))
        >>> result.precision > 0.9, result.recall < 0.5
        (True, True)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    require_pair(k + 1, fake=fake, real=real)
    fake_radii, real_radii = (kth_neighbour(z, z, k=k + 1).square() for z in (fake, real))
    balls = torch.zeros(len(fake), dtype=torch.long, device=fake.device)  # that hold each fake point
    covered, found = torch.zeros(2, len(real), dtype=torch.bool, device=fake.device)
    start = 0
    for block in squared_distances(real, fake):  # (some real, all fake)
        rows = slice(start, start + len(block))
        inside = block < real_radii[rows, None]
        balls += inside.sum(0)
        covered[rows] = inside.any(1)
        found[rows] = (block < fake_radii).any(1)
        start += len(block)
    return PRDC(
        precision=(balls > 0).double().mean().item(),
        recall=found.double().mean().item(),
        density=balls.double().mean().item() / k,
        coverage=covered.double().mean().item(),
    )


@torch.no_grad()
def memorization(samples: Tensor, train: Tensor, held_out: Tensor, *, quantile: float = 0.01) -> Memorization:
    r"""Are samples nearer to the training data than new real data is?

    With d(x) the distance from x to its nearest training point,

    .. math:: \text{ratio} = \frac{\operatorname{median} d(\text{samples})}{\operatorname{median} d(\text{held out})},
              \qquad \text{copies} = \Pr\left( d(\text{sample}) \le q_{0.01} \right),

    where :math:`q_{0.01}` is the distance that 1 % of the held-out points fall below. A model that draws from the true
    density gives a ratio of 1 and 0.01 copies; copied training data gives 0 and 1. Both distances are to the same
    training set, so its size does not matter. A ratio below 1 is not yet a proof: blurred or average samples are near
    to everything. A high share of copies at a ratio near 1 means that some samples are copied, and the rest are not.

    Args:
        samples: Features of generated data, shape (N, D).
        train: Features of the training data, shape (T, D).
        held_out: Features of real data that was not trained on, shape (M, D).
        quantile: Share of held-out points that count as copies by chance.

    Returns:
        The two figures.

    Raises:
        ValueError: If the samples cannot be compared, ``quantile`` is outside (0, 1), or half of the held-out points
            are in the training data.

    Reference:
        Meehan, Chaudhuri and Dasgupta, *A Non-Parametric Test to Detect Data-Copying in Generative Models* (2020),
        for the comparison of the two distances.

    Example:
        >>> train, new = torch.randn(500, 2), torch.randn(500, 2)
        >>> memorization(train[:100], train, new)
        Memorization(ratio=0.0, copies=1.0)
    """
    require_pair(samples=samples, train=train, held_out=held_out)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
    to_samples, to_held_out = (kth_neighbour(z, train, k=1) for z in (samples, held_out))
    # a difference of large numbers leaves about 1e-8 of their size where 0 would be right
    size = train.double().std(0).norm()
    to_samples, to_held_out = (d.where(d > 1e-7 * size, 0) for d in (to_samples, to_held_out))
    median = to_held_out.median()
    if median == 0:
        raise ValueError("at least half of the held-out points are in the training data: they were not held out")
    copies = (to_samples <= to_held_out.quantile(quantile)).double().mean()
    return Memorization((to_samples.median() / median).item(), copies.item())
