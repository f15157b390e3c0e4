r"""Layers that steady a game of two players: each is a part of a discriminator, and changes nothing else.

A discriminator that judges one example at a time does not see that all samples are alike; one that is always right
gives no direction; one that is too steep gives a direction that changes from step to step. The three remedies here are
for these three troubles. Whether they help is measured in the chapter, not promised here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["InstanceNoise", "MinibatchDiscrimination", "spectrally_normalized"]


class MinibatchDiscrimination(nn.Module):
    r"""Append to the features of each example how close it is to the rest of its batch.

    .. math:: M_i = f(x_i)\, T \in \mathbb R^{A \times B}, \qquad
              o(x_i)_a = \sum_{j} \exp\left(- \| M_{i,a} - M_{j,a} \|_1 \right)

    A generator that puts all its samples in one place makes this sum large, and is found out. The layer goes before the
    last one of a discriminator.

    Args:
        features: Size of :math:`f(x_i)`.
        kernels: Number A of features that are appended.
        kernel_dim: Size B of the space in which distances are taken.

    Reference:
        Salimans et al., *Improved Techniques for Training GANs* (2016), section 3.2.

    Example:
        >>> layer = MinibatchDiscrimination(3, kernels=2, kernel_dim=5)
        >>> layer(torch.ones(4, 3))  # all alike: each example counts all four
        tensor([[1., 1., 1., 4., 4.],
                [1., 1., 1., 4., 4.],
                [1., 1., 1., 4., 4.],
                [1., 1., 1., 4., 4.]], grad_fn=<CatBackward0>)
    """

    def __init__(self, features: int, *, kernels: int = 16, kernel_dim: int = 4) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(features, kernels * kernel_dim, bias=False), nn.Unflatten(1, (kernels, kernel_dim))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, features) -> (B, features + kernels)."""
        m = self.project(features)
        distance = (m[:, None] - m).abs().sum(3)  # (B, B, kernels)
        return torch.cat([features, (-distance).exp().sum(1)], dim=1)


class InstanceNoise(nn.Module):
    r"""Blur what a discriminator sees, real data and samples alike: the first layer of a discriminator.

    .. math:: x \mapsto x + s\, \epsilon, \qquad \epsilon \sim \mathcal N(0, I)

    The densities that are compared are then those of noisy data, which overlap even where p and q do not. With
    :meth:`anneal` the noise fades while training; its level is part of the ``state_dict``.

    Args:
        std: Standard deviation s at the start, in the units of the data.

    Reference:
        Sønderby et al., *Amortised MAP Inference for Image Super-resolution* (2017); Arjovsky and Bottou,
        *Towards Principled Methods for Training Generative Adversarial Networks* (2017).

    Example:
        >>> noise = InstanceNoise(1.0)
        >>> noise.anneal(0.5)  # in alternate(): after_critic=lambda: noise.anneal(0.999)
        >>> bool((noise(torch.zeros(100_000)).std() - 0.5).abs() < 0.01)
        True
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        if not std >= 0:
            raise ValueError(f"std must not be negative, got {std}")
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """Noisy data of the shape of ``x`` while training, the data themselves in evaluation."""
        return x + self.std * torch.randn_like(x) if self.training else x

    def anneal(self, factor: float) -> None:
        """Multiply the standard deviation by ``factor``."""
        self.std.mul_(factor)


def spectrally_normalized(network: nn.Module) -> nn.Module:
    r"""Divide the weights of all linear and convolutional layers, in place, by their largest singular value.

    .. math:: \bar W = W / \sigma_{\max}(W), \qquad \sigma_{\max}(W) = \max_{\|h\| = 1} \|W h\|

    Linear layers then have Lipschitz constant 1. A convolution's weight is read as a matrix with one row for each
    output channel; that is not the matrix of the convolution, whose Lipschitz constant may differ from 1.

    Args:
        network: Is changed: each forward pass in training mode takes one step of power iteration.

    Returns:
        The same network.

    Reference:
        Miyato et al., *Spectral Normalization for Generative Adversarial Networks* (2018), equation (8), Algorithm 1.

    Example:
        >>> layer = spectrally_normalized(nn.Linear(3, 2))
        >>> for _ in range(100):
        ...     _ = layer(torch.zeros(1, 3))
        >>> round(torch.linalg.matrix_norm(layer.weight, 2).item(), 4)
        1.0
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module)
    return network
