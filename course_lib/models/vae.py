r"""Variational autoencoders: a latent-variable model, and the encoder that makes it trainable.

A code :math:`z \sim \mathcal N(0, I)` is drawn, then data :math:`x \sim p(x \mid z)` around what a decoder makes of it.
The likelihood :math:`p(x) = \int p(x \mid z)\, p(z)\, dz` has no closed form, because z enters through a network. With
any density :math:`q(z \mid x)`,

.. math:: \log p(x) = \underbrace{\mathbb E_{q} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))}_{\text{ELBO}}
          + \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x)) .

The last term is not negative, so the ELBO is a lower bound, tight when q is the true posterior. An encoder gives the
mean and log-variance of q; :math:`z = \mu + \sigma \epsilon` lets the gradient through the draw.

All terms are sums over dimensions, in nats. A VAE has no ``log_prob``, except where everything is linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from course_lib import losses
from course_lib.nn import ClassInput, Constant, GaussianPixels
from course_lib.probability import normal_log_prob, reparameterize

__all__ = ["VAE", "LinearVAE", "make_vae"]

Networks = Callable[..., tuple[nn.Module, nn.Module]]


class VAE(nn.Module):
    r"""An encoder and a decoder, trained to raise a lower bound of the likelihood.

    Args:
        encoder: Maps x, shape (B, \*event), to :math:`\mu` and :math:`\log \sigma^2` side by side, shape (B, 2 K).
        decoder: Maps z, shape (B, K), to what the likelihood reads, of the shape of x.
        likelihood: :class:`GaussianPixels`, :class:`BernoulliPixels`, or another with the same methods.
        latent: Size of the code K.

    The networks of a conditional model take labels as well (:class:`course_lib.nn.ClassInput`); so does every method.

    Reference:
        Kingma and Welling, *Auto-Encoding Variational Bayes* (2014); Rezende, Mohamed and Wierstra (2014).

    Example:
        >>> from course_lib.nn import BernoulliPixels, dense_networks
        >>> model = make_vae(dense_networks, (1, 8, 8), 2, BernoulliPixels(), hidden=[32])
        >>> x = torch.rand(16, 1, 8, 8).round()
        >>> model.elbo(x).shape, model.log_prob_iw(x, 10).shape, model.sample(5).shape
        (torch.Size([16]), torch.Size([16]), torch.Size([5, 1, 8, 8]))
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: nn.Module, *, latent: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood, self.latent = encoder, decoder, likelihood, latent

    def encode(self, x: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\mu` and :math:`\log \sigma^2` of q(z | x), both (B, K)."""
        outputs = self.encoder(x, *c)
        if outputs.shape != (len(x), 2 * self.latent) or not len(x):
            raise ValueError(f"expected codes (B, {2 * self.latent}), B > 0; B = {len(x)} gives {tuple(outputs.shape)}")
        return outputs.chunk(2, dim=1)

    def decode(self, z: Tensor, *c: Tensor) -> Tensor:
        r"""Mean of x given z, (B, K) -> (B, \*event). It is no draw of x: :meth:`sample` adds the noise."""
        return self.likelihood.mean(self.decoder(z, *c))

    def forward(self, x: Tensor, *c: Tensor) -> Tensor:
        """Reconstructions from the mean code, of the shape of ``x``."""
        return self.decode(self.encode(x, *c)[0], *c)

    def terms(self, x: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
        r"""The two terms of the ELBO for one draw of z: :math:`\log p(x \mid z)`, (B,), and the KL, (B, K), in nats."""
        mu, logvar = self.encode(x, *c)
        z = reparameterize(mu, logvar)
        return self.likelihood.log_prob(x, self.decoder(z, *c)), losses.kl_to_standard_normal(mu, logvar)

    def elbo(self, x: Tensor, *c: Tensor) -> Tensor:
        r"""Evidence lower bound in nats from one draw of z, (B, \*event) -> (B,)."""
        log_likelihood, kl = self.terms(x, *c)
        return log_likelihood - kl.sum(1)

    def loss(self, x: Tensor, *c: Tensor, beta: float | Tensor = 1.0, free_bits: float = 0.0) -> Tensor:
        r"""Minus the mean ELBO, a scalar in nats. With another ``beta``, or with free bits, it is no bound any more.

        .. math:: L = -\frac1B \sum_i \log p(x_i \mid z_i) + \beta \sum_k \max(\lambda, \overline{\mathrm{KL}}_k)

        ``beta`` is :math:`\beta` (Higgins et al., 2017, equation 4), and may grow: :class:`course_lib.train.Ramp`.
        ``free_bits`` is :math:`\lambda`, the nats that each latent dimension may use at no cost.
        """
        log_likelihood, kl = self.terms(x, *c)
        return beta * losses.free_bits(kl, floor=free_bits) - log_likelihood.mean()

    def log_prob_iw(self, x: Tensor, k: int, *c: Tensor) -> Tensor:
        r"""Importance-weighted lower bound of the log-likelihood, in nats, (B, \*event) -> (B,).

        .. math:: \log \frac1k \sum_{j=1}^k \frac{p(x \mid z_j)\, p(z_j)}{q(z_j \mid x)}, \qquad z_j \sim q(z \mid x)

        Its mean is the ELBO at k = 1, never falls as k grows, and tends to log p(x) (Burda, Grosse and Salakhutdinov,
        *Importance Weighted Autoencoders*, 2016, equation 8 and theorem 1).
        """
        if k < 1:
            raise ValueError(f"k must be at least 1 draw, got {k}")
        mu, logvar = self.encode(x, *c)
        zero = torch.zeros_like(mu)
        log_weights = []
        for _ in range(k):  # one draw for the whole batch at a time bounds the memory
            z = reparameterize(mu, logvar)
            log_ratio = normal_log_prob(z, zero, zero) - normal_log_prob(z, mu, logvar)
            log_weights.append(self.likelihood.log_prob(x, self.decoder(z, *c)) + log_ratio)
        return torch.stack(log_weights).logsumexp(0) - math.log(k)

    @torch.no_grad()
    def sample(self, n: int, *c: Tensor) -> Tensor:
        r"""Draw z from the prior and x from the likelihood, noise included, shape (n, \*event)."""
        z = torch.randn(n, self.latent, device=next(self.parameters()).device)
        return self.likelihood.sample(self.decoder(z, *c))


def make_vae(
    networks: Networks, shape: Sequence[int], latent: int, likelihood: nn.Module, *, classes: int = 0, **sizes: Any
) -> VAE:
    r"""Fit an encoder and a decoder to the data, to the code, and to labels if there are any.

    Args:
        networks: :func:`course_lib.nn.dense_networks`, :func:`course_lib.nn.conv_networks`, or one like them.
        shape: Shape of one example, such as (C, H, W) or (D,).
        latent: Size of the code K.
        likelihood: How the decoder's output is read.
        classes: Number of labels of a conditional model; 0 for one without labels.
        **sizes: Passed on to ``networks``.

    Example:
        >>> from course_lib.nn import conv_networks
        >>> model = make_vae(conv_networks, (1, 8, 8), 2, GaussianPixels(), classes=10)
        >>> model.sample(3, torch.tensor([7, 7, 1])).shape
        torch.Size([3, 1, 8, 8])
    """
    encoder, _ = networks((shape[0] + classes, *shape[1:]), 2 * latent, **sizes)
    _, decoder = networks(shape, latent + classes, **sizes)
    if classes:
        encoder, decoder = ClassInput(encoder, classes=classes), ClassInput(decoder, classes=classes)
    return VAE(encoder, decoder, likelihood, latent=latent)


class LinearVAE(VAE):
    r"""The VAE whose exact likelihood is known: everything is linear and normal.

    .. math:: x = W z + b + \sigma \epsilon \quad\Rightarrow\quad x \sim \mathcal N(b, W W^\top + \sigma^2 I), \qquad
              z \mid x \sim \mathcal N\!\left(M^{-1} W^\top (x - b),\ \sigma^2 M^{-1}\right),
              \quad M = W^\top W + \sigma^2 I

    This is probabilistic PCA. The encoder's mean is linear and its variance the same for all x, as the true posterior's
    are; at the optimum the columns of W are orthogonal, M is diagonal, and the ELBO equals log p(x).

    Args:
        dim: Size of the data D.
        latent: Size of the code K.
        sigma: Standard deviation of the observation at the start; it is learned.

    Reference:
        Tipping and Bishop, *Probabilistic Principal Component Analysis* (1999), equations (4) to (6); Lucas et al.,
        *Don't Blame the ELBO!* (2019), section 4.

    Example:
        >>> model, x = LinearVAE(5, 2), torch.randn(8, 5)
        >>> bool((model.log_prob(x) >= model.log_prob_iw(x, 1000) - 1).all())
        True
    """

    def __init__(self, dim: int, latent: int, *, sigma: float = 1.0) -> None:
        if not 1 <= latent <= dim:
            raise ValueError(f"expected 1 <= latent <= dim, got latent {latent} and dim {dim}")
        encoder = _LinearEncoder(dim, latent)
        super().__init__(encoder, nn.Linear(latent, dim), GaussianPixels(sigma=sigma), latent=latent)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Exact log-density in nats, (B, D) -> (B,)."""
        w, noise = self.decoder.weight, self.likelihood.sigma**2
        covariance = w @ w.T + noise * torch.eye(len(w)).to(w)
        return MultivariateNormal(self.decoder.bias, covariance).log_prob(x)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        r"""The true posterior of the codes, a batch of B normals in K dimensions."""
        w, noise = self.decoder.weight, self.likelihood.sigma**2
        m_inverse = torch.linalg.inv(w.T @ w + noise * torch.eye(self.latent).to(w))
        return MultivariateNormal((x - self.decoder.bias) @ w @ m_inverse, noise * m_inverse)


class _LinearEncoder(nn.Module):
    def __init__(self, dim: int, latent: int) -> None:
        super().__init__()
        self.mu, self.logvar = nn.Linear(dim, latent), Constant(torch.zeros(latent))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mu(x), self.logvar(x)], dim=1)
