"""Convolutional networks that halve an image twice, and double it twice."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn

__all__ = ["ConvDecoder", "ConvEncoder", "conv_networks"]


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
        small = quarter(shape, channels[1])
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
        small = quarter(shape, channels[1])
        super().__init__(
            nn.Linear(in_features, prod(small)),
            nn.SiLU(),
            nn.Unflatten(1, small),  # (B, 64, H/4, W/4)
            nn.ConvTranspose2d(channels[1], channels[0], kernel_size=4, stride=2, padding=1),  # (B, 32, H/2, W/2)
            nn.SiLU(),
            nn.ConvTranspose2d(channels[0], shape[0], kernel_size=4, stride=2, padding=1),  # (B, C, H, W)
        )


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


def quarter(shape: Sequence[int], channels: int) -> tuple[int, int, int]:
    """Shape of so many channels at a quarter of the height and width."""
    _, height, width = shape
    if height % 4 or width % 4:
        raise ValueError(f"height and width must be multiples of 4, got an image of shape {tuple(shape)}")
    return channels, height // 4, width // 4
