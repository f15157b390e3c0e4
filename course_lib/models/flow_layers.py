r"""Transforms for flows that need no network: reorder, rescale, mix, and push along one direction.

Like every transform they go from data to latent, ``f(x) -> (z, log_det)``, and come back by ``inverse(z)``. Put them
between the layers of :mod:`course_lib.models.flow`: a coupling layer keeps half of the dimensions as they are, so
something has to change which half that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ActNorm", "LinearLU", "Permutation", "Planar"]


class Permutation(nn.Module):
    r"""Reorder the dimensions, :math:`z_i = x_{\text{order}(i)}`; volumes stay as they are.

    Args:
        order: The order, each of 0 to D - 1 once.

    Raises:
        ValueError: If ``order`` is not a permutation.

    Example:
        >>> Permutation([2, 0, 1])(torch.tensor([[5.0, 6.0, 7.0]]))[0]
        tensor([[7., 5., 6.]])
    """

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"expected each of 0 to {len(order) - 1} once, got {list(order)}")
        self.register_buffer("order", torch.as_tensor(order))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants of zero, (B, D) -> (B, D), (B,)."""
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents, (B, D) -> (B, D)."""
        return z[:, self.order.argsort()]


class ActNorm(nn.Module):
    r"""Shift and stretch every dimension; the first batch in training sets mean 0 and standard deviation 1.

    .. math:: z = (x - m)\, e^{s}, \qquad \log |\det| = \sum_i s_i

    After that m and s are ordinary parameters. Whether the first batch was seen is a buffer, so it is saved in
    checkpoints. Show the flow a batch *before* you make an EMA of it, else the average starts at m = s = 0.

    Args:
        dim: Number of dimensions D.

    Raises:
        ValueError: In the first forward pass, if the batch has fewer than two rows, or a value that is not finite.

    Reference:
        Kingma and Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions* (2018), section 3.1.

    Example:
        >>> z, _ = ActNorm(2)(5 + 3 * torch.randn(100, 2))
        >>> bool((z.std(0) - 1).abs().max() < 1e-4)
        True
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.m, self.s = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("seen", torch.tensor(False))
        self._ready = False  # spares a GPU from being asked for ``seen`` at every step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants, (B, D) -> (B, D), (B,)."""
        if self.training and not self._ready:
            self._initialize(x.detach())
        return (x - self.m) * self.s.exp(), self.s.sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents, (B, D) -> (B, D)."""
        return z * (-self.s).exp() + self.m

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        if not self.seen:  # else the training that wrote the checkpoint has set the scale
            self._set_scale(x)
        self._ready = True

    def _set_scale(self, x: Tensor) -> None:
        if len(x) < 2 or not x.isfinite().all():
            raise ValueError(f"the first batch sets the scale: expected 2 or more finite rows, got {tuple(x.shape)}")
        self.m.copy_(x.mean(0))
        self.s.copy_(-x.std(0).clamp(min=1e-6).log())
        self.seen.fill_(True)


class LinearLU(nn.Module):
    r"""Mix all dimensions by a matrix that is kept in factors, so that its determinant can be read off.

    .. math:: z = L U x, \qquad \log |\det| = \sum_i s_i

    L is lower triangular with ones on its diagonal, U upper triangular with :math:`e^{s_i}` on its. The map starts as
    the identity.

    Args:
        dim: Number of dimensions D.

    Reference:
        Kingma and Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions* (2018), section 3.2.

    Example:
        >>> LinearLU(2)(torch.tensor([[1.0, 2.0]]))
        (tensor([[1., 2.]], ...), tensor([0.], ...))
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lower, self.upper = nn.Parameter(torch.zeros(dim, dim)), nn.Parameter(torch.zeros(dim, dim))
        self.s = nn.Parameter(torch.zeros(dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, each (D, D)."""
        return self.lower.tril(-1) + torch.eye(len(self.s)).to(self.s), self.upper.triu(1) + self.s.exp().diag()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants, (B, D) -> (B, D), (B,)."""
        lower, upper = self.factors()
        return x @ upper.T @ lower.T, self.s.sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents, (B, D) -> (B, D)."""
        lower, upper = self.factors()
        y = torch.linalg.solve_triangular(lower, z.T, upper=False, unitriangular=True)  # (D, B)
        return torch.linalg.solve_triangular(upper, y, upper=True).T


class Planar(nn.Module):
    r"""Push space along one direction, by an amount that depends on the distance to a plane.

    .. math:: z = x + \hat u \tanh(w \cdot x + b), \qquad
              \det = 1 + \hat u \cdot w \left[1 - \tanh^2(w \cdot x + b)\right]

    :math:`\hat u = u + \left[\operatorname{softplus}(w \cdot u) - 1 - w \cdot u\right] w / \|w\|^2` has
    :math:`w \cdot \hat u > -1`, which makes the map invertible. The inverse has no formula, but it is a search in one
    dimension: :math:`a = w \cdot x` solves :math:`a + w \cdot \hat u \tanh(a + b) = w \cdot z`, and the left side
    rises with a.

    Args:
        dim: Number of dimensions D.

    Reference:
        Rezende and Mohamed, *Variational Inference with Normalizing Flows* (2015), section 4.1 and appendix A.1.

    Example:
        >>> planar = Planar(2)
        >>> x = torch.randn(5, 2)
        >>> bool((planar.inverse(planar(x)[0]) - x).abs().max() < 1e-5)
        True
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w, self.u = nn.Parameter(torch.randn(dim) / dim**0.5), nn.Parameter(torch.randn(dim) / dim**0.5)
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log-determinants, (B, D) -> (B, D), (B,)."""
        u, push = self._u_hat(), (x @ self.w + self.b).tanh()  # (D,), (B,)
        return x + push[:, None] * u, (u @ self.w * (1 - push**2)).log1p()

    def inverse(self, z: Tensor) -> Tensor:
        """Data from latents by bisection, (B, D) -> (B, D)."""
        u = self._u_hat()
        target, strength = z @ self.w, u @ self.w
        low, high = target - strength.abs(), target + strength.abs()  # tanh lies between -1 and 1
        for _ in range(60):  # halves the interval to the precision of float64
            middle = (low + high) / 2
            below = middle + strength * (middle + self.b).tanh() < target
            low, high = middle.where(below, low), high.where(below, middle)
        return z - (low + self.b).tanh()[:, None] * u

    def _u_hat(self) -> Tensor:
        dot = self.w @ self.u
        return self.u + (F.softplus(dot) - 1 - dot) * self.w / self.w.square().sum()
