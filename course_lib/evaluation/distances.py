r"""Distances between two samples, from the data alone.

In one dimension the p-Wasserstein distance is a distance of quantile functions,

.. math:: W_p^p(P, Q) = \int_0^1 \left| F_P^{-1}(u) - F_Q^{-1}(u) \right|^p du ,

so sorting solves it. In more dimensions it is an assignment problem; its *sliced* form goes back to one dimension by
projecting on many directions. The Kolmogorov-Smirnov distance is the largest gap of the distribution functions instead.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from course_lib.evaluation.blocks import squared_distances
from course_lib.evaluation.checks import require_pair

__all__ = ["ks_per_dim", "sliced_wasserstein", "wasserstein"]


@torch.no_grad()
def ks_per_dim(x: Tensor, y: Tensor) -> Tensor:
    r"""Kolmogorov-Smirnov distance of every dimension by itself.

    .. math:: \mathrm{KS}_d = \sup_t \left| F_{x_d}(t) - F_{y_d}(t) \right|

    It sees marginals only: two modes on the diagonal and two on the anti-diagonal have the same marginals, and a
    distance of 0.

    Args:
        x: Samples, shape (N, D).
        y: Samples, shape (M, D); N and M may differ.

    Returns:
        Distances between 0 and 1, shape (D,), in double precision. Of two samples of one distribution, about
        :math:`0.87 \sqrt{1/N + 1/M}` on average.

    Raises:
        ValueError: If the samples cannot be compared.

    Reference:
        Smirnov, *Table for Estimating the Goodness of Fit of Empirical Distributions* (1948).

    Example:
        >>> ks_per_dim(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 5.0], [0.0, 5.0]]))
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    require_pair(x=x, y=y)
    x_sorted, y_sorted = (z.T.contiguous().sort().values for z in (x, y.to(x.dtype)))  # (D, N) and (D, M)
    steps = torch.cat([x_sorted, y_sorted], dim=1)  # both distribution functions are constant between these
    below = [torch.searchsorted(z, steps, right=True).double() / z.shape[1] for z in (x_sorted, y_sorted)]
    return (below[0] - below[1]).abs().amax(1)


@torch.no_grad()
def wasserstein(x: Tensor, y: Tensor, *, p: float = 2) -> float:
    r"""Exact Wasserstein distance of two samples of one size: the cheapest way to pair them up.

    .. math:: W_p(P, Q) = \left( \min_{\pi} \frac1N \sum_i \lVert x_i - y_{\pi(i)} \rVert^p \right)^{1/p}
              \quad \text{over permutations } \pi

    Time grows as :math:`N^3` and memory as :math:`N^2`: 2,000 points take about a second. Its floor is high: two real
    samples are far apart, and in D dimensions their distance falls only as :math:`N^{-1/D}`.

    Args:
        x: Samples, shape (N, D).
        y: Samples, shape (N, D).
        p: The order, at least 1 and finite.

    Returns:
        The distance, in the units of the data.

    Raises:
        ValueError: If the samples cannot be compared or differ in number, or ``p`` is less than 1 or infinite.

    Reference:
        Peyré and Cuturi, *Computational Optimal Transport* (2019), section 2.2.

    Example:
        >>> x = torch.randn(100, 2)
        >>> round(wasserstein(x, x.flip(0) + torch.tensor([3.0, 4.0])), 4)
        5.0
    """
    require_pair(x=x, y=y)
    if len(x) != len(y) or not 1 <= p < math.inf:
        raise ValueError(f"expected samples of one size and a finite p >= 1, got {len(x)} and {len(y)} rows and p {p}")
    cost = torch.cat(list(squared_distances(x, y))) ** (p / 2)  # (N, N)
    i, j = linear_sum_assignment(cost.cpu().numpy())
    return cost[i, j].mean().item() ** (1 / p)


@torch.no_grad()
def sliced_wasserstein(
    x: Tensor, y: Tensor, *, projections: int = 500, p: float = 2, generator: torch.Generator | None = None
) -> float:
    r"""Sliced Wasserstein distance: exact one-dimensional distances, averaged over random directions.

    .. math:: SW_p(P, Q) = \left( \mathbb E_{\theta} \; W_p^p(\theta^\top P, \theta^\top Q) \right)^{1/p}, \qquad
              \theta \text{ uniform on the sphere}

    Args:
        x: Samples, shape (N, D).
        y: Samples, shape (M, D); N and M may differ.
        projections: Number of random directions.
        p: The order, at least 1 and finite.
        generator: Source of the directions; the global random state when omitted.

    Returns:
        The distance, in the units of the data. Two samples of one distribution do not have distance 0: see
        :func:`~course_lib.evaluation.intervals.real_floor`.

    Raises:
        ValueError: If the samples cannot be compared, ``p`` is less than 1 or infinite, or ``projections`` less
            than 1.

    Reference:
        Bonneel, Rabin, Peyre and Pfister, *Sliced and Radon Wasserstein Barycenters of Measures* (2015), section 3.

    Example:
        >>> x = torch.randn(1000, 2)
        >>> shifted = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]))  # the mean squared cosine is 1/2 in the plane
        >>> abs(shifted - 5 / 2**0.5) < 0.3
        True
    """
    require_pair(x=x, y=y)
    if not 1 <= p < math.inf or projections < 1:
        raise ValueError(f"p and projections must be at least 1, and p finite, got p {p} and projections {projections}")
    directions = torch.randn(x.shape[1], projections, generator=generator, dtype=x.dtype).to(x.device)
    directions = torch.nn.functional.normalize(directions, dim=0)
    i, j, weight = _coupling(len(x), len(y), device=x.device)
    costs = []
    for some in directions.T.split(50):  # 50 directions at a time bound the memory
        gaps = (some @ x.T).sort().values[:, i] - (some @ y.T.to(x.dtype)).sort().values[:, j]  # (50, N + M at most)
        costs.append(gaps.abs() ** p @ weight.to(x.dtype))
    return torch.cat(costs).double().mean().item() ** (1 / p)


def _coupling(n: int, m: int, *, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The optimal plan of two sorted samples: which rank of each meets, and with which share of the mass."""
    # ranks i and j hold the quantiles from i/n to (i+1)/n and from j/m to (j+1)/m: cut at both, in units of 1/(n m)
    edges = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([edges.new_zeros(1), edges[:-1]])
    weight = (edges - starts).double() / (n * m)
    return (starts // m).to(device), (starts // n).to(device), weight.to(device)
