r"""Densities whose answers are known exactly, and the units in which likelihoods are reported.

Every family in this course is first trained on data from a density in this module, because then the right answer is
known: its log-density, its score, and the best possible denoiser. The workhorse is the Gaussian mixture

.. math:: p(x) = \sum_k \pi_k \, \mathcal N(x; \mu_k, \Sigma_k),

which stays a Gaussian mixture when it is scaled and noise is added. With :math:`x_t = \alpha_t x + \sigma_t \epsilon`,

.. math:: p_t(x_t) = \sum_k \pi_k \, \mathcal N(x_t; \alpha_t \mu_k, \alpha_t^2 \Sigma_k + \sigma_t^2 I).

So the score of noisy data and the posterior mean :math:`\mathbb E[x \mid x_t]` have closed forms too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, constraints

__all__ = [
    "GaussianMixture",
    "bits_per_dim",
    "dequantize",
    "gaussian",
    "nats_from_bits_per_dim",
    "normal_log_prob",
    "reparameterize",
    "ring",
    "tilted_gaussian",
    "two_clusters",
]


def normal_log_prob(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    r"""Log-density of a diagonal normal, summed over the event dimensions.

    .. math:: \log \mathcal N(x; \mu, \sigma^2) = -\tfrac12 \sum_d
              \left[\log 2\pi + \log \sigma_d^2 + \frac{(x_d - \mu_d)^2}{\sigma_d^2}\right]

    Args:
        x: Points, shape (B, \*event).
        mu: Means, broadcastable to ``x``.
        logvar: Log-variances :math:`\log \sigma^2`, broadcastable to ``x``.

    Returns:
        Shape (B,), in nats.

    Raises:
        ValueError: If ``mu`` or ``logvar`` does not broadcast to the shape of ``x``.

    Example:
        >>> normal_log_prob(torch.zeros(1, 2), torch.zeros(2), torch.zeros(2))  # -log(2 pi)
        tensor([-1.8379])
    """
    for name, value in (("mu", mu), ("logvar", logvar)):
        try:
            fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(f"{name} of shape {tuple(value.shape)} does not broadcast to x of shape {tuple(x.shape)}")
    per_dimension = -0.5 * (math.log(2 * math.pi) + logvar + (x - mu) ** 2 * torch.exp(-logvar))
    return per_dimension[..., None].flatten(1).sum(1)  # (B,); the new axis serves events of no dimensions, x of (B,)


def reparameterize(mu: Tensor, logvar: Tensor) -> Tensor:
    r"""Draw from a diagonal normal in a way that is differentiable in its parameters.

    .. math:: z = \mu + \sigma \epsilon, \qquad \epsilon \sim \mathcal N(0, I)

    Args:
        mu: Means, shape (B, K).
        logvar: Log-variances :math:`\log \sigma^2`, shape (B, K).

    Returns:
        Shape (B, K).

    Reference:
        Kingma and Welling, *Auto-Encoding Variational Bayes* (2014), section 2.4.

    Example:
        >>> mu = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(reparameterize(mu, torch.zeros(1)), mu)
        (tensor([1.]),)
    """
    return mu + (0.5 * logvar).exp() * torch.randn_like(mu)


class GaussianMixture:
    r"""A mixture of full-covariance normals with exact density, score and denoiser.

    .. math:: p(x) = \sum_k \pi_k \, \mathcal N(x; \mu_k, \Sigma_k)

    Args:
        means: :math:`\mu_k`, shape (M, D).
        covariances: :math:`\Sigma_k`, shape (M, D, D), symmetric positive definite.
        weights: :math:`\pi_k`, shape (M,), positive; they are normalized to sum to one. Equal when omitted.

    Raises:
        ValueError: If the shapes do not belong together, a weight is not positive, or a covariance not symmetric
            positive definite.

    Reference:
        Bishop, *Pattern Recognition and Machine Learning* (2006), section 2.3.9; the linear-Gaussian posterior is
        equation (2.116).

    Example:
        >>> p = GaussianMixture(means=torch.zeros(1, 2), covariances=torch.eye(2)[None])
        >>> p.score(torch.tensor([[1.0, 2.0]]))  # a standard normal's score is -x
        tensor([[-1., -2.]])
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        weights = means.new_ones(len(means)) if weights is None else weights
        if means.ndim != 2 or covariances.shape != (*means.shape, means.shape[1]) or weights.shape != means.shape[:1]:
            raise ValueError(
                "expected means (M, D), covariances (M, D, D) and weights (M,), "
                f"got {tuple(means.shape)}, {tuple(covariances.shape)} and {tuple(weights.shape)}"
            )
        if not (weights > 0).all():
            raise ValueError(f"weights must be positive, got {weights.tolist()}")
        if not (fine := constraints.positive_definite.check(covariances)).all():
            k = int((~fine).nonzero()[0])
            raise ValueError(f"covariance {k} is not symmetric positive definite: {covariances[k].tolist()}")
        self.means, self.covariances, self.weights = means, covariances, weights / weights.sum()
        self._components = MultivariateNormal(means, covariances)
        self._mixture = MixtureSameFamily(Categorical(probs=self.weights), self._components)

    def __repr__(self) -> str:
        return f"GaussianMixture(components={len(self.means)}, dim={self.dim})"

    @property
    def dim(self) -> int:
        """Number of dimensions D."""
        return self.means.shape[1]

    @property
    def mean(self) -> Tensor:
        r"""Mean of the mixture, :math:`\sum_k \pi_k \mu_k`, shape (D,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        r"""Covariance of the mixture, :math:`\sum_k \pi_k (\Sigma_k + \mu_k \mu_k^\top) - \mu \mu^\top`, (D, D)."""
        second_moments = self.covariances + self.means[:, :, None] * self.means[:, None, :]  # (M, D, D)
        return torch.einsum("m,mij->ij", self.weights, second_moments) - torch.outer(self.mean, self.mean)

    def to(self, *args: torch.device | torch.dtype | str) -> GaussianMixture:
        """The same mixture on another device or in another floating-point type, as :meth:`torch.Tensor.to`."""
        return GaussianMixture(self.means.to(*args), self.covariances.to(*args), self.weights.to(*args))

    def sample(self, n: int) -> Tensor:
        """Draw ``n`` points from the global random state, shape (n, D)."""
        return self._mixture.sample((n,))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats, (B, D) -> (B,)."""
        return self._mixture.log_prob(self._checked(x))

    def entropy(self, n: int = 100_000) -> tuple[float, float]:
        """Entropy in nats, as a Monte Carlo mean over ``n`` fresh samples, and its standard error."""
        log_prob = self.log_prob(self.sample(n))
        return -log_prob.mean().item(), (log_prob.std() / math.sqrt(n)).item()

    def responsibilities(self, x: Tensor) -> Tensor:
        r"""Posterior probability of each component, :math:`p(k \mid x)`, (B, D) -> (B, M)."""
        log_joint = self._components.log_prob(self._checked(x)[:, None]) + self.weights.log()  # (B, M)
        return log_joint.softmax(dim=1)

    def score(self, x: Tensor) -> Tensor:
        r"""Exact score :math:`\nabla \log p(x) = \sum_k p(k \mid x)\, \Sigma_k^{-1} (\mu_k - x)`, (B, D) -> (B, D)."""
        to_means = self.means - self._checked(x)[:, None]  # (B, M, D)
        pulls = torch.einsum("mij,bmj->bmi", self._components.precision_matrix, to_means)
        return torch.einsum("bm,bmi->bi", self.responsibilities(x), pulls)

    def noised(self, alpha_t: float, sigma_t: float) -> GaussianMixture:
        r"""The exact density of :math:`x_t = \alpha_t x + \sigma_t \epsilon` with standard normal :math:`\epsilon`."""
        noise = sigma_t**2 * torch.eye(self.dim, dtype=self.means.dtype, device=self.means.device)
        return GaussianMixture(alpha_t * self.means, alpha_t**2 * self.covariances + noise, self.weights)

    def posterior_mean(self, x_t: Tensor, *, alpha_t: float, sigma_t: float) -> Tensor:
        r"""The best possible denoiser :math:`\mathbb E[x \mid x_t]` under squared error, (B, D) -> (B, D).

        .. math:: \sum_k p(k \mid x_t) \left[ \mu_k + \alpha_t \Sigma_k
                  (\alpha_t^2 \Sigma_k + \sigma_t^2 I)^{-1} (x_t - \alpha_t \mu_k) \right]
        """
        noisy = self.noised(alpha_t, sigma_t)
        gains = alpha_t * self.covariances @ noisy._components.precision_matrix  # (M, D, D)
        residuals = noisy._checked(x_t)[:, None] - noisy.means  # (B, M, D)
        component_means = self.means + torch.einsum("mij,bmj->bmi", gains, residuals)
        return torch.einsum("bm,bmi->bi", noisy.responsibilities(x_t), component_means)

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"expected x of shape (B, {self.dim}), got {tuple(x.shape)}")
        if not len(x):
            raise ValueError(f"there are no points: expected x of at least one row, got shape {tuple(x.shape)}")
        return x


