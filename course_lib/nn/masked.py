"""Masked layers: output i depends on inputs j < i, and on no others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MaskedConv2d", "MaskedLinear", "MaskedMLP", "raster_mask"]


class MaskedLinear(nn.Linear):
    r"""A linear layer that lets input j reach output i only where a mask says so.

    .. math:: y = (M \odot W)\, x + b

    Args:
        mask: M, shape (out_features, in_features): 1 where input j may reach output i, 0 where it may not.

    Reference:
        Germain et al., *MADE: Masked Autoencoder for Distribution Estimation* (2015), section 3.

    Example:
        >>> layer = MaskedLinear(torch.tensor([[1.0, 0.0]]))  # one output, which sees the first of two inputs
        >>> bool(layer(torch.tensor([[2.0, 3.0]])) == layer(torch.tensor([[2.0, 99.0]])))
        True
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features)."""
        return F.linear(x, self.mask * self.weight, self.bias)


class MaskedMLP(nn.Sequential):
    r"""A fully connected network whose outputs for dimension i see the inputs :math:`x_1, \dots, x_{i-1}` only.

    Every unit has a degree. Input j has degree j, the outputs for dimension i have degree i, and the degrees
    :math:`1, \dots, D - 1` are dealt out evenly in each hidden layer. A hidden unit sees units of the layer before
    that have its own degree or a smaller one; an output sees those of a smaller degree. So no path leads from
    :math:`x_j` to an output for :math:`i \le j`.

    Args:
        dim: Number of dimensions D.
        outputs: Number of outputs P for each dimension.
        hidden: Sizes of the hidden layers, each at least D - 1 so that it has units of every degree.
        activation: Class of the activation.

    Raises:
        ValueError: If ``dim`` is less than 1, or a hidden layer is smaller than D - 1.

    Reference:
        Germain et al., *MADE: Masked Autoencoder for Distribution Estimation* (2015), equations (9) and (10).

    Example:
        >>> network = MaskedMLP(3, 2, hidden=[16])
        >>> x = torch.randn(1, 3, requires_grad=True)
        >>> network(x).shape
        torch.Size([1, 3, 2])
        >>> (torch.autograd.grad(network(x)[0, 1, 0], x)[0] != 0).tolist()  # the second dimension sees the first
        [[True, False, False]]
    """

    def __init__(
        self, dim: int, outputs: int, *, hidden: Sequence[int] = (128, 128), activation: type[nn.Module] = nn.SiLU
    ) -> None:
        if dim < 1 or min(hidden, default=dim) < dim - 1:
            raise ValueError(f"expected dim >= 1 and hidden layers of at least dim - 1 units, got {dim} and {hidden}")
        layers: list[nn.Module] = []
        degrees = torch.arange(1, dim + 1)
        for width in hidden:
            next_degrees = torch.arange(width) % max(dim - 1, 1) + 1
            layers += [MaskedLinear(next_degrees[:, None] >= degrees), activation()]
            degrees = next_degrees
        out_degrees = torch.arange(1, dim + 1).repeat_interleave(outputs)
        super().__init__(*layers, MaskedLinear(out_degrees[:, None] > degrees), nn.Unflatten(1, (dim, outputs)))


class MaskedConv2d(nn.Conv2d):
    r"""A convolution that sees only the neighbours that a mask allows; the image keeps its size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        mask: 1 for a neighbour that may be seen, 0 for one that may not, shape (height, width), both odd.

    Raises:
        ValueError: If a side of the mask is even: then no pixel is in its centre.

    Reference:
        Van den Oord et al., *Pixel Recurrent Neural Networks* (2016), section 3.4.

    Example:
        >>> layer = MaskedConv2d(1, 1, raster_mask(3, center=0))
        >>> x = torch.randn(1, 1, 3, 3, requires_grad=True)
        >>> (torch.autograd.grad(layer(x)[0, 0, 1, 1], x)[0][0, 0] != 0).int()  # what the middle pixel sees
        tensor([[1, 1, 1],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """

    def __init__(self, in_channels: int, out_channels: int, mask: Tensor) -> None:
        height, width = mask.shape
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"expected a mask with odd sides, got shape {(height, width)}")
        super().__init__(in_channels, out_channels, (height, width), padding=(height // 2, width // 2))
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return F.conv2d(x, self.mask * self.weight, self.bias, padding=self.padding)


def raster_mask(size: int, *, center: int) -> Tensor:
    r"""The neighbours that come before the middle pixel when an image is read row by row, left to right.

    Layers with this mask, stacked, have a blind spot: pixels to the upper right that come earlier and yet are never
    seen, however many layers there are.

    Args:
        size: Side of the square mask.
        center: 0 hides the middle pixel itself (type A, for the first layer); 1 shows it (type B, for later layers).

    Returns:
        The mask, shape (size, size).

    Reference:
        Van den Oord et al., *Pixel Recurrent Neural Networks* (2016), section 3.4, figure 4.

    Example:
        >>> raster_mask(3, center=1)
        tensor([[1., 1., 1.],
                [1., 1., 0.],
                [0., 0., 0.]])
    """
    mask = torch.zeros(size * size)
    mask[: size * size // 2] = 1
    mask[size * size // 2] = center
    return mask.view(size, size)
