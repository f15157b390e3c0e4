r"""Maximum mean discrepancy: two samples are alike if they are alike on average to a kernel.

.. math:: \mathrm{MMD}^2(P, Q) = \mathbb E\, k(x, x') + \mathbb E\, k(y, y') - 2\, \mathbb E\, k(x, y),
          \qquad x, x' \sim P, \quad y, y' \sim Q

All draws are independent, so a point must not be paired with itself: leaving those pairs out makes the estimate
unbiased. It has mean 0 when P = Q, and is then negative about half of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from course_lib.evaluation.blocks import inner_products, squared_distances
from course_lib.evaluation.checks import require_pair

__all__ = ["kid", "median_bandwidth", "mmd", "mmd_linear"]


def median_bandwidth(x: Tensor, y: Tensor, *, most: int = 1000) -> float:
    r"""The median heuristic: the median distance between two points of both samples together.

    Args:
        x: Samples, shape (N, D).
        y: Samples, shape (M, D).
        most: Number of points of each sample that are looked at, the first ones.

    Returns:
        The bandwidth, in the units of the data.

    Raises:
        ValueError: If the samples cannot be compared, or half of all pairs coincide.

    Reference:
        Gretton et al., *A Kernel Two-Sample Test* (2012), section 8.

    Example:
        >>> median_bandwidth(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [7.0]]))  # 1 2 3 4 6 7
        3.0
    """
    require_pair(x=x, y=y)
    both = torch.cat([x[:most], y[:most].to(x.dtype)]).double()
    median = torch.nn.functional.pdist(both).median().item()
    if median == 0:
        raise ValueError("the median distance is 0: at least half of all pairs coincide; pass a bandwidth")
    return median


@torch.no_grad()
def mmd(x: Tensor, y: Tensor, *, bandwidth: float | None = None) -> float:
    r"""Unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel.

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j)}{N (N - 1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{M (M - 1)}
              - \frac{2 \sum_{i, j} k(x_i, y_j)}{N M}, \qquad k(x, y) = e^{-\lVert x - y \rVert^2 / 2 s^2}

    Args:
        x: Samples, shape (N, D).
        y: Samples, shape (M, D).
        bandwidth: s, in the units of the data. The median heuristic when omitted: then the kernel depends on the
            samples, and figures of different samples are not on one scale. Fix it to compare models.

    Returns:
        The estimate of MMD squared, without units; negative values happen when the samples are alike.

    Raises:
        ValueError: If the samples cannot be compared, or the bandwidth is not positive.

    Reference:
        Gretton et al., *A Kernel Two-Sample Test* (2012), equation (3).

    Example:
        >>> x = torch.randn(1000, 2)
        >>> abs(mmd(x, torch.randn(1000, 2))) < 0.01 < mmd(x, torch.randn(1000, 2) + 1)
        True
    """
    require_pair(x=x, y=y)
    scale = -0.5 / _bandwidth(x, y, bandwidth) ** 2
    return _unbiased(lambda a, b: (block.mul_(scale).exp_() for block in squared_distances(a, b)), x, y)


@torch.no_grad()
def mmd_linear(x: Tensor, y: Tensor, *, bandwidth: float | None = None) -> float:
    r"""Unbiased estimate of the same quantity as :func:`mmd` in linear time, from disjoint pairs.

    .. math:: \frac{2}{N} \sum_{i=1}^{N/2} \left[ k(x_{2i-1}, x_{2i}) + k(y_{2i-1}, y_{2i})
              - k(x_{2i-1}, y_{2i}) - k(x_{2i}, y_{2i-1}) \right]

    Every point is used once, so the estimate is noisier than :func:`mmd` by far, but millions of points are no burden.

    Args:
        x: Samples in random order, shape (N, D).
        y: Samples in random order, shape (M, D). The longer sample is cut to the length of the shorter.
        bandwidth: s of the Gaussian kernel, in the units of the data; the median heuristic when omitted.

    Returns:
        The estimate of MMD squared, without units.

    Raises:
        ValueError: If the samples cannot be compared, or the bandwidth is not positive.

    Reference:
        Gretton et al., *A Kernel Two-Sample Test* (2012), lemma 14.

    Example:
        >>> abs(mmd_linear(torch.randn(100_000, 2), torch.randn(100_000, 2), bandwidth=1.0)) < 0.02
        True
    """
    require_pair(x=x, y=y)
    s = _bandwidth(x, y, bandwidth)
    half = min(len(x), len(y)) // 2
    x_1, x_2, y_1, y_2 = (part.double() for z in (x, y) for part in (z[: 2 * half : 2], z[1 : 2 * half : 2]))

    def k(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-(a - b).square().sum(1) / (2 * s**2))

    return (k(x_1, x_2) + k(y_1, y_2) - k(x_1, y_2) - k(x_2, y_1)).mean().item()


@torch.no_grad()
def kid(fake: Tensor, real: Tensor) -> float:
    r"""Kernel Inception distance: the unbiased MMD squared of features, with a cubic kernel.

    .. math:: k(x, y) = \left( \tfrac{1}{D}\, x^\top y + 1 \right)^3

    It compares the first three moments. Unlike FID it has no bias, so small samples will do. All pairs are used, in
    blocks; common implementations average over random subsets instead, which is noisier.

    Args:
        fake: Features of generated data, shape (N, D).
        real: Features of real data, shape (M, D).

    Returns:
        The estimate; often reported times 1,000.

    Raises:
        ValueError: If the samples cannot be compared.

    Reference:
        Bińkowski, Sutherland, Arbel and Gretton, *Demystifying MMD GANs* (2018), section 4.

    Example:
        >>> x = torch.randn(1000, 16)
        >>> abs(kid(x, torch.randn(1000, 16))) < 0.02 < kid(x + 1, torch.randn(1000, 16))
        True
    """
    require_pair(fake=fake, real=real)
    dim = fake.shape[1]
    return _unbiased(lambda a, b: (block.div_(dim).add_(1).pow_(3) for block in inner_products(a, b)), fake, real)


def _unbiased(kernel: Callable[[Tensor, Tensor], Iterator[Tensor]], x: Tensor, y: Tensor) -> float:
    def off_diagonal(z: Tensor) -> Tensor:
        total, row = 0.0, 0
        for block in kernel(z, z):
            total = total + block.sum() - block.diagonal(row).sum()  # a point is not paired with itself
            row += len(block)
        return total / (len(z) * (len(z) - 1))

    across = sum(block.sum() for block in kernel(x, y)) / (len(x) * len(y))
    return (off_diagonal(x) + off_diagonal(y) - 2 * across).item()


def _bandwidth(x: Tensor, y: Tensor, bandwidth: float | None) -> float:
    if bandwidth is None:
        return median_bandwidth(x, y)
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")
    return bandwidth