def gaussian(mean: Sequence[float] | Tensor, covariance: Sequence[Sequence[float]] | Tensor) -> GaussianMixture:
    """One full-covariance normal, as a mixture of a single component.

    Args:
        mean: Shape (D,).
        covariance: Shape (D, D), symmetric positive definite.

    Returns:
        The density.

    Example:
        >>> gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 4.0]]).covariance
        tensor([[1., 0.],
                [0., 4.]])
    """
    # times 1.0: whole numbers become floating-point numbers, and those keep their precision
    return GaussianMixture(1.0 * torch.as_tensor(mean)[None], 1.0 * torch.as_tensor(covariance)[None])


def ring(*, modes: int = 8, radius: float = 2.0, std: float = 0.02) -> GaussianMixture:
    r"""Equal, round modes on a circle: the standard test of mode coverage.

    .. math:: \mu_k = r \, (\cos 2\pi k/M, \sin 2\pi k/M), \qquad \Sigma_k = s^2 I

    Args:
        modes: Number of modes M.
        radius: Radius r of the circle.
        std: Standard deviation s of each mode.

    Returns:
        The density, in two dimensions.

    Raises:
        ValueError: If ``modes`` is less than 1, or ``std`` is zero.

    Reference:
        Metz et al., *Unrolled Generative Adversarial Networks* (2017), section 3.1.

    Example:
        >>> entropy, error = ring().entropy()  # log 8 + 1 + log 2 pi + 2 log 0.02 = -2.91 nats
        >>> abs(entropy + 2.907) < 5 * error
        True
    """
    _require_positive(modes=modes)
    angles = 2 * math.pi * torch.arange(modes) / modes
    means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)  # (M, 2)
    return GaussianMixture(means, (std**2 * torch.eye(2)).expand(modes, 2, 2))


