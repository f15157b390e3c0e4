r"""Network parts that several families share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

__all__ = [
    "MLP",
    "AffineBijection",
    "BernoulliPixels",
    "CategoricalLevels",
    "ClassInput",
    "ClassOutput",
    "Constant",
    "ConvDecoder",
    "ConvEncoder",
    "GaussianPixels",
    "Levels",
    "LogisticLevels",
    "LogisticMixture",
    "MaskedConv2d",
    "MaskedLinear",
    "MaskedMLP",
    "SplineBijection",
    "TimeMLP",
    "UNet",
    "conv_networks",
    "conv_players",
    "dense_networks",
    "dense_players",
    "raster_mask",
    "time_embedding",
]


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


class Constant(nn.Module):
    r"""Learned numbers that are the same for every example, such as one standard deviation for all pixels.

    Args:
        value: Where they start, shape (F,).

    Example:
        >>> Constant(torch.tensor([0.5]))(torch.zeros(3, 7))
        tensor([[0.5000],
                [0.5000],
                [0.5000]], grad_fn=<ExpandBackward0>)
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self, x: Tensor) -> Tensor:
        r"""(B, \*any) -> (B, F), whatever the values of ``x``."""
        return self.value.expand(len(x), -1)


# ------------------------------------------------------ masked layers: output i depends on inputs j < i, and no others


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


# ---------------------------------------------------------------------- likelihoods: how to read a decoder's output


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


# ------------------------------------------------------------------------- one number, its distribution from a network


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


# -------------------------------------------------------------- bijections of one number, the bricks of coupling layers


