r"""Network parts that several families share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "conv_networks", "dense_networks"]


class MLP(nn.Sequential):
    r"""A fully connected network: linear layers with an activation between them.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        hidden: Sizes of the hidden layers; with none, the network is one linear layer.
        activation: Class of the activation.

    Example:
        >>> MLP(2, 1, hidden=[64])
        MLP(
          (0): Linear(in_features=2, out_features=64, bias=True)
          (1): SiLU()
          (2): Linear(in_features=64, out_features=1, bias=True)
        )
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        sizes = [in_features, *hidden, out_features]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), activation()]
        super().__init__(*layers[:-1])


class ConvEncoder(nn.Sequential):
    r"""Two strided convolutions that halve the image twice, then a linear layer.

    Args:
        shape: Shape (C, H, W) of the images; H and W must be multiples of 4.
        out_features: Size of the output.
        channels: Channels after each convolution.

    Raises:
        ValueError: If H or W is not a multiple of 4.

    Example:
        >>> import torch
        >>> ConvEncoder((1, 28, 28), 16)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 16])
    """

    def __init__(self, shape: Sequence[int], out_features: int, *, channels: tuple[int, int] = (32, 64)) -> None:
        small = _quarter(shape, channels[1])
        super().__init__(
            nn.Conv2d(shape[0], channels[0], kernel_size=4, stride=2, padding=1),  # (B, 32, H/2, W/2)
            nn.SiLU(),
            nn.Conv2d(*channels, kernel_size=4, stride=2, padding=1),  # (B, 64, H/4, W/4)
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(prod(small), out_features),
        )


class ConvDecoder(nn.Sequential):
    r"""The mirror image of :class:`ConvEncoder`: a linear layer, then two transposed convolutions.

    The output is linear: put a sigmoid behind it, or read it as logits, where the data asks for it.

    Args:
        in_features: Size of the input.
        shape: Shape (C, H, W) of the images; H and W must be multiples of 4.
        channels: Channels, in the order of the encoder.

    Raises:
        ValueError: If H or W is not a multiple of 4.

    Example:
        >>> import torch
        >>> ConvDecoder(16, (1, 28, 28))(torch.zeros(5, 16)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(self, in_features: int, shape: Sequence[int], *, channels: tuple[int, int] = (32, 64)) -> None:
        small = _quarter(shape, channels[1])
        super().__init__(
            nn.Linear(in_features, prod(small)),
            nn.SiLU(),
            nn.Unflatten(1, small),  # (B, 64, H/4, W/4)
            nn.ConvTranspose2d(channels[1], channels[0], kernel_size=4, stride=2, padding=1),  # (B, 32, H/2, W/2)
            nn.SiLU(),
            nn.ConvTranspose2d(channels[0], shape[0], kernel_size=4, stride=2, padding=1),  # (B, C, H, W)
        )


def dense_networks(
    shape: Sequence[int], latent: int, *, hidden: Sequence[int] = (512, 256)
) -> tuple[nn.Module, nn.Module]:
    r"""Make a fully connected encoder and decoder, one the mirror image of the other.

    Args:
        shape: Shape of one example, such as (C, H, W).
        latent: Size of the code K.
        hidden: Sizes of the encoder's hidden layers; the decoder has them in reverse.

    Returns:
        The encoder, (B, \*shape) -> (B, K), and the decoder, (B, K) -> (B, \*shape).

    Example:
        >>> import torch
        >>> encoder, decoder = dense_networks((1, 8, 8), 4, hidden=[32])
        >>> decoder(encoder(torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2, 1, 8, 8])
    """
    encoder = nn.Sequential(nn.Flatten(), MLP(prod(shape), latent, hidden=hidden))
    decoder = nn.Sequential(MLP(latent, prod(shape), hidden=hidden[::-1]), nn.Unflatten(1, tuple(shape)))
    return encoder, decoder


def conv_networks(
    shape: Sequence[int], latent: int, *, channels: tuple[int, int] = (32, 64)
) -> tuple[nn.Module, nn.Module]:
    """Make a convolutional encoder and decoder for images.

    Args:
        shape: Shape (C, H, W) of the images; H and W must be multiples of 4.
        latent: Size of the code K.
        channels: Channels after each of the encoder's two convolutions.

    Returns:
        The encoder, (B, C, H, W) -> (B, K), and the decoder, (B, K) -> (B, C, H, W).

    Example:
        >>> import torch
        >>> encoder, decoder = conv_networks((1, 8, 8), 4)
        >>> decoder(encoder(torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2, 1, 8, 8])
    """
    return ConvEncoder(shape, latent, channels=channels), ConvDecoder(latent, shape, channels=channels)


def _quarter(shape: Sequence[int], channels: int) -> tuple[int, int, int]:
    _, height, width = shape
    if height % 4 or width % 4:
        raise ValueError(f"height and width must be multiples of 4, got an image of shape {tuple(shape)}")
    return channels, height // 4, width // 4