def two_clusters(*, center: tuple[float, float] = (2.0, 2.0), std: float = 1.0) -> GaussianMixture:
    r"""Two equal, round modes at ``center`` and at its mirror image through the origin.

    Args:
        center: Mean :math:`\mu` of the first mode; the second is at :math:`-\mu`.
        std: Standard deviation of each mode.

    Returns:
        The density, in two dimensions.

    Example:
        >>> two_clusters(center=(2.0, 0.0), std=0.5).means
        tensor([[ 2.,  0.],
                [-2., -0.]])
    """
    mean = torch.tensor(center)
    return GaussianMixture(torch.stack([mean, -mean]), (std**2 * torch.eye(2)).expand(2, 2, 2))


def tilted_gaussian() -> GaussianMixture:
    r"""The image :math:`X A + b` of a standard normal row vector X, a Gaussian with correlated dimensions.

    .. math:: A = \begin{pmatrix} 1 & 2 \\ -0.1 & 0.5 \end{pmatrix}, \quad b = (1, 2), \qquad
              X A + b \sim \mathcal N(b, A^\top A)

    Returns:
        The density, in two dimensions.

    Example:
        >>> tilted_gaussian().mean
        tensor([1., 2.])
    """
    a = torch.tensor([[1.0, 2.0], [-0.1, 0.5]])
    return gaussian(torch.tensor([1.0, 2.0]), a.T @ a)


