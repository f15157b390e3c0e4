r"""Network parts that several families share."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    "WithLabel",
    "conv_networks",
    "dense_networks",
    "raster_mask",
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


class WithLabel(nn.Module):
    r"""Make a network conditional: it sees a label beside its input.

    A label becomes a vector of zeros with a one at its place. Inputs of shape (B, F) get it as ``classes`` more
    features; images of shape (B, C, H, W) get it as ``classes`` more channels, each of one value.

    Args:
        network: Takes the longer input.
        classes: Number of labels.

    Raises:
        ValueError: If the labels are not as many as the examples, not whole numbers, or not below ``classes``.

    Reference:
        Mirza and Osindero, *Conditional Generative Adversarial Nets* (2014), section 3.2.

    Example:
        >>> WithLabel(nn.Identity(), classes=3)(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[0., 0., 0., 1., 0.]])
    """

    def __init__(self, network: nn.Module, *, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Data (B, F) or (B, C, H, W) and labels (B,), of an integer type."""
        if c.shape != x.shape[:1] or c.is_floating_point():
            raise ValueError(
                f"expected {len(x)} whole labels, shape ({len(x)},), got shape {tuple(c.shape)} and {c.dtype}"
            )
        # a look at the values would make a GPU wait
        if c.device.type == "cpu" and len(c) and not 0 <= c.min() <= c.max() < self.classes:
            raise ValueError(f"labels must lie between 0 and {self.classes - 1}, got {c.min()} to {c.max()}")
        label = F.one_hot(c, self.classes).to(x.dtype)  # (B, classes)
        label = label.view(*label.shape, *(1 for _ in x.shape[2:])).expand(-1, -1, *x.shape[2:])
        return self.network(torch.cat([x, label], dim=1))


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
