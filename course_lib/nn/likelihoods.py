"""How the outputs of a network are read as a distribution of data."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from course_lib.nn.dense import Constant

__all__ = ["BernoulliPixels", "CategoricalLevels", "GaussianPixels", "Levels", "LogisticLevels", "LogisticMixture"]


class GaussianPixels(nn.Module):
    r"""The decoder's output is the mean of a normal with one standard deviation for all dimensions.

    .. math:: \log p(x \mid z) = -\frac{\|x - g(z)\|^2}{2 \sigma^2} - \frac D2 \log 2 \pi \sigma^2

    A squared error is this with a sigma that nobody has chosen. Here sigma is learned from where it starts, unless it
    is fixed: its best value is the root mean squared error of the reconstructions.

    Args:
        sigma: Standard deviation at the start, in the units of the data.
        fixed: Keep it there.

    Raises:
        ValueError: If ``sigma`` is not positive.

    Reference:
        Rybkin, Daniilidis and Levine, *Simple and Effective VAE Training with Calibrated Decoders* (2021), section 3.

    Example:
        >>> GaussianPixels(sigma=1.0).log_prob(torch.zeros(1, 2), torch.zeros(1, 2)).exp() * 2 * math.pi
        tensor([1.0000], grad_fn=<MulBackward0>)
    """

    def __init__(self, *, sigma: float = 1.0, fixed: bool = False) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.log_sigma = Constant(torch.tensor([math.log(sigma)])).requires_grad_(not fixed)

    @property
    def sigma(self) -> float:
        """Standard deviation."""
        return self.log_sigma.value.exp().item()

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        r"""Log-density in nats, summed over dimensions, (B, \*event) twice -> (B,)."""
        _require_shape_of_data(outputs, x)
        return self._density(outputs).log_prob(x).flatten(1).sum(1)

    def mean(self, outputs: Tensor) -> Tensor:
        r"""Mean of x, of the shape of ``outputs``."""
        return outputs

    def sample(self, outputs: Tensor) -> Tensor:
        r"""A draw of x, noise included, of the shape of ``outputs``."""
        return self._density(outputs).sample()

    def _density(self, outputs: Tensor) -> Normal:
        sigma = self.log_sigma(outputs).exp()  # (B, 1)
        sigma = sigma.view(len(outputs), *(1 for _ in outputs.shape[1:]))
        return Normal(outputs, sigma, validate_args=False)  # NaN is the loop's business: it knows the step


class BernoulliPixels(nn.Module):
    r"""The decoder's outputs are logits of pixels that are black or white.

    .. math:: \log p(x \mid z) = \sum_d \left[x_d\, a_d - \log(1 + e^{a_d})\right], \qquad a = g(z)

    It is a probability for x in {0, 1} only. On grey values this sum is no log-density: its normalizer is missing.

    Reference:
        Kingma and Welling, *Auto-Encoding Variational Bayes* (2014), appendix C.1; Loaiza-Ganem and Cunningham, *The
        continuous Bernoulli* (2019), on grey values.

    Example:
        >>> BernoulliPixels().log_prob(torch.ones(1, 2), torch.zeros(1, 2)).exp()
        tensor([0.2500])
    """

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        r"""Log-probability in nats, summed over dimensions, (B, \*event) twice -> (B,)."""
        _require_shape_of_data(outputs, x)
        return -F.binary_cross_entropy_with_logits(outputs, x, reduction="none").flatten(1).sum(1)

    def mean(self, outputs: Tensor) -> Tensor:
        """Probability of a white pixel, of the shape of ``outputs``."""
        return outputs.sigmoid()

    def sample(self, outputs: Tensor) -> Tensor:
        """A draw of x in {0, 1}, of the shape of ``outputs``."""
        return outputs.sigmoid().bernoulli()


def _require_shape_of_data(outputs: Tensor, x: Tensor) -> None:
    if outputs.shape != x.shape:  # broadcasting would hide the mistake
        raise ValueError(f"the decoder gives shape {tuple(outputs.shape)}, the data has {tuple(x.shape)}")


class LogisticMixture:
    r"""A mixture of logistic distributions of one number; density, distribution function and sampler in one place.

    .. math:: F(x) = \sum_k \pi_k\, \sigma\!\left(\frac{x - \mu_k}{s_k}\right), \qquad
              p(x) = F'(x) = \sum_k \frac{\pi_k}{s_k}\, \sigma(u_k)\, \sigma(-u_k),
              \quad u_k = \frac{x - \mu_k}{s_k}

    A logistic distribution with scale s has standard deviation :math:`\pi s / \sqrt 3 \approx 1.81 s`.

    Args:
        logits: Unnormalized :math:`\log \pi_k`, shape (\*batch, K).
        mu: :math:`\mu_k`, of the same shape.
        scale: :math:`s_k > 0`, of the same shape.

    Reference:
        Salimans et al., *PixelCNN++* (2017), section 2.1.

    Example:
        >>> p = LogisticMixture(torch.zeros(1), torch.zeros(1), torch.ones(1))
        >>> p.log_prob(torch.tensor(0.0)).exp(), p.cdf(torch.tensor(0.0))
        (tensor(0.2500), tensor(0.5000))
    """

    def __init__(self, logits: Tensor, mu: Tensor, scale: Tensor) -> None:
        self.log_weights, self.mu, self.scale = logits.log_softmax(-1), mu, scale

    @classmethod
    def from_parameters(cls, parameters: Tensor, *, min_scale: float = 1e-3) -> LogisticMixture:
        r"""Read a network's outputs, shape (\*batch, 3 K), as logits, means and log-scales.

        The scale is :math:`e^{\text{output}} + s_{\min}`: without a floor, a component could sit on a single point.
        """
        logits, mu, log_scale = parameters.chunk(3, dim=-1)
        return cls(logits, mu, log_scale.exp() + min_scale)

    def tempered(self, temperature: float) -> LogisticMixture:
        r"""The mixture with weights proportional to :math:`\pi_k^{1/T}` and scales :math:`T s_k`."""
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        return LogisticMixture(self.log_weights / temperature, self.mu, self.scale * temperature)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log-density in nats, (\*batch) -> (\*batch)."""
        u = ((x[..., None] - self.mu) / self.scale).abs()  # (*batch, K); the density is even in u
        return (self.log_weights - u - 2 * F.softplus(-u) - self.scale.log()).logsumexp(-1)

    def cdf(self, x: Tensor) -> Tensor:
        r"""Probability of a value of at most x, (\*batch) -> (\*batch)."""
        return (self.log_weights.exp() * ((x[..., None] - self.mu) / self.scale).sigmoid()).sum(-1)

    def log_mass(self, lower: Tensor, upper: Tensor) -> Tensor:
        r"""Log-probability in nats of a value between two bounds, which may be infinite, (\*batch) -> (\*batch).

        .. math:: \sigma(b) - \sigma(a) = \sigma(b)\, \sigma(-a)\, (1 - e^{-(b - a)})

        The right-hand side keeps its precision where both terms on the left round to the same number.
        """
        gap = self._standardized(upper - lower, origin=0)  # b - a, computed before it can cancel
        a, b = self._standardized(lower, origin=self.mu), self._standardized(upper, origin=self.mu)  # (*batch, K)
        log_masses = F.logsigmoid(b) + F.logsigmoid(-a) + (-(-gap).expm1()).log()
        return (self.log_weights + log_masses).logsumexp(-1)

    def _standardized(self, x: Tensor, *, origin: Tensor | float) -> Tensor:
        finite = torch.where(x.isinf(), 0, x)[..., None]  # infinity divided by a scale has a gradient of NaN
        return torch.where(x.isinf()[..., None], x[..., None], (finite - origin) / self.scale)

    def sample(self) -> Tensor:
        r"""One draw from each distribution, shape (\*batch): a component, then its quantile function at uniform u."""
        weights = self.log_weights.exp()
        k = weights.reshape(-1, weights.shape[-1]).multinomial(1).view(*weights.shape[:-1], 1)
        mu, scale = self.mu.gather(-1, k)[..., 0], self.scale.gather(-1, k)[..., 0]
        return mu + scale * torch.logit(torch.rand_like(mu), eps=torch.finfo(mu.dtype).eps)


