"""Generators and discriminators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from torch import nn

from course_lib.nn.convolution import quarter
from course_lib.nn.dense import MLP
from course_lib.nn.labels import ClassInput, ClassOutput

__all__ = ["conv_players", "dense_players"]


def dense_players(
    shape: Sequence[int], latent: int, *, hidden: Sequence[int] = (256, 256), classes: int = 0
) -> tuple[nn.Module, nn.Module]:
    r"""Make a fully connected generator and discriminator (or critic) for images in [0, 1].

    Args:
        shape: Shape of one example, such as (C, H, W).
        latent: Size of the latent K.
        hidden: Sizes of the hidden layers of either network; the generator has them in reverse.
        classes: Number of classes of a conditional pair, whose networks take labels after their input; 0 for none.

    Returns:
        The generator, (B, K) -> (B, \*shape), which ends in a sigmoid; the discriminator, (B, \*shape) -> (B,) logits.

    Example:
        >>> import torch
        >>> generator, discriminator = dense_players((1, 8, 8), 4, hidden=[32])
        >>> discriminator(generator(torch.randn(5, 4))).shape
        torch.Size([5])
    """
    leaky = partial(nn.LeakyReLU, 0.2)
    inside = MLP(latent + classes, prod(shape), hidden=hidden[::-1], activation=leaky)
    generator = nn.Sequential(inside, nn.Sigmoid(), nn.Unflatten(1, tuple(shape)))
    judge = nn.Sequential(nn.Flatten(), MLP(prod(shape), max(classes, 1), hidden=hidden, activation=leaky))
    return _players(generator, judge, classes)


def conv_players(
    shape: Sequence[int],
    latent: int,
    *,
    channels: tuple[int, int] = (32, 64),
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    classes: int = 0,
) -> tuple[nn.Module, nn.Module]:
    r"""Make a generator and a discriminator (or critic) of strided convolutions, after DCGAN, for images in [0, 1].

    Both normalize their inner layers, never the generator's output nor the discriminator's input. A critic with a
    gradient penalty must not look at other examples of the batch: give ``norm=nn.Identity``.

    Args:
        shape: Shape (C, H, W) of the images; H and W must be multiples of 4.
        latent: Size of the latent K.
        channels: Channels of the discriminator's two convolutions; the generator has them in reverse.
        norm: Makes the discriminator's normalization from a number of channels. The generator's is by batch.
        classes: Number of classes of a conditional pair, whose networks take labels after their input; 0 for none.

    Returns:
        The generator, (B, K) -> (B, C, H, W), which ends in a sigmoid; the discriminator, (B, C, H, W) -> (B,) logits.

    Raises:
        ValueError: If H or W is not a multiple of 4.

    Reference:
        Radford, Metz and Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
        Networks* (2016), section 3. Here images have values in [0, 1], so a sigmoid stands for their tanh.

    Example:
        >>> import torch
        >>> generator, discriminator = conv_players((1, 28, 28), 16, classes=10)
        >>> c = torch.arange(5)
        >>> discriminator(generator(torch.randn(5, 16), c), c).shape
        torch.Size([5])
    """
    small = quarter(shape, channels[1])
    generator = nn.Sequential(
        nn.Linear(latent + classes, prod(small)),
        nn.Unflatten(1, small),  # (B, 64, H/4, W/4)
        nn.BatchNorm2d(channels[1]),
        nn.ReLU(),
        nn.ConvTranspose2d(channels[1], channels[0], kernel_size=4, stride=2, padding=1),  # (B, 32, H/2, W/2)
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
        nn.ConvTranspose2d(channels[0], shape[0], kernel_size=4, stride=2, padding=1),  # (B, C, H, W)
        nn.Sigmoid(),
    )
    judge = nn.Sequential(
        nn.Conv2d(shape[0], channels[0], kernel_size=4, stride=2, padding=1),  # (B, 32, H/2, W/2)
        nn.LeakyReLU(0.2),
        nn.Conv2d(*channels, kernel_size=4, stride=2, padding=1),  # (B, 64, H/4, W/4)
        norm(channels[1]),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(prod(small), max(classes, 1)),
    )
    return _players(generator, judge, classes)


def _players(generator: nn.Module, judge: nn.Module, classes: int) -> tuple[nn.Module, nn.Module]:
    if classes:
        return ClassInput(generator, classes=classes), ClassOutput(judge, classes=classes)
    return generator, nn.Sequential(judge, nn.Flatten(0))
