r"""Autoencoders: compress, reconstruct, and see what was kept.

An encoder :math:`f: \mathbb R^D \to \mathbb R^K` and a decoder :math:`g: \mathbb R^K \to \mathbb R^D` are trained
together to minimize the squared reconstruction error

.. math:: L = \mathbb E_{x} \left\| g(f(x)) - x \right\|^2 .

With :math:`K < D` the code z = f(x) is a *bottleneck*: it has to keep what matters for the reconstruction. When both
maps are linear, the best possible answer is known: it is the projection on the first K principal components.

A model here has ``encode``, ``decode`` and ``loss``. It has no ``sample`` and no ``log_prob``, because nothing in its
objective says how codes are distributed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Autoencoder", "DenoisingAutoencoder", "linear_autoencoder"]


class Autoencoder(nn.Module):
    r"""An encoder and a decoder, trained to reproduce their input.

    .. math:: L = \frac1B \sum_{i=1}^B \sum_{d=1}^D \left( g(f(x_i))_d - x_{id} \right)^2

    The error is summed over the dimensions of an example and averaged over the batch.

    Args:
        encoder: Maps x, shape (B, \*event), to z, shape (B, K).
        decoder: Maps z, shape (B, K), to a reconstruction of the shape of x.

    Reference:
        Hinton and Salakhutdinov, *Reducing the Dimensionality of Data with Neural Networks* (2006).

    Example:
        >>> model = Autoencoder(nn.Linear(5, 2), nn.Linear(2, 5))
        >>> x = torch.randn(8, 5)
        >>> model.encode(x).shape, model(x).shape, model.loss(x).shape
        (torch.Size([8, 2]), torch.Size([8, 5]), torch.Size([]))
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> Tensor:
        r"""Codes of data, (B, \*event) -> (B, K)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        r"""Data from codes, (B, K) -> (B, \*event)."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions, of the shape of ``x``."""
        return self.decode(self.encode(x))

    def reconstruction_error(self, x: Tensor) -> Tensor:
        r"""Squared error of each example, summed over its dimensions, (B, \*event) -> (B,)."""
        return _squared_error(self(x), x)

    def loss(self, x: Tensor) -> Tensor:
        """Mean reconstruction error of the batch, a scalar."""
        return self.reconstruction_error(x).mean()


class DenoisingAutoencoder(Autoencoder):
    r"""An autoencoder that sees noisy data and is asked for the clean.

    .. math:: L = \mathbb E_{x, \epsilon} \left\| r(x + \sigma \epsilon) - x \right\|^2 , \qquad r = g \circ f,
              \quad \epsilon \sim \mathcal N(0, I)

    The best possible answer is the posterior mean :math:`r^*(\tilde x) = \mathbb E[x \mid \tilde x]`, and then
    :math:`r^*(\tilde x) - \tilde x = \sigma^2 \nabla \log p_\sigma(\tilde x)`: a denoiser points uphill in the density
    :math:`p_\sigma` of the noisy data. That is :meth:`score`.

    Args:
        encoder: Maps x, shape (B, \*event), to z, shape (B, K).
        decoder: Maps z to a reconstruction of the shape of x.
        sigma: Standard deviation of the noise, in the units of the data.

    Raises:
        ValueError: If ``sigma`` is not positive.

    Reference:
        Vincent et al., *Extracting and Composing Robust Features with Denoising Autoencoders* (2008); Alain and Bengio,
        *What Regularized Auto-Encoders Learn from the Data-Generating Distribution* (2014); the identity is Tweedie's
        formula: Efron, *Tweedie's Formula and Selection Bias* (2011).

    Example:
        >>> model = DenoisingAutoencoder(nn.Identity(), nn.Identity(), sigma=0.1)  # removes nothing: the error is D s^2
        >>> bool((model.loss(torch.zeros(100_000, 2)) - 2 * 0.1**2).abs() < 1e-3)
        True
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, sigma: float) -> None:
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        super().__init__(encoder, decoder)
        self.sigma = sigma

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error between the clean data and what the model makes of a noisy copy, a scalar."""
        return _squared_error(self(x + self.sigma * torch.randn_like(x)), x).mean()

    def score(self, x: Tensor) -> Tensor:
        r"""Estimate of the noisy data's score, :math:`(r(x) - x) / \sigma^2`, of the shape of ``x``."""
        return (self(x) - x) / self.sigma**2


def linear_autoencoder(*, dim: int, latent: int) -> Autoencoder:
    r"""An autoencoder of two linear layers; its optimum is principal component analysis.

    Args:
        dim: Size of the data D.
        latent: Size of the code K.

    Returns:
        A model for data of shape (B, D).

    Raises:
        ValueError: If the code is not smaller than the data.

    Reference:
        Baldi and Hornik, *Neural Networks and Principal Component Analysis* (1989).

    Example:
        >>> linear_autoencoder(dim=5, latent=2).encode(torch.zeros(3, 5)).shape
        torch.Size([3, 2])
    """
    if not 1 <= latent < dim:
        raise ValueError(f"a bottleneck needs 1 <= latent < dim, got latent {latent} and dim {dim}")
    return Autoencoder(nn.Linear(dim, latent), nn.Linear(latent, dim))


def _squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    if x_hat.shape != x.shape:  # broadcasting would hide the mistake
        raise ValueError(f"the reconstruction has shape {tuple(x_hat.shape)}, the data {tuple(x.shape)}")
    return (x_hat - x).square().flatten(1).sum(1)  # (B,)