class AffineBijection:
    r"""Stretch and shift, :math:`z = x\, e^s + b`, with :math:`s = 3 \tanh(\text{output} / 3)`.

    The bound on s keeps an untrained network from stretching by a factor beyond :math:`e^3 \approx 20`.

    Reference:
        Dinh, Sohl-Dickstein and Bengio, *Density estimation using Real NVP* (2017), section 3.2.

    Example:
        >>> AffineBijection()(torch.tensor([1.0]), torch.tensor([[0.0, 5.0]]))  # z, log dz/dx
        (tensor([6.]), tensor([0.]))
    """

    parameters_per_number = 2

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        r"""z and :math:`\log |dz/dx|`, both (\*batch), from x (\*batch) and parameters (\*batch, 2)."""
        s, shift = self._read(parameters)
        return x * s.exp() + shift, s

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        r"""x from z, (\*batch) -> (\*batch)."""
        s, shift = self._read(parameters)
        return (z - shift) * (-s).exp()

    def _read(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        s, shift = parameters.unbind(-1)
        return 3 * (s / 3).tanh(), shift


class SplineBijection:
    r"""A monotone curve through K + 1 knots :math:`(x_k, y_k)` with slopes :math:`d_k`; the identity outside.

    In the bin that holds x, with :math:`\xi = (x - x_k) / (x_{k+1} - x_k)`, mean slope
    :math:`s = (y_{k+1} - y_k) / (x_{k+1} - x_k)` and :math:`c = d_{k+1} + d_k - 2 s`,

    .. math:: z = y_k + \frac{(y_{k+1} - y_k) \left[s \xi^2 + d_k\, \xi (1 - \xi)\right]}{s + c\, \xi (1 - \xi)},
              \qquad
              \frac{dz}{dx} = \frac{s^2 \left[d_{k+1} \xi^2 + 2 s\, \xi (1 - \xi) + d_k (1 - \xi)^2\right]}
                                   {\left[s + c\, \xi (1 - \xi)\right]^2}.

    The first and last knots are (-b, -b) and (b, b), with slope 1, so that the curve joins the identity smoothly.

    Args:
        bins: Number of bins K.
        bound: Half-width b of the interval that is bent.
        smallest: Smallest share of the interval in one bin, and smallest slope at a knot. The smaller it is, the
            sharper the curve may bend, and the fewer digits of the inverse are left in single precision.

    Raises:
        ValueError: If there is no bin, ``bound`` is not positive, or the bins cannot all have the smallest share.

    Reference:
        Durkan et al., *Neural Spline Flows* (2019), equations (4), (5) and (6) to (8) for the inverse.

    Example:
        >>> spline = SplineBijection(bins=4, bound=1.0)
        >>> spline(torch.tensor([0.5, 7.0]), torch.zeros(2, spline.parameters_per_number))  # outputs of zero: z = x
        (tensor([0.5000, 7.0000]), tensor([...]))
    """

    def __init__(self, *, bins: int = 8, bound: float = 3.0, smallest: float = 1e-3) -> None:
        if bins < 1 or not bound > 0 or not 0 < bins * smallest < 1:
            raise ValueError(
                "expected at least 1 bin, a positive bound and 0 < bins * smallest < 1, "
                f"got {bins} bins, bound {bound} and smallest {smallest}"
            )
        self.bins, self.bound, self.smallest = bins, bound, smallest
        self.parameters_per_number = 3 * bins - 1

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        r"""z and :math:`\log |dz/dx|`, both (\*batch), from x (\*batch) and parameters (\*batch, 3 K - 1)."""
        inside = x.abs() < self.bound
        safe = x.where(inside, torch.zeros_like(x))  # else the unused branch would send NaN back as its gradient
        knots = self.knots(parameters)
        x_k, y_k, width, height, d_k, d_next = _bin(knots, knots[0], safe)
        xi, s = (safe - x_k) / width, height / width
        mixed = xi * (1 - xi)
        denominator = s + (d_next + d_k - 2 * s) * mixed
        z = y_k + height * (s * xi**2 + d_k * mixed) / denominator
        numerator = d_next * xi**2 + 2 * s * mixed + d_k * (1 - xi) ** 2
        log_slope = 2 * s.log() + numerator.log() - 2 * denominator.log()
        return z.where(inside, x), log_slope.where(inside, torch.zeros_like(x))

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        r"""x from z, (\*batch) -> (\*batch): the root :math:`\xi` of a quadratic equation."""
        inside = z.abs() < self.bound
        safe = z.where(inside, torch.zeros_like(z))
        knots = self.knots(parameters)
        x_k, y_k, width, height, d_k, d_next = _bin(knots, knots[1], safe)
        s, rise = height / width, safe - y_k
        curvature = rise * (d_next + d_k - 2 * s)
        a, b, c = height * (s - d_k) + curvature, height * d_k - curvature, -s * rise
        xi = 2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())
        return (x_k + xi * width).where(inside, z)

    def knots(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Positions :math:`x_k, y_k` and slopes :math:`d_k` of the knots, each (\*batch, K + 1)."""
        widths, heights, slopes = parameters.split([self.bins, self.bins, self.bins - 1], dim=-1)
        slope_one = math.log(math.expm1(1 - self.smallest))  # so that outputs of zero give the identity
        slopes = self.smallest + F.softplus(slopes + slope_one)
        return self._positions(widths), self._positions(heights), F.pad(slopes, (1, 1), value=1.0)

    def _positions(self, logits: Tensor) -> Tensor:
        shares = self.smallest + (1 - self.bins * self.smallest) * logits.softmax(-1)  # (*batch, K)
        inner = (2 * shares.cumsum(-1)[..., :-1] - 1) * self.bound
        return F.pad(F.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound)  # (*batch, K + 1)


def _bin(knots: tuple[Tensor, Tensor, Tensor], edges: Tensor, at: Tensor) -> list[Tensor]:
    """x_k, y_k, width, height and the two slopes of the bin whose ``edges`` hold ``at``, each of its shape."""
    x, y, d = knots
    k = torch.searchsorted(edges[..., 1:-1].detach().contiguous(), at[..., None])  # inner edges only: 0 <= k < K
    left = [values.gather(-1, k)[..., 0] for values in (x, y, d)]
    right = [values.gather(-1, k + 1)[..., 0] for values in (x, y, d)]
    return [left[0], left[1], right[0] - left[0], right[1] - left[1], left[2], right[2]]


# ------------------------------------------------------------------------- two players: generators and discriminators


class ClassInput(nn.Module):
    r"""A network that is told a class: the label, one-hot, is appended to the input.

    .. math:: y = f([x, e_c])

    Inputs of shape (B, F) get C more features; images get C more channels, each of one value.

    Args:
        network: f, for the longer input.
        classes: Number of classes C.

    Raises:
        ValueError: If the labels are not int64, not one for each example, or not in 0 ... C - 1.

    Reference:
        Mirza and Osindero, *Conditional Generative Adversarial Nets* (2014), section 3.2.

    Example:
        >>> generator = ClassInput(nn.Linear(4 + 10, 2), classes=10)
        >>> generator(torch.randn(3, 4), torch.tensor([0, 7, 9])).shape
        torch.Size([3, 2])
    """

    def __init__(self, network: nn.Module, *, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        r"""(B, F) or (B, C, H, W), and labels (B,), -> (B, \*event)."""
        one_hot = F.one_hot(_checked_labels(c, len(x), self.classes), self.classes).to(x.dtype)  # (B, classes)
        one_hot = one_hot.view(*one_hot.shape, *(1 for _ in x.shape[2:])).expand(-1, -1, *x.shape[2:])
        return self.network(torch.cat([x, one_hot], dim=1))


class ClassOutput(nn.Module):
    r"""A network with one output for each class, of which the label picks its own.

    .. math:: y = f(x)_c = w_c^\top \phi(x) + b_c

    The features :math:`\phi` are shared; only the last layer knows the class.

    Args:
        network: f, with C outputs.
        classes: Number of classes C.

    Reference:
        Miyato and Koyama, *cGANs with Projection Discriminator* (2018), section 3; :math:`w_c` is their sum of
        :math:`v_c` and the weights of :math:`\psi`.

    Example:
        >>> ClassOutput(nn.Identity(), classes=3)(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([2]))
        tensor([7.])
    """

    def __init__(self, network: nn.Module, *, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        r"""(B, \*event) and labels (B,) -> (B,)."""
        return self.network(x).gather(1, _checked_labels(c, len(x), self.classes)[:, None])[:, 0]


def _checked_labels(c: Tensor, n: int, classes: int) -> Tensor:
    if c.shape != (n,) or c.dtype != torch.int64:
        raise ValueError(f"expected {n} labels, shape ({n},) and torch.int64, got {tuple(c.shape)} and {c.dtype}")
    if n and not 0 <= c.min() <= c.max() < classes:
        raise ValueError(f"labels must lie in 0 ... {classes - 1}, got {c.min().item()} to {c.max().item()}")
    return c


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
        >>> generator, discriminator = conv_players((1, 28, 28), 16, classes=10)
        >>> c = torch.arange(5)
        >>> discriminator(generator(torch.randn(5, 16), c), c).shape
        torch.Size([5])
    """
    small = _quarter(shape, channels[1])
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


# -------------------------------------------------------------------- networks that know the time: (x_t, t, c) -> y


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
