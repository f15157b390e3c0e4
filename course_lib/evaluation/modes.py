r"""Do samples cover the modes of a mixture that is known, in the right shares, and with the right spread?

The distance that counts is in units of a mode's own standard deviations,
:math:`d_k(x)^2 = (x - \mu_k)^\top \Sigma_k^{-1} (x - \mu_k)`. A sample within 3 of them is *near*. A much wider radius
would pass anything: on the ring of 8 with standard deviation 0.02, 25 standard deviations pass a uniform circle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.evaluation.checks import require_samples
from course_lib.probability import GaussianMixture

__all__ = ["ModeCoverage", "mode_coverage"]


class ModeCoverage(NamedTuple):
    """What :func:`mode_coverage` found.

    ``covered`` of ``modes`` modes have their samples; ``near`` is the share of samples of high quality; ``kl`` compares
    the histogram over modes with the weights (nats); ``spread`` is the standard deviation within modes over the true.
    """

    covered: int
    modes: int
    near: float
    kl: float
    spread: float


@torch.no_grad()
def mode_coverage(samples: Tensor, mixture: GaussianMixture, *, stds: float = 3.0, least: float = 0.1) -> ModeCoverage:
    r"""Judge samples by the modes of the mixture that they should come from.

    - ``near``: the share of samples within ``stds`` standard deviations of a mode. For the true density in D dimensions
      it is :math:`F_{\chi^2_D}(9)` if modes do not overlap: 0.989 in the plane.
    - ``covered``: the number of modes with at least ``least`` times as many near samples as their weight asks for. One
      stray sample does not cover a mode, and a uniform circle does not cover a ring.
    - ``kl``: :math:`\sum_k h_k \log (h_k / \pi_k)` in nats, with :math:`h_k` the mean responsibility of mode k. Half of
      the modes missing gives log 2. NaN when a sample is so far away that its density under every mode is 0.
    - ``spread``: the standard deviation of near samples about the mean of those in the same mode, in units of the
      mode's own, corrected for the cut at ``stds``: 1 for the true density, 0 for copies of a few points. NaN when
      there are too few near samples. The cut hides what is wider than itself: a flat disc of radius 3 gives 1.54.

    Args:
        samples: Shape (N, D).
        mixture: The true density, in D dimensions.
        stds: Radius of a mode, in its standard deviations.
        least: Smallest share of its expected number of samples at which a mode counts as covered.

    Returns:
        The four figures, and the number of modes.

    Raises:
        ValueError: If the samples have another dimension than the mixture, hold NaN, or are fewer than 2.

    Reference:
        Srivastava et al., *VEEGAN* (2017), section 4.1, for counting modes and samples within 3 standard deviations.

    Example:
        >>> from course_lib.probability import ring
        >>> result = mode_coverage(ring().sample(10_000), ring())
        >>> result.covered, result.modes, abs(result.near - 0.989) < 0.005, abs(result.spread - 1) < 0.03
        (8, 8, True, True)
    """
    require_samples(samples=samples)
    if samples.shape[1] != mixture.dim:
        raise ValueError(f"expected samples of shape (N, {mixture.dim}) as the mixture's, got {tuple(samples.shape)}")
    p = mixture.to(samples.device, samples.dtype)
    offsets = _standardized(samples, p)  # (N, M, D)
    distance, mode = offsets.square().sum(2).min(1)
    near = distance <= stds**2
    counts = torch.bincount(mode[near], minlength=len(p.means))
    share = p.responsibilities(samples).mean(0)
    kl = torch.special.xlogy(share, share / p.weights).sum()
    return ModeCoverage(
        covered=int((counts >= torch.clamp(least * len(samples) * p.weights, min=1)).sum()),
        modes=len(p.means),
        near=near.double().mean().item(),
        kl=kl.clamp(min=0).item(),  # NaN stays NaN
        spread=_spread(offsets[near, mode[near]], mode[near], counts, stds=stds),
    )


def _standardized(x: Tensor, p: GaussianMixture) -> Tensor:
    """Offsets from every mode in units of its own standard deviations, (N, D) -> (N, M, D)."""
    factors = torch.linalg.cholesky(p.covariances)  # (M, D, D)
    to_points = (x[:, None] - p.means).permute(1, 2, 0)  # (M, D, N)
    return torch.linalg.solve_triangular(factors, to_points, upper=False).permute(2, 0, 1)


def _spread(offsets: Tensor, mode: Tensor, counts: Tensor, *, stds: float) -> float:
    """Pooled standard deviation of standardized offsets within their modes, over that of a normal cut at ``stds``."""
    freedom = (len(offsets) - (counts > 0).sum()).item()
    if freedom < 1:
        return math.nan
    means = offsets.new_zeros(len(counts), offsets.shape[1]).index_add_(0, mode, offsets)
    means = means / counts.clamp(min=1)[:, None]
    dim = offsets.shape[1]
    variance = (offsets - means[mode]).square().sum().item() / (freedom * dim)
    # E[r^2 / D given r <= c] of a standard normal is the ratio of two chi-squared distribution functions
    below = [torch.special.gammainc(torch.tensor(d / 2), torch.tensor(stds**2 / 2)).item() for d in (dim + 2, dim)]
    return math.sqrt(variance * below[1] / below[0])