class Levels(Protocol):
    """How the outputs of a network, ``channels`` for each pixel, stand for probabilities of ``levels`` grey levels."""

    levels: int
    channels: int

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """Log-probability in nats of integer levels, (B, channels, H, W) and (B, H, W) -> (B, H, W)."""
        ...


class CategoricalLevels:
    r"""One free logit for each grey level, :math:`p(l) \propto e^{\theta_l}`.

    Args:
        levels: Number of levels L.

    Reference:
        Van den Oord et al., *Pixel Recurrent Neural Networks* (2016), section 3.1.

    Example:
        >>> CategoricalLevels(4).log_prob(torch.zeros(1, 4, 1, 1), torch.tensor([[[3]]])).exp()
        tensor([[[0.2500]]])
    """

    def __init__(self, levels: int) -> None:
        self.levels = self.channels = levels

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """Log-probability in nats of integer levels, (B, channels, H, W) and (B, H, W) -> (B, H, W)."""
        return -F.cross_entropy(parameters, level, reduction="none")


class LogisticLevels:
    r"""The mass that a mixture of logistics on the real line leaves in the interval of each grey level.

    .. math:: p(l) = F(e_{l+1}) - F(e_l), \qquad e_l = \frac{2 l}{L} - 1, \quad e_0 = -\infty, \quad e_L = \infty

    It knows from the start that neighbouring levels are alike, and needs 3 K outputs whatever the number of levels.

    Args:
        levels: Number of levels L.
        components: Number of components K.

    Reference:
        Salimans et al., *PixelCNN++* (2017), equation (2).

    Example:
        >>> p = LogisticLevels(2, components=1)  # outputs of zero: symmetric, so either level is as likely
        >>> p.log_prob(torch.zeros(1, 3, 1, 1), torch.tensor([[[1]]])).exp()
        tensor([[[0.5000]]])
    """

    def __init__(self, levels: int, *, components: int = 5) -> None:
        self.levels, self.channels = levels, 3 * components

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        """Log-probability in nats of integer levels, (B, channels, H, W) and (B, H, W) -> (B, H, W)."""
        mixture = LogisticMixture.from_parameters(parameters.movedim(1, -1))
        edges = (2 * torch.arange(self.levels + 1, device=level.device) / self.levels - 1).to(parameters.dtype)
        edges[0], edges[-1] = -torch.inf, torch.inf  # the outermost levels take the tails
        return mixture.log_mass(edges[level], edges[level + 1])
