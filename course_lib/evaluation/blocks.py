r"""Pairwise figures in blocks of rows, so that memory never grows with the product of two sample sizes.

.. math:: \lVert x_i - y_j \rVert^2 = \lVert x_i \rVert^2 + \lVert y_j \rVert^2 - 2\, x_i^\top y_j

The right-hand side is one matrix product, and fast. It also cancels: two near points far from the origin lose digits.
So the data is centred first, and the arithmetic is in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["inner_products", "kth_neighbour", "squared_distances"]

_ENTRIES = 2**22  # of one block: 32 MB in double precision


def inner_products(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    r"""Inner products :math:`x_i^\top y_j`, some rows of x at a time.

    Args:
        x: Shape (N, D).
        y: Shape (M, D).

    Returns:
        Blocks of shape (rows, M) in double precision, which the caller may overwrite; N rows in all.

    Example:
        >>> [block.shape for block in inner_products(torch.ones(5, 2), torch.ones(7, 2))]
        [torch.Size([5, 7])]
    """
    columns = y.double().T
    for rows in x.split(max(1, _ENTRIES // len(y))):
        yield rows.double() @ columns


def squared_distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    r"""Squared distances :math:`\lVert x_i - y_j \rVert^2`, some rows of x at a time.

    Args:
        x: Shape (N, D).
        y: Shape (M, D).

    Returns:
        Blocks of shape (rows, M) in double precision, which the caller may overwrite; N rows in all.

    Example:
        >>> next(squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))).item()
        25.0
    """
    centre = y.double().mean(0)
    y = y.double() - centre
    lengths = y.square().sum(1)
    for rows in x.split(max(1, _ENTRIES // len(y))):
        rows = rows.double() - centre
        block = torch.addmm(lengths[None], rows, y.T, alpha=-2)
        yield block.add_(rows.square().sum(1)[:, None]).clamp_(min=0)


def kth_neighbour(x: Tensor, y: Tensor, *, k: int) -> Tensor:
    r"""Distance from every point of x to the k-th nearest point of y.

    Args:
        x: Shape (N, D).
        y: Shape (M, D). For neighbours within one sample pass x twice and k + 1: a point is its own nearest.
        k: 1 to M.

    Returns:
        Distances, shape (N,), in double precision.

    Raises:
        ValueError: If y has no k-th point.

    Example:
        >>> kth_neighbour(torch.zeros(1, 1), torch.tensor([[3.0], [1.0], [2.0]]), k=2).item()
        2.0
    """
    if not 1 <= k <= len(y):
        raise ValueError(f"there is no neighbour number {k} among {len(y)} points")
    nearest = torch.empty(len(x), dtype=torch.float64, device=x.device)
    start = 0
    for block in squared_distances(x, y):
        # written in place: small results that live on between large blocks would keep the heap from shrinking
        nearest[start : start + len(block)] = block.topk(k, dim=1, largest=False).values[:, -1]
        start += len(block)
    return nearest.sqrt()
