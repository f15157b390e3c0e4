r"""Noise schedules: how much of the data, and how much noise, there is at time t.

Every process of this course, diffusion and flow matching alike, mixes data x with noise :math:`\epsilon`:

.. math:: x_t = \alpha_t\, x + \sigma_t\, \epsilon, \qquad \epsilon \sim \mathcal N(0, I), \qquad
          0 \le t \le 1, \quad t = 0 \text{ data}, \quad t = 1 \text{ noise}.

A *schedule* is any function that maps t to :math:`(\alpha_t, \sigma_t)`. What matters about it is how fast the
signal-to-noise ratio :math:`\alpha_t^2 / \sigma_t^2` falls: two schedules that keep :math:`\alpha^2 + \sigma^2 = 1`
visit the same noisy densities, only at other times.

DDPM counts steps :math:`i = 1, \dots, T` instead. Each keeps a share :math:`1 - \beta_i` of the variance, so

.. math:: \alpha_{i/T}^2 = \bar\alpha_i = \prod_{j=1}^i (1 - \beta_j), \qquad t = i / T .

Betas belong to their T. With T = 1000, DDPM's leave :math:`\bar\alpha_T = 4 \cdot 10^{-5}` of the data's variance; the
same range of betas with T = 100 leaves 0.36, and a sampler that starts from pure noise starts in the wrong place. As
:math:`-\log \bar\alpha_T \approx T \bar\beta`, betas must grow like 1/T: that is what :func:`linear_betas` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Cosine",
    "FromBetas",
    "LinearBeta",
    "LinearLogSNR",
    "Schedule",
    "Straight",
    "linear_betas",
    "log_snr",
    "power_clock",
]

Schedule = Callable[[Tensor], tuple[Tensor, Tensor]]
r"""Maps times t in [0, 1], of any shape, to :math:`(\alpha_t, \sigma_t)` of the same shape."""


class LinearBeta:
    r"""Variance-preserving, with a noise rate that grows linearly: DDPM's schedule for infinitely many steps.

    .. math:: \beta(t) = \beta_0 + (\beta_1 - \beta_0)\, t, \qquad
              \alpha_t^2 = e^{-\int_0^t \beta(s) ds} = e^{-\beta_0 t - (\beta_1 - \beta_0) t^2 / 2}, \qquad
              \sigma_t^2 = 1 - \alpha_t^2

    Args:
        beta_0: Rate at t = 0; DDPM's first beta times T = 1000.
        beta_1: Rate at t = 1; DDPM's last beta times T = 1000.

    Raises:
        ValueError: If a rate is negative, or ``beta_1`` is zero.

    Reference:
        Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations* (2021), equation (33).

    Example:
        >>> alpha_t, sigma_t = LinearBeta()(torch.tensor([0.0, 1.0]))
        >>> alpha_t**2, sigma_t
        (tensor([1.0000e+00, 4.3186e-05]), tensor([0.0000, 1.0000]))
    """

    def __init__(self, *, beta_0: float = 0.1, beta_1: float = 20.0) -> None:
        if not (beta_0 >= 0 and beta_1 > 0):
            raise ValueError(f"expected beta_0 >= 0 and beta_1 > 0, got {beta_0} and {beta_1}")
        self.beta_0, self.beta_1 = beta_0, beta_1

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`, of the shape of ``t``."""
        t = _checked(t)
        return _variance_preserving(-(self.beta_0 * t + (self.beta_1 - self.beta_0) * t**2 / 2) / 2)


