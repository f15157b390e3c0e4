r"""Fréchet distance of two Gaussians fitted to features, known as FID when Inception makes the features.

.. math:: d^2 = \lVert \mu_1 - \mu_2 \rVert^2 + \operatorname{tr} \Sigma_1 + \operatorname{tr} \Sigma_2
          - 2 \operatorname{tr} \left( \Sigma_1 \Sigma_2 \right)^{1/2}

It is the squared 2-Wasserstein distance of the two Gaussians. The matrix :math:`\Sigma_1 \Sigma_2` is not symmetric,
and its square root takes a Schur decomposition. But only the trace is asked for, the sum of the roots of the
eigenvalues, and with :math:`\Sigma_1 = L L^\top` those are the eigenvalues of :math:`L^\top \Sigma_2 L`, which is
symmetric.
"""

from __future__ import annotations

import warnings
from statistics import linear_regression

import torch
from torch import Tensor

from course_lib.evaluation.checks import require_pair
from course_lib.evaluation.intervals import shuffled

__all__ = ["fid", "fid_infinity", "frechet_distance"]


@torch.no_grad()
def frechet_distance(mu_1: Tensor, cov_1: Tensor, mu_2: Tensor, cov_2: Tensor) -> float:
    r"""Squared 2-Wasserstein distance of two Gaussians, from their moments.

    Args:
        mu_1: Mean of the first, shape (D,).
        cov_1: Its covariance, shape (D, D), symmetric positive semi-definite.
        mu_2: Mean of the second, shape (D,).
        cov_2: Its covariance, shape (D, D).

    Returns:
        The squared distance, in the squared units of the data.

    Raises:
        ValueError: If the shapes do not belong together, or a moment holds NaN or infinity.

    Reference:
        Dowson and Landau, *The Fréchet distance between multivariate normal distributions* (1982), equation (4).

    Example:
        >>> frechet_distance(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 0.0]), 4 * torch.eye(2))  # 9 + 1 + 1
        11.0
    """
    moments = {"mu_1": mu_1, "cov_1": cov_1, "mu_2": mu_2, "cov_2": cov_2}
    shapes = [tuple(t.shape) for t in moments.values()]
    dim = mu_1.numel()
    if shapes != [(dim,), (dim, dim), (dim,), (dim, dim)]:
        raise ValueError(f"expected means (D,) and covariances (D, D) of one D, got {', '.join(map(str, shapes))}")
    if broken := [name for name, t in moments.items() if not t.isfinite().all()]:
        raise ValueError(f"{' and '.join(broken)} hold{'s' * (len(broken) == 1)} NaN or infinity")
    mu_1, cov_1, mu_2, cov_2 = (t.double() for t in moments.values())
    factor, failed = torch.linalg.cholesky_ex(cov_1)
    if failed:  # a singular covariance, as of fewer samples than features
        values, vectors = torch.linalg.eigh(cov_1)
        factor = vectors * values.clamp(min=0).sqrt()
    roots = torch.linalg.eigvalsh(factor.T @ cov_2 @ factor).clamp(min=0).sqrt()
    squared = (mu_1 - mu_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * roots.sum()
    return max(0.0, squared.item())


def fid(fake: Tensor, real: Tensor) -> float:
    r"""Fréchet distance between the Gaussians fitted to two sets of features.

    Only means and covariances count: what differs in higher moments is not seen. The figure of finite samples is too
    large, by an amount that falls as 1/N and differs between models, so figures of different N must not be compared;
    see :func:`fid_infinity`.

    Args:
        fake: Features of generated data, shape (N, D).
        real: Features of real data, shape (M, D).

    Returns:
        The distance, in the squared units of the features: a figure means nothing without naming their network.

    Raises:
        ValueError: If the samples cannot be compared.

    Warns:
        UserWarning: If there are no more samples than features, with the distance of two halves of ``real``; or if
            features are constant in both samples.

    Reference:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium* (2017),
        equation (6).

    Example:
        >>> x = torch.randn(5000, 2)
        >>> abs(fid(x + torch.tensor([3.0, 4.0]), x) - 25) < 1e-4
        True
    """
    require_pair(fake=fake, real=real)
    n, dim = min(len(fake), len(real)), fake.shape[1]
    if n <= dim:
        apart = "."
        if len(real) >= 4:
            halves = _distance(real[::2], real[1::2])
            apart = f": two halves of real, {len(real) // 2} each, are already {halves:.3g} apart."
        warnings.warn(
            f"{n} samples have a covariance of rank {n - 1} at most in {dim} dimensions, so FID is far too large"
            f"{apart} Use more samples, or KID.",
            stacklevel=2,
        )
    constant = ((fake == fake[0]).all(0) & (real == fake[0]).all(0)).sum().item()
    if constant:
        warnings.warn(f"{constant} of {dim} features are constant in both samples and say nothing", stacklevel=2)
    return _distance(fake, real)


def fid_infinity(
    fake: Tensor, real: Tensor, *, points: int = 8, smallest: float = 0.25, generator: torch.Generator | None = None
) -> float:
    r"""FID extrapolated to infinitely many samples.

    .. math:: \mathrm{FID}_N \approx \mathrm{FID}_\infty + c / N

    FID is computed on random subsets of several sizes N, a line in 1/N is fitted by least squares, and its value at
    1/N = 0 is returned. At each size all disjoint subsets are averaged. The expansion holds when N is several times the
    number of features. For an interval pass this function to :func:`~course_lib.evaluation.intervals.bootstrap`.

    Args:
        fake: Features of generated data, shape (N, D).
        real: Features of real data, shape (M, D). The longer sample is cut at random to the length of the shorter.
        points: Number of sizes, evenly spaced in 1/N.
        smallest: Smallest size, as a share of the largest.
        generator: Source of the subsets; the global random state when omitted.

    Returns:
        The extrapolated distance. It is not biased upwards any more, so it can be slightly negative.

    Raises:
        ValueError: If the samples cannot be compared, the smallest subset has no more samples than features, there are
            fewer than 2 points, or all subsets would be of one size.

    Reference:
        Chong and Forsyth, *Effectively Unbiased FID and Inception Score and where to find them* (2020), section 4.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 2000, 32, generator=g)  # the true distance is 0
        >>> fid(x, y) > 0.2, abs(fid_infinity(x, y, generator=g)) < 0.05
        (True, True)
    """
    require_pair(fake=fake, real=real)
    n = min(len(fake), len(real))
    if points < 2 or not 0 < smallest < 1 or int(smallest * n) <= fake.shape[1]:
        raise ValueError(
            f"expected at least 2 points and subsets larger than the {fake.shape[1]} features, "
            f"got {points} points and subsets from {smallest * n:.0f} to {n} samples"
        )
    x, y = (shuffled(z, generator=generator)[:n] for z in (fake, real))
    inverse_sizes = torch.linspace(1 / n, 1 / (smallest * n), points, dtype=torch.float64)
    sizes = [round(1 / inverse) for inverse in inverse_sizes.tolist()]
    if len(set(sizes)) == 1:
        raise ValueError(f"expected subsets of several sizes, got {sizes[0]} of {n} samples only: lower smallest")
    distances = [_average_over_subsets(x, y, size) for size in sizes]
    # small subsets vary more, but there are more of them to average: all points of the line count the same. LAPACK
    # would round the line differently from call to call, by where its arguments happen to lie in memory
    return linear_regression([1 / size for size in sizes], distances).intercept


def _average_over_subsets(x: Tensor, y: Tensor, size: int) -> float:
    pairs = zip(x.split(size), y.split(size), strict=True)
    distances = [_distance(a, b) for a, b in pairs if len(a) == size]
    return sum(distances) / len(distances)


def _distance(x: Tensor, y: Tensor) -> float:
    x, y = x.double(), y.double()
    return frechet_distance(x.mean(0), torch.atleast_2d(torch.cov(x.T)), y.mean(0), torch.atleast_2d(torch.cov(y.T)))
