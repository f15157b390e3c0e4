"""What every metric asks of its samples: two dimensions, at least two rows, nothing that is not a number."""

from __future__ import annotations

from torch import Tensor

__all__ = ["require_pair", "require_samples"]


def require_samples(least: int = 2, **samples: Tensor) -> None:
    r"""Refuse samples that no metric can judge.

    Args:
        least: Smallest number of rows.
        **samples: Samples by name, each of shape (N, D).

    Raises:
        ValueError: If a sample is not of shape (N, D), is not of a floating-point type, has fewer than ``least`` rows,
            or holds NaN or infinity.

    Example:
        >>> import torch
        >>> require_samples(fake=torch.zeros(1, 2))
        Traceback (most recent call last):
        ValueError: fake has 1 row, this figure needs at least 2
    """
    for name, x in samples.items():
        if x.ndim != 2 or not x.shape[1]:
            raise ValueError(
                f"expected {name} of shape (N, D), got {tuple(x.shape)}; of images, compare features or x.flatten(1)"
            )
        if not x.is_floating_point():
            raise ValueError(f"expected {name} of a floating-point type, got {x.dtype}")
        if len(x) < least:
            raise ValueError(f"{name} has {len(x)} row{'s' * (len(x) != 1)}, this figure needs at least {least}")
        if not (finite := x.isfinite().all(1)).all():
            rows = (~finite).nonzero().flatten()
            raise ValueError(f"{name} holds NaN or infinity: {len(rows)} of {len(x)} rows, the first is {int(rows[0])}")


def require_pair(least: int = 2, **samples: Tensor) -> None:
    r"""Refuse samples that cannot be compared with each other.

    Args:
        least: Smallest number of rows of each.
        **samples: Samples by name, each of shape (N, D) with one and the same D.

    Raises:
        ValueError: If :func:`require_samples` refuses one, or their numbers of dimensions or their devices differ.

    Example:
        >>> import torch
        >>> require_pair(fake=torch.zeros(4, 2), real=torch.zeros(4, 3))
        Traceback (most recent call last):
        ValueError: the samples differ in dimension: fake has shape (4, 2), real (4, 3)
    """
    require_samples(least, **samples)
    (first, x), *others = samples.items()
    for name, y in others:
        if y.shape[1] != x.shape[1]:
            raise ValueError(
                f"the samples differ in dimension: {first} has shape {tuple(x.shape)}, {name} {tuple(y.shape)}"
            )
        if y.device != x.device:
            raise ValueError(f"the samples are on different devices: {first} on {x.device}, {name} on {y.device}")