class Cosine:
    r"""Variance-preserving, with a signal that falls like a cosine: slower at both ends than :class:`LinearBeta`.

    .. math:: \alpha_t = \frac{\cos \theta_t}{\cos \theta_0}, \qquad
              \theta_t = \frac\pi2 \cdot \frac{t + s}{1 + s}, \qquad \sigma_t^2 = 1 - \alpha_t^2

    At t = 1 nothing is left of the data. There the noise alone says nothing about x: predict v or x, not the noise.

    Args:
        offset: s, which keeps the first steps from being too small to learn from.

    Raises:
        ValueError: If the offset is not positive.

    Reference:
        Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic Models* (2021), equation (17).

    Example:
        >>> alpha_t, sigma_t = Cosine()(torch.tensor([0.0, 0.5]))
        >>> alpha_t**2, sigma_t**2
        (tensor([1.0000, 0.4938]), tensor([0.0000, 0.5062]))
    """

    def __init__(self, *, offset: float = 0.008) -> None:
        if not offset > 0:
            raise ValueError(f"offset must be positive, got {offset}")
        self.offset = offset

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`, of the shape of ``t``."""
        turned = math.pi / 2 * _checked(t) / (1 + self.offset)  # theta_t - theta_0
        start = math.pi / 2 * self.offset / (1 + self.offset)  # theta_0
        alpha_t = (turned + start).cos().clamp(min=0) / math.cos(start)
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a): 1 - alpha^2 would lose all its digits near t = 0
        sigma_t = (turned.sin() * (turned + 2 * start).sin()).sqrt() / math.cos(start)
        return alpha_t, sigma_t


class LinearLogSNR:
    r"""Variance-preserving, with a logarithm of the signal-to-noise ratio that falls linearly.

    .. math:: \lambda_t = \log \frac{\alpha_t^2}{\sigma_t^2} = (1 - t)\, \lambda_0 + t\, \lambda_1, \qquad
              \alpha_t^2 = \frac{1}{1 + e^{-\lambda_t}}, \qquad \sigma_t^2 = \frac{1}{1 + e^{\lambda_t}}

    Times drawn evenly give every order of magnitude of the noise the same attention, which data with fine structure
    needs. A little noise, :math:`e^{-\lambda_0 / 2}`, is there from the start.

    Args:
        start: :math:`\lambda_0`, at the data.
        end: :math:`\lambda_1`, at the noise.

    Raises:
        ValueError: If the ratio does not fall.

    Reference:
        Kingma et al., *Variational Diffusion Models* (2021), section 3.2, where the ratio is learned, starting from
        this line.

    Example:
        >>> LinearLogSNR(start=8.0, end=-8.0)(torch.tensor([0.0, 0.5, 1.0]))
        (tensor([0.9998, 0.7071, 0.0183]), tensor([0.0183, 0.7071, 0.9998]))
    """

    def __init__(self, *, start: float = 14.0, end: float = -10.0) -> None:
        if not start > end:
            raise ValueError(f"the signal-to-noise ratio must fall from start to end, got {start} and {end}")
        self.start, self.end = start, end

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`, of the shape of ``t``."""
        log_ratio = self.start + (self.end - self.start) * _checked(t)
        return log_ratio.sigmoid().sqrt(), (-log_ratio).sigmoid().sqrt()


class Straight:
    r"""The straight path of flow matching: data and noise are joined by a line, run through at constant speed.

    .. math:: \alpha_t = 1 - t, \qquad \sigma_t = t, \qquad \frac{d x_t}{dt} = \epsilon - x

    Reference:
        Lipman et al., *Flow Matching for Generative Modeling* (2023), equation (22) with :math:`\sigma_{\min} = 0` and
        time reversed; Liu, Gong and Liu, *Flow Straight and Fast* (2023).

    Example:
        >>> Straight()(torch.tensor(0.25))
        (tensor(0.7500), tensor(0.2500))
    """

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`, of the shape of ``t``."""
        return 1 - _checked(t), t