def bits_per_dim(log_prob: Tensor, *, dims: int, levels: int = 1) -> Tensor:
    r"""Convert log-densities in nats to bits per dimension; lower is better.

    .. math:: \text{bits/dim} = -\frac{\log p(x)}{D \ln 2} + \log_2 L

    A density on data scaled from L integer levels to [0, 1] is :math:`L^D` times the density on the integers; the
    second term takes that factor back, so that figures for differently scaled data can be compared.

    Args:
        log_prob: Log-densities in nats, any shape.
        dims: Number of dimensions D of one example.
        levels: Number of integer levels L the data was scaled from (256 for 8-bit images); 1 when it was not scaled.

    Returns:
        Bits per dimension, of the same shape.

    Raises:
        ValueError: If ``dims`` or ``levels`` is less than 1.

    Reference:
        Theis, van den Oord and Bethge, *A note on the evaluation of generative models* (2016), section 3.1.

    Example:
        >>> bits_per_dim(torch.tensor(0.0), dims=784, levels=256)  # the uniform density on [0, 1]^784
        tensor(8.)
    """
    _require_positive(dims=dims, levels=levels)
    return -log_prob / (dims * math.log(2)) + math.log2(levels)


def nats_from_bits_per_dim(bits: Tensor, *, dims: int, levels: int = 1) -> Tensor:
    r"""Invert :func:`bits_per_dim`.

    .. math:: \log p(x) = -(\text{bits/dim} - \log_2 L)\, D \ln 2

    Args:
        bits: Bits per dimension, any shape.
        dims: Number of dimensions D of one example.
        levels: Number of integer levels L the data was scaled from; 1 when it was not scaled.

    Returns:
        Log-densities in nats, of the same shape.

    Raises:
        ValueError: If ``dims`` or ``levels`` is less than 1.

    Example:
        >>> nats_from_bits_per_dim(torch.tensor(8.0), dims=784, levels=256)
        tensor(-0.)
    """
    _require_positive(dims=dims, levels=levels)
    return -(bits - math.log2(levels)) * dims * math.log(2)


def dequantize(x: Tensor, *, levels: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Spread each integer level evenly over its own interval, so that a density on real numbers makes sense.

    .. math:: y = \frac{(L - 1)\, x + u}{L}, \qquad u \sim \mathcal U[0, 1)

    Without the noise a continuous model can put a spike of unbounded density on every level. With it, the model's
    mean log-density plus :math:`D \log L` nats is at most its log-probability of the integers.

    Args:
        x: Data in [0, 1] on the levels 0, 1/(L-1), ..., 1, any shape.
        levels: Number of levels L (256 for 8-bit images, 17 for the digits of scikit-learn).
        generator: Source of the noise; the global random state when omitted.

    Returns:
        Data in [0, 1), of the same shape.

    Raises:
        ValueError: If ``levels`` is less than 1, or ``x`` lies outside [0, 1].

    Reference:
        Theis, van den Oord and Bethge, *A note on the evaluation of generative models* (2016), section 3.1.

    Example:
        >>> y = dequantize(torch.tensor([0.0, 1.0]), levels=2)
        >>> bool(0 <= y[0] < 0.5 <= y[1] < 1)
        True
    """
    _require_positive(levels=levels)
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"expected x in [0, 1], got values from {x.min().item():g} to {x.max().item():g}")
    u = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    # In single precision (L - 1 + u) / L can round up to exactly 1; the largest number below 1 is right then.
    below_one = 1 - torch.finfo(x.dtype).eps / 2
    return (((levels - 1) * x + u) / levels).clamp(max=below_one)


def _require_positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
