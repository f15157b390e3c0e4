r"""Normalizing flows: invertible maps that carry data to a density we know.

Every map here goes from data to latent, :math:`z = f(x)`, and reports how much it stretches space:

.. math:: \log p(x) = \log p_Z(f(x)) + \log \left| \det \frac{\partial f(x)}{\partial x} \right| .

Maps compose: latents are passed on, log-determinants add up. A sample is the way back, :math:`x = f^{-1}(z)` with
:math:`z \sim p_Z`. A determinant costs :math:`O(D^3)` in general, so maps are built to make it cheap: the Jacobians of
coupling layers and of masked ones are triangular. In between go the maps of :mod:`course_lib.models.flow_layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.nn import MLP, AffineBijection, MaskedMLP, SplineBijection
from course_lib.probability import normal_log_prob

__all__ = ["Coupling", "Flow", "Masked", "StandardNormal"]


class StandardNormal(nn.Module):
    r"""The base density :math:`\mathcal N(0, I)` in ``dim`` dimensions; it follows its flow to any device and dtype."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, (B, D) -> (B,)."""
        return normal_log_prob(z, self.zero, self.zero)

    def sample(self, n: int) -> Tensor:
        """Draw ``n`` points, shape (n, D)."""
        return torch.randn(n, self.dim, dtype=self.zero.dtype, device=self.zero.device)


class Flow(nn.Module):
    r"""Transforms one after the other, from data to a base density.

    .. math:: \log p(x) = \log p_Z(z_m) + \sum_{k=1}^m \log \left|\det \frac{\partial z_k}{\partial z_{k-1}}\right|,
              \qquad z_0 = x, \quad z_k = f_k(z_{k-1})

    Args:
        transforms: Each maps (B, D) to (z, log_det) of shapes (B, D) and (B,), and has ``inverse``.
        base: Density of the latents, with ``dim``, ``log_prob`` and ``sample``: :class:`StandardNormal`, or any other.

    Reference:
        Rezende and Mohamed, *Variational Inference with Normalizing Flows* (2015), equation (7).

    Example:
        >>> flow = Flow([Masked(2, AffineBijection()), Coupling(2, SplineBijection())], StandardNormal(2))
        >>> x = torch.randn(100, 2)
        >>> bool((flow.inverse(flow(x)[0]) - x).abs().max() < 1e-4)
        True
    """

    def __init__(self, transforms: Sequence[nn.Module], base: nn.Module) -> None:
        super().__init__()
        self.transforms, self.base = nn.ModuleList(transforms), base

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants, (B, D) -> (B, D), (B,)."""
        z, log_det = self._checked(x), x.new_zeros(len(x))
        for transform in self.transforms:
            z, term = transform(z)
            log_det = log_det + term
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents, (B, D) -> (B, D)."""
        x = self._checked(z)
        for transform in reversed(self.transforms):
            x = transform.inverse(x)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats, (B, D) -> (B,)."""
        z, log_det = self(x)
        return self.base.log_prob(z) + log_det

    def loss(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of the batch in nats, a scalar."""
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0) -> Tensor:
        """Draw ``n`` samples, shape (n, D); the temperature scales the latents, and only at 1 do samples follow p."""
        return self.inverse(temperature * self.base.sample(n))

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.base.dim:
            raise ValueError(f"expected a tensor of shape (B, {self.base.dim}), got {tuple(x.shape)}")
        return x


class Coupling(nn.Module):
    r"""Keep the first half of the dimensions, and let it say how each of the others is transformed.

    .. math:: z_a = x_a, \qquad z_{b,i} = g(x_{b,i};\ \theta_i(x_a)), \qquad
              \log |\det| = \sum_i \log |g'(x_{b,i};\ \theta_i(x_a))|

    Both ways take one pass. With an affine g this is RealNVP, with a spline a neural spline flow.

    Args:
        dim: Number of dimensions D; the first :math:`\lfloor D/2 \rfloor` are kept.
        bijection: The family g, :class:`course_lib.nn.AffineBijection` or :class:`course_lib.nn.SplineBijection`.
        hidden: Sizes of the hidden layers of the network :math:`\theta`.

    Raises:
        ValueError: If ``dim`` is less than 2: one dimension cannot be split.

    Reference:
        Dinh, Sohl-Dickstein and Bengio, *Density estimation using Real NVP* (2017), equations (4) to (8).

    Example:
        >>> z, log_det = Coupling(3, AffineBijection())(torch.ones(5, 3))
        >>> z.shape, log_det.shape, z[0, 0].item()
        (torch.Size([5, 3]), torch.Size([5]), 1.0)
    """

    def __init__(
        self, dim: int, bijection: AffineBijection | SplineBijection, *, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"a coupling layer splits the dimensions in two and needs dim >= 2, got dim {dim}")
        self.kept, self.bijection = dim // 2, bijection
        outputs = (dim - self.kept, bijection.parameters_per_number)
        self.network = nn.Sequential(MLP(self.kept, outputs[0] * outputs[1], hidden=hidden), nn.Unflatten(1, outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants, (B, D) -> (B, D), (B,)."""
        x_a, x_b = x[:, : self.kept], x[:, self.kept :]
        z_b, log_slopes = self.bijection(x_b, self.network(x_a))
        return torch.cat([x_a, z_b], dim=1), log_slopes.sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents, (B, D) -> (B, D)."""
        z_a, z_b = z[:, : self.kept], z[:, self.kept :]
        return torch.cat([z_a, self.bijection.inverse(z_b, self.network(z_a))], dim=1)


class Masked(nn.Module):
    r"""Transform every dimension as those before it say: a masked autoregressive flow.

    .. math:: z_i = g(x_i;\ \theta_i(x_{<i})), \qquad \log |\det| = \sum_i \log |g'(x_i;\ \theta_i(x_{<i}))|

    Data to latent takes one pass of the network, the way back D passes: fast densities, slow samples.

    Args:
        dim: Number of dimensions D.
        bijection: The family g, :class:`course_lib.nn.AffineBijection` or :class:`course_lib.nn.SplineBijection`.
        hidden: Sizes of the hidden layers of the masked network :math:`\theta`.

    Reference:
        Papamakarios, Pavlakou and Murray, *Masked Autoregressive Flow for Density Estimation* (2017), section 3.1.

    Example:
        >>> x = torch.randn(1, 3)
        >>> jacobian = torch.autograd.functional.jacobian(lambda x: Masked(3, AffineBijection())(x)[0], x)[0, :, 0]
        >>> bool((jacobian.triu(1) == 0).all())
        True
    """

    def __init__(
        self, dim: int, bijection: AffineBijection | SplineBijection, *, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        self.bijection = bijection
        self.network = MaskedMLP(dim, bijection.parameters_per_number, hidden=hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants, (B, D) -> (B, D), (B,)."""
        z, log_slopes = self.bijection(x, self.network(x))
        return z, log_slopes.sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents, (B, D) -> (B, D), one dimension after the other."""
        x = torch.zeros_like(z)
        for i in range(z.shape[1]):
            x_i = self.bijection.inverse(z[:, i], self.network(x)[:, i])
            x = torch.cat([x[:, :i], x_i[:, None], x[:, i + 1 :]], dim=1)
        return x
