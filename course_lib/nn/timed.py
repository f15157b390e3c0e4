"""Networks that know the time: (x_t, t, c) to a prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.nn.dense import MLP

__all__ = ["TimeMLP", "UNet", "time_embedding"]


def time_embedding(t: Tensor, features: int, *, fastest: float = 1000.0) -> Tensor:
    r"""Waves of many lengths, so that a network can tell times apart, near ones and far ones.

    .. math:: \left(\sin \omega_j t, \cos \omega_j t\right)_{j = 1, \dots, F/2}, \qquad
              \omega_j = \omega_1 \cdot 10^{-4 (j - 1) / (F/2 - 1)}

    Args:
        t: Times in [0, 1], shape (B,).
        features: Number of features F, even and at least 4.
        fastest: The largest frequency :math:`\omega_1`; 1000 makes this DDPM's embedding of step 1000 t.

    Returns:
        Shape (B, F).

    Raises:
        ValueError: If ``features`` is odd or less than 4, or ``t`` is not of shape (B,).

    Reference:
        Vaswani et al., *Attention Is All You Need* (2017), section 3.5; Ho, Jain and Abbeel, *Denoising Diffusion
        Probabilistic Models* (2020), appendix B, for its use here.

    Example:
        >>> time_embedding(torch.tensor([0.0]), 4)
        tensor([[0., 0., 1., 1.]])
    """
    if features < 4 or features % 2:
        raise ValueError(f"features must be even and at least 4, got {features}")
    if t.ndim != 1:
        raise ValueError(f"expected times of shape (B,), got {tuple(t.shape)}")
    omega = fastest * torch.logspace(0, -4, features // 2, dtype=t.dtype, device=t.device)
    angles = t[:, None] * omega  # (B, F/2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _TimeAndClass(nn.Module):
    """Embed the time and, where there are classes, the class; -1 or None stands for "not told"."""

    def __init__(self, width: int, *, classes: int, fastest: float) -> None:
        super().__init__()
        self.width, self.classes, self.fastest = width, classes, fastest
        self.time = MLP(width, width, hidden=[width])
        self.label = nn.Embedding(classes + 1, width) if classes else None  # the last row is "not told"

    def forward(self, t: Tensor, c: Tensor | None) -> Tensor:
        """(B,) and (B,) -> (B, width)."""
        told = self.time(time_embedding(t, self.width, fastest=self.fastest))
        if self.label is None:
            if c is not None:
                raise ValueError("this network was made without classes (classes=0) and was given some")
            return told
        c = t.new_full(t.shape, -1, dtype=torch.long) if c is None else c
        if c.shape != t.shape or c.is_floating_point():
            raise ValueError(
                f"expected integer classes of shape {tuple(t.shape)}, got {c.dtype} of shape {tuple(c.shape)}"
            )
        # On a GPU a look at the values would make every training step wait.
        if c.device.type == "cpu" and c.numel() and not (c.min() >= -1 and c.max() < self.classes):
            raise ValueError(
                f"expected classes from 0 to {self.classes - 1}, or -1 for none, got {c.unique().tolist()}"
            )
        return told + self.label(torch.where(c < 0, self.classes, c))


class TimeMLP(nn.Module):
    r"""A dense network on points, the time and, where there are classes, the class.

    With waves, it also sees :math:`\sin(2^k \pi x / 4)` and :math:`\cos(2^k \pi x / 4)` of every coordinate, k = 0 to
    ``waves`` - 1. Dense networks learn functions that change slowly first; waves let them change fast, as they must
    between modes that are narrow and far apart.

    Args:
        dim: Number of dimensions D of a point, and of the output.
        classes: Number of classes; without any, the network takes no c.
        hidden: Sizes of the hidden layers.
        features: Size of the embedding of time and class.
        waves: Number of waves of each coordinate; for data between about -4 and 4.

    Reference:
        Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), for a network shared by all times;
        Tancik et al., *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains* (2020).

    Example:
        >>> network = TimeMLP(2, classes=10)
        >>> network(torch.zeros(5, 2), torch.rand(5), torch.arange(5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        dim: int,
        *,
        classes: int = 0,
        hidden: Sequence[int] = (128, 128, 128),
        features: int = 32,
        waves: int = 0,
    ) -> None:
        super().__init__()
        self.embed = _TimeAndClass(features, classes=classes, fastest=30.0)  # toys need no finer sense of time
        self.register_buffer("omega", math.pi / 4 * 2.0 ** torch.arange(waves), persistent=False)
        self.body = MLP(dim * (1 + 2 * waves) + features, dim, hidden=hidden)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Points (B, D), times (B,) and classes (B,), -1 or None for "not told" -> (B, D)."""
        angles = (x[:, :, None] * self.omega).flatten(1)  # (B, D * waves)
        return self.body(torch.cat([x, angles.sin(), angles.cos(), self.embed(t, c)], dim=1))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut; in between, time and class scale and shift every channel."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(math.gcd(8, in_channels), in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        )
        self.norm = nn.GroupNorm(math.gcd(8, out_channels), out_channels)
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * out_channels), nn.Unflatten(1, (-1, 1, 1)))
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
        self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1) if in_channels != out_channels else None

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, width) -> (B, out_channels, H, W)."""
        scale, shift = self.modulate(told).chunk(2, dim=1)  # (B, out_channels, 1, 1) each
        new = self.second(self.norm(self.first(h)) * (1 + scale) + shift)
        return new + (h if self.shortcut is None else self.shortcut(h))


class UNet(nn.Module):
    r"""A small U-Net: down to coarse images and up again, with a bridge at every size.

    Coarse layers see the whole image, the bridges carry the detail past them.

    Args:
        shape: Shape (C, H, W) of the images; H and W must be multiples of :math:`2^{L - 1}` for L sizes.
        classes: Number of classes; without any, the network takes no c.
        channels: Channels at each of the L sizes, from the finest on.

    Raises:
        ValueError: If H or W cannot be halved so often, or an input has another shape.

    Reference:
        Ronneberger, Fischer and Brox, *U-Net* (2015); Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*
        (2020), appendix B, for residual blocks that are told the time; Dhariwal and Nichol, *Diffusion Models Beat GANs
        on Image Synthesis* (2021), section 3, for scale and shift.

    Example:
        >>> network = UNet((1, 8, 8), channels=(16, 32), classes=10)
        >>> network(torch.zeros(5, 1, 8, 8), torch.rand(5)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, shape: Sequence[int], *, classes: int = 0, channels: Sequence[int] = (32, 64, 64)) -> None:
        super().__init__()
        halvings = len(channels) - 1
        if shape[1] % 2**halvings or shape[2] % 2**halvings:
            raise ValueError(
                f"{len(channels)} sizes need height and width in multiples of {2**halvings}, got {tuple(shape[1:])}"
            )
        self.shape, width = tuple(shape), 4 * channels[0]
        self.embed = _TimeAndClass(width, classes=classes, fastest=1000.0)
        self.enter = nn.Conv2d(shape[0], channels[0], kernel_size=3, padding=1)
        self.down = nn.ModuleList(_Residual(a, b, width) for a, b in pairwise([channels[0], *channels]))
        self.halve = nn.ModuleList(nn.Conv2d(a, a, kernel_size=3, stride=2, padding=1) for a in channels[:-1])
        self.middle = _Residual(channels[-1], channels[-1], width)
        below = [*channels[1:], channels[-1]]  # what comes up from the next coarser size
        self.up = nn.ModuleList(_Residual(a + b, a, width) for a, b in zip(channels, below, strict=True))
        self.leave = nn.Sequential(
            nn.GroupNorm(math.gcd(8, channels[0]), channels[0]),
            nn.SiLU(),
            nn.Conv2d(channels[0], shape[0], kernel_size=3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), times (B,) and classes (B,), -1 or None for "not told" -> (B, C, H, W)."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"expected images of shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        told, h, bridges = self.embed(t, c), self.enter(x), []
        for i, block in enumerate(self.down):
            h = block(h if i == 0 else self.halve[i - 1](h), told)
            bridges.append(h)
        h = self.middle(h, told)
        for i, block in reversed(list(enumerate(self.up))):
            h = block(torch.cat([bridges[i], h], dim=1), told)
            h = F.interpolate(h, scale_factor=2.0) if i else h
        return self.leave(h)
