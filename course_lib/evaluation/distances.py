r"""Distances between two samples, from the data alone.

In one dimension the p-Wasserstein distance is a distance of quantile functions,

.. math:: W_p^p(P, Q) = \int_0^1 \left| F_P^{-1}(u) - F_Q^{-1}(u) \right|^p du ,

so sorting solves it. In more dimensions it is an assignment problem; its *sliced* form goes back to one dimension by
projecting on many directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.evaluation.checks import require_pair

__all__ = ["sliced_wasserstein"]


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
        p: The order, at least 1.
        generator: Source of the directions; the global random state when omitted.

    Returns:
        The distance, in the units of the data. Two samples of one distribution do not have distance 0: see
        :func:`~course_lib.evaluation.intervals.real_floor`.

    Raises:
        ValueError: If the samples cannot be compared, ``p`` is less than 1, or ``projections`` less than 1.

    Reference:
        Bonneel, Rabin, Peyre and Pfister, *Sliced and Radon Wasserstein Barycenters of Measures* (2015), section 3.

    Example:
        >>> x = torch.randn(1000, 2)
        >>> shifted = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]))  # the mean squared cosine is 1/2 in the plane
        >>> abs(shifted - 5 / 2**0.5) < 0.3
        True
    """
    require_pair(x=x, y=y)
    if not p >= 1 or projections < 1:
        raise ValueError(f"p and projections must be at least 1, got p {p} and projections {projections}")
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