class FromBetas:
    r"""DDPM's discrete schedule: exactly its :math:`\bar\alpha_i` at the times i/T.

    .. math:: \alpha_{i/T}^2 = \bar\alpha_i = \prod_{j=1}^i (1 - \beta_j), \qquad i = 0, \dots, T

    Between these times :math:`\log \alpha_t` is interpolated linearly, as if the noise came at a constant rate.

    Args:
        betas: :math:`\beta_1, \dots, \beta_T`, shape (T,), each in (0, 1).

    Raises:
        ValueError: If there are no betas, or one lies outside (0, 1).

    Reference:
        Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), equation (4).

    Example:
        >>> alpha_t, _ = FromBetas(torch.tensor([0.5, 0.5]))(torch.tensor([0.0, 0.5, 1.0]))
        >>> alpha_t**2
        tensor([1.0000, 0.5000, 0.2500])
    """

    def __init__(self, betas: Tensor) -> None:
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                f"expected betas of shape (T,) between 0 and 1, got shape {tuple(betas.shape)}"
                + (f" and values from {betas.min():g} to {betas.max():g}" if betas.numel() else "")
            )
        self.steps = len(betas)
        self._log_alpha = F.pad(torch.log1p(-betas.double()).cumsum(0) / 2, (1, 0))  # (T + 1,), at 0, 1/T, ..., 1

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`, of the shape of ``t``."""
        position = _checked(t).double() * self.steps
        below = position.long().clamp(max=self.steps - 1)
        table = self._log_alpha.to(t.device)
        log_alpha = torch.lerp(table[below], table[below + 1], position - below)
        alpha_t, sigma_t = _variance_preserving(log_alpha)
        return alpha_t.to(t.dtype), sigma_t.to(t.dtype)


def linear_betas(steps: int) -> Tensor:
    r"""DDPM's betas, evenly spaced, scaled to the number of steps.

    .. math:: \beta_i = \frac1T \left[ 0.1 + 19.9\, \frac{i - 1}{T - 1} \right]

    With T = 1000 these are DDPM's own, from 0.0001 to 0.02.

    Args:
        steps: Number of steps T, at least 21.

    Returns:
        The betas, shape (T,), in double precision.

    Raises:
        ValueError: If ``steps`` is less than 21, where the last beta would reach 1.

    Reference:
        Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), section 4; the scaling is that of Song
        et al. (2021), appendix B.

    Example:
        >>> [f"{FromBetas(betas)(torch.tensor(1.0))[0].item() ** 2:.1e}" for betas in (
        ...     linear_betas(1000), linear_betas(100), torch.linspace(1e-4, 0.02, 100))]
        ['4.0e-05', '2.0e-05', '3.6e-01']
    """
    if steps <= 20:
        raise ValueError(
            f"linear betas need more than 20 steps to stay below 1, got {steps}: "
            "LinearBeta() is their limit, and can be visited in any number of steps"
        )
    return torch.linspace(0.1, 20.0, steps, dtype=torch.float64) / steps


def log_snr(schedule: Schedule, t: Tensor) -> Tensor:
    r"""Logarithm of the signal-to-noise ratio, :math:`\lambda_t = \log (\alpha_t^2 / \sigma_t^2)`.

    Args:
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.
        t: Times in [0, 1], any shape.

    Returns:
        Of the shape of ``t``; infinite where there is no noise, minus infinite where there is no signal.

    Reference:
        Kingma et al., *Variational Diffusion Models* (2021), equation (2).

    Example:
        >>> log_snr(Straight(), torch.tensor([0.0, 0.5, 1.0]))
        tensor([inf, 0., -inf])
    """
    alpha_t, sigma_t = schedule(t)
    return 2 * (alpha_t.log() - sigma_t.log())


def power_clock(u: Tensor, *, exponent: float = 1.0, low: float = 1e-3, high: float = 1.0) -> Tensor:
    r"""Spread times between ``low`` and ``high``, the denser near ``low`` the larger the exponent.

    .. math:: t(u) = \left[ (1 - u)\, t_{\text{low}}^{1/\rho} + u\, t_{\text{high}}^{1/\rho} \right]^\rho

    With u drawn evenly from [0, 1] these are times to train at, with evenly spaced u times to sample at.

    Args:
        u: Numbers in [0, 1], any shape.
        exponent: :math:`\rho \ge 1`; 1 spreads the times evenly.
        low: First time. Above 0, since without any noise there is nothing to predict.
        high: Last time.

    Returns:
        Times, of the shape of ``u``.

    Raises:
        ValueError: Unless 0 < low < high <= 1 and the exponent is positive.

    Reference:
        Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models* (2022), equation (5).

    Example:
        >>> power_clock(torch.tensor([0.0, 0.5, 1.0]), exponent=2, low=0.01)
        tensor([0.0100, 0.3025, 1.0000])
    """
    if not (0 < low < high <= 1 and exponent > 0):
        raise ValueError(
            f"expected 0 < low < high <= 1 and a positive exponent, got low {low}, high {high}, exponent {exponent}"
        )
    first, last = low ** (1 / exponent), high ** (1 / exponent)
    return (first + u * (last - first)).clamp(first, last) ** exponent


def _variance_preserving(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    return log_alpha.exp(), (-(2 * log_alpha).expm1()).sqrt()  # sigma^2 = 1 - alpha^2, without cancellation


def _checked(t: Tensor) -> Tensor:
    if not t.is_floating_point():
        raise ValueError(f"times are real numbers in [0, 1], got a tensor of {t.dtype}; DDPM's step i of T is t = i/T")
    # On a GPU a look at the values would make every training step wait.
    if t.device.type == "cpu" and t.numel() and not (t.min() >= 0 and t.max() <= 1):
        raise ValueError(f"expected t in [0, 1] (0 = data, 1 = noise), got {t.min().item():g} to {t.max().item():g}")
    return t
