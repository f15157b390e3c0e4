"""Bijections of one number, the bricks of coupling layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["AffineBijection", "SplineBijection"]


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
