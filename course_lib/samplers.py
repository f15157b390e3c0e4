r"""From noise to data, one step at a time; and what can be done to samples afterwards.

All samplers here need one thing only, a *denoiser*: the mean of the clean data given noisy data,

.. math:: \hat x(x_t, t) \approx \mathbb E[x \mid x_t], \qquad x_t = \alpha_t x + \sigma_t \epsilon .

The noise follows, :math:`\hat\epsilon = (x_t - \alpha_t \hat x) / \sigma_t`, and the score,
:math:`\nabla \log p_t = -\hat\epsilon / \sigma_t`. The denoiser is a model's ``denoise``, or :func:`exact_denoiser`
where the density is known: then all the error that is left is the sampler's own.

A sampler is one function that goes from time t to an earlier time s. It has no state, and its noise comes from outside.
:func:`simulate` repeats it along a list of times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.probability import GaussianMixture
from course_lib.schedules import Schedule

__all__ = [
    "acceptance",
    "ddim",
    "ddpm",
    "euler",
    "exact_denoiser",
    "guided",
    "heun",
    "langevin",
    "reject",
    "simulate",
    "tempered",
    "trajectory",
]

Denoiser = Callable[[Tensor, Tensor], Tensor]
r"""Maps noisy data (B, \*event) and one time, shape (), to the mean of the clean data, (B, \*event)."""

Noise = Callable[[Tensor], Tensor]
"""Maps a tensor to noise of its shape, dtype and device, as :func:`torch.randn_like`."""

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
r"""Maps noisy data (B, \*event) at time t to data at time s; called as ``step(x, t, s)``."""


def exact_denoiser(p: GaussianMixture, schedule: Schedule) -> Denoiser:
    r"""The best denoiser there is, for data from a known mixture: :meth:`.GaussianMixture.posterior_mean`.

    Args:
        p: The density of the clean data.
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.

    Returns:
        The denoiser, for points (B, D).

    Example:
        >>> from course_lib.probability import gaussian
        >>> from course_lib.schedules import Straight
        >>> denoise = exact_denoiser(gaussian([0.0], [[1.0]]), Straight())
        >>> x_hat = denoise(torch.tensor([[1.0]]), torch.tensor(0.5))  # half data, half noise, equal variances
        >>> round(x_hat.item(), 4)
        1.0
    """

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha_t, sigma_t = schedule(t)
        return p.posterior_mean(x, alpha_t=alpha_t, sigma_t=sigma_t)

    return denoise


# ------------------------------------------------------------------------------------------------------- the steps


def ddpm(
    x: Tensor, t: Tensor, s: Tensor, *, denoise: Denoiser, schedule: Schedule, noise: Noise = torch.randn_like
) -> Tensor:
    r"""Ancestral sampling: draw :math:`x_s` as if the denoiser's answer were the clean data itself.

    Given both ends, what lies between is exactly normal. With :math:`\alpha_{t|s} = \alpha_t / \alpha_s` and
    :math:`\sigma_{t|s}^2 = \sigma_t^2 - \alpha_{t|s}^2 \sigma_s^2`,

    .. math:: x_s \sim \mathcal N\!\left(
              \frac{\alpha_{t|s} \sigma_s^2}{\sigma_t^2}\, x_t + \frac{\alpha_s \sigma_{t|s}^2}{\sigma_t^2}\, \hat x,\;
              \frac{\sigma_{t|s}^2 \sigma_s^2}{\sigma_t^2}\, I \right).

    Args:
        x: Noisy data at time t, shape (B, \*event).
        t: Time, shape ().
        s: Earlier time, shape (), 0 <= s < t.
        denoise: The denoiser.
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.
        noise: Source of the noise.

    Returns:
        Data at time s, shape (B, \*event).

    Raises:
        ValueError: If s is not before t, a time lies outside [0, 1], or ``x`` is empty.

    Reference:
        Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), equations (6), (7) and Algorithm 2;
        Kingma et al., *Variational Diffusion Models* (2021), appendix A, for any two times.

    Example:
        >>> from course_lib.schedules import Straight
        >>> t, s = torch.tensor([1.0, 0.0])
        >>> ddpm(torch.randn(1, 2), t, s, denoise=lambda x, t: torch.full_like(x, 3.0), schedule=Straight())
        tensor([[3., 3.]])
    """
    _require_backward(t, s)
    x_hat, _ = _split(x, t, denoise=denoise, schedule=schedule)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    alpha_ts = alpha_t / alpha_s
    fresh = (sigma_t**2 - alpha_ts**2 * sigma_s**2).clamp(min=0)  # variance of the noise that came between s and t
    mean = (alpha_ts * sigma_s**2 * x + alpha_s * fresh * x_hat) / sigma_t**2
    return mean + fresh.sqrt() * sigma_s / sigma_t * noise(x)


def ddim(
    x: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    denoise: Denoiser,
    schedule: Schedule,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
) -> Tensor:
    r"""Keep part of the noise that was found and replace the rest: between :func:`euler` and :func:`ddpm`.

    .. math:: x_s = \alpha_s\, \hat x + \sqrt{\sigma_s^2 - \eta^2 \tilde\sigma^2}\; \hat\epsilon
              + \eta\, \tilde\sigma\, \epsilon', \qquad
              \tilde\sigma^2 = \frac{\sigma_s^2}{\sigma_t^2}
              \left(\sigma_t^2 - \frac{\alpha_t^2}{\alpha_s^2}\, \sigma_s^2\right)

    With :math:`\eta = 0` nothing is random: the step is exactly :func:`euler`. With :math:`\eta = 1` it is exactly
    :func:`ddpm`.

    Args:
        x: Noisy data at time t, shape (B, \*event).
        t: Time, shape ().
        s: Earlier time, shape (), 0 <= s < t.
        denoise: The denoiser.
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.
        eta: Share of the noise that is replaced, :math:`0 \le \eta \le 1`.
        noise: Source of the noise.

    Returns:
        Data at time s, shape (B, \*event).

    Raises:
        ValueError: If eta lies outside [0, 1], s is not before t, a time lies outside [0, 1], or ``x`` is empty.

    Reference:
        Song, Meng and Ermon, *Denoising Diffusion Implicit Models* (2021), equations (12) and (16).

    Example:
        >>> from course_lib.schedules import Straight
        >>> t, s = torch.tensor([0.5, 0.25])
        >>> ddim(torch.tensor([[2.0]]), t, s, denoise=lambda x, t: torch.ones_like(x), schedule=Straight())
        tensor([[1.5000]])
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1] (0 = deterministic, 1 = ddpm), got {eta}")
    _require_backward(t, s)
    x_hat, eps = _split(x, t, denoise=denoise, schedule=schedule)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    fresh = sigma_s / sigma_t * (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2).clamp(min=0).sqrt()
    kept = (sigma_s**2 - eta**2 * fresh**2).clamp(min=0).sqrt()
    return alpha_s * x_hat + kept * eps + eta * fresh * noise(x)


def euler(x: Tensor, t: Tensor, s: Tensor, *, denoise: Denoiser, schedule: Schedule) -> Tensor:
    r"""One step of Euler's method on the probability-flow equation, in either direction; error of order 1.

    .. math:: dx_t = \hat x\, d\alpha_t + \hat\epsilon\, d\sigma_t \quad\Rightarrow\quad
              x_s = x_t + (\alpha_s - \alpha_t)\, \hat x + (\sigma_s - \sigma_t)\, \hat\epsilon
              = \alpha_s\, \hat x + \sigma_s\, \hat\epsilon

    Args:
        x: Noisy data at time t, shape (B, \*event).
        t: Time, shape (), with :math:`\sigma_t > 0`.
        s: Time to go to, shape ().
        denoise: The denoiser.
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.

    Returns:
        Data at time s, shape (B, \*event).

    Raises:
        ValueError: If there is no noise at t, a time lies outside [0, 1], or ``x`` is empty.

    Reference:
        Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations* (2021), equation (13);
        Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models* (2022), Algorithm 1.

    Example:
        >>> from course_lib.schedules import Straight
        >>> t, s = torch.tensor([0.5, 0.25])
        >>> euler(torch.tensor([[2.0]]), t, s, denoise=lambda x, t: torch.ones_like(x), schedule=Straight())
        tensor([[1.5000]])
    """
    x_hat, eps = _split(x, t, denoise=denoise, schedule=schedule)
    alpha_s, sigma_s = schedule(s)
    return alpha_s * x_hat + sigma_s * eps


def heun(x: Tensor, t: Tensor, s: Tensor, *, denoise: Denoiser, schedule: Schedule) -> Tensor:
    r"""One step of Heun's method on the probability-flow equation, in either direction; error of order 2.

    Look ahead with :func:`euler`, then step with the mean of what is found at both ends,

    .. math:: x_s = x_t + (\alpha_s - \alpha_t)\, \frac{\hat x_t + \hat x_s}{2}
              + (\sigma_s - \sigma_t)\, \frac{\hat\epsilon_t + \hat\epsilon_s}{2} .

    Where s has no noise left, nothing can be found there, and the step is Euler's.

    Args:
        x: Noisy data at time t, shape (B, \*event).
        t: Time, shape (), with :math:`\sigma_t > 0`.
        s: Time to go to, shape ().
        denoise: The denoiser; it is asked twice.
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.

    Returns:
        Data at time s, shape (B, \*event).

    Raises:
        ValueError: If there is no noise at t, a time lies outside [0, 1], or ``x`` is empty.

    Reference:
        Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models* (2022), Algorithm 1.

    Example:
        >>> from course_lib.schedules import Straight
        >>> t, s = torch.tensor([0.5, 0.25])
        >>> heun(torch.tensor([[2.0]]), t, s, denoise=lambda x, t: torch.ones_like(x), schedule=Straight())
        tensor([[1.5000]])
    """
    x_hat, eps = _split(x, t, denoise=denoise, schedule=schedule)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    ahead = alpha_s * x_hat + sigma_s * eps
    if sigma_s == 0:
        return ahead
    x_hat_s, eps_s = _split(ahead, s, denoise=denoise, schedule=schedule)
    return x + (alpha_s - alpha_t) * (x_hat + x_hat_s) / 2 + (sigma_s - sigma_t) * (eps + eps_s) / 2


def langevin(
    x: Tensor,
    *,
    score: Callable[[Tensor], Tensor],
    step_size: float,
    temperature: float = 1.0,
    noise: Noise = torch.randn_like,
) -> Tensor:
    r"""One step of Langevin dynamics: uphill in density, and a push at random.

    .. math:: x' = x + h\, \nabla \log p(x) + \sqrt{2 h T}\; \epsilon

    Repeated with small steps, it samples :math:`p^{1/T}`, up to a bias of order h. In the language of energies,
    :math:`E = -\log p`, it is gradient descent on E, disturbed by noise. It moves between modes only as fast as noise
    carries it across the valley between them.

    Args:
        x: Points, shape (B, \*event).
        score: Maps points to :math:`\nabla \log p`, of the same shape.
        step_size: h > 0.
        temperature: :math:`T \ge 0`; 0 climbs to the modes.
        noise: Source of the noise.

    Returns:
        Points, shape (B, \*event).

    Raises:
        ValueError: If the step size is not positive, the temperature negative, or the score of another shape.

    Reference:
        Welling and Teh, *Bayesian Learning via Stochastic Gradient Langevin Dynamics* (2011), equation (4) without
        subsampling; Song and Ermon, *Generative Modeling by Estimating Gradients of the Data Distribution* (2019).

    Example:
        >>> langevin(torch.ones(1, 2), score=lambda x: -x, step_size=0.1, temperature=0.0)
        tensor([[0.9000, 0.9000]])
    """
    if not step_size > 0 or not temperature >= 0:
        raise ValueError(
            f"expected a positive step_size and a temperature of at least 0, got {step_size} and {temperature}"
        )
    uphill = score(x)
    if uphill.shape != x.shape:
        raise ValueError(f"expected a score of the shape of x, {tuple(x.shape)}, got {tuple(uphill.shape)}")
    return x + step_size * uphill + math.sqrt(2 * step_size * temperature) * noise(x)


# ---------------------------------------------------------------------------------------------------- around a step


@torch.no_grad()
def trajectory(step: Step, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    r"""The points at every time, one after the other: those given, then one result for each step.

    Args:
        step: Called as ``step(x, t, s)``: one of the samplers, with the rest of its arguments filled in.
        x: Points at the first time, shape (B, \*event).
        times: At least two times in [0, 1], shape (steps + 1,).

    Yields:
        Points at each of the times, shape (B, \*event).

    Raises:
        ValueError: If there are fewer than two times, or they are not a row of numbers in [0, 1].

    Example:
        >>> [x.item() for x in trajectory(lambda x, t, s: x + t - s, torch.zeros(1), torch.tensor([1.0, 0.5, 0.0]))]
        [0.0, 0.5, 1.0]
    """
    if times.ndim != 1 or len(times) < 2 or not ((times >= 0) & (times <= 1)).all():
        raise ValueError(f"expected two or more times in [0, 1], in one row, got {times.tolist()}")
    yield x
    for t, s in pairwise(times):
        x = step(x, t, s)
        yield x


def simulate(step: Step, x: Tensor, times: Tensor) -> Tensor:
    r"""The points at the last time; see :func:`trajectory`.

    Args:
        step: Called as ``step(x, t, s)``.
        x: Points at the first time, shape (B, \*event).
        times: At least two times in [0, 1], shape (steps + 1,).

    Returns:
        Points at the last time, shape (B, \*event).

    Raises:
        ValueError: If there are fewer than two times, or they are not a row of numbers in [0, 1].

    Example:
        >>> from functools import partial
        >>> from course_lib.probability import two_clusters
        >>> from course_lib.schedules import Straight
        >>> denoise = exact_denoiser(two_clusters(std=0.1), Straight())
        >>> step = partial(ddim, denoise=denoise, schedule=Straight())
        >>> x = simulate(step, torch.randn(100, 2), torch.linspace(1, 0, 21))
        >>> bool(((x.abs() - 2).abs() < 1).all())  # near (2, 2) or (-2, -2)
        True
    """
    for last in trajectory(step, x, times):  # noqa: B007
        pass
    return last


def guided(denoise: Callable[[Tensor, Tensor, Tensor | None], Tensor], c: Tensor, *, scale: float) -> Denoiser:
    r"""Classifier-free guidance: exaggerate what the class says.

    .. math:: \hat x_w = \hat x(x_t, t) + w \left[ \hat x(x_t, t, c) - \hat x(x_t, t) \right]

    w = 0 ignores the class, w = 1 is the conditional model, w > 1 exaggerates, and leaves the model's own density for
    no other: quality rises, diversity falls. Some texts count from the conditional model: their w is ours minus 1. The
    weights add up to 1, so guiding the noise, v or the score is the same thing.

    Args:
        denoise: Called as ``denoise(x, t, c)``; with c None, it must answer for all classes together.
        c: Classes, shape (B,).
        scale: w.

    Returns:
        The guided denoiser.

    Raises:
        ValueError: If w is negative.

    Reference:
        Ho and Salimans, *Classifier-Free Diffusion Guidance* (2021), equation (6), with their w equal to ours minus 1.

    Example:
        >>> answer = lambda x, t, c: x if c is None else x + c[:, None]
        >>> guided(answer, torch.tensor([1.0]), scale=3.0)(torch.zeros(1, 2), torch.tensor(0.5))
        tensor([[3., 3.]])
    """
    if not scale >= 0:
        raise ValueError(f"the scale of guidance is at least 0 (0 = no class, 1 = the class as it is), got {scale}")

    def denoise_guided(x: Tensor, t: Tensor) -> Tensor:
        x_hat = denoise(x, t, None)
        return x_hat + scale * (denoise(x, t, c) - x_hat)

    return denoise_guided


def tempered(temperature: float) -> Noise:
    r"""Noise with its standard deviation multiplied by a temperature, for the samplers' ``noise``.

    Below 1, samples crowd where the density is high. What comes out is not :math:`p^{1/T}`, except with
    :func:`langevin`, which has a temperature of its own: at every step the denoiser still expects noise of size 1.

    Args:
        temperature: At least 0.

    Returns:
        The source of noise.

    Raises:
        ValueError: If the temperature is negative.

    Example:
        >>> round(tempered(0.5)(torch.ones(10_000)).std().item(), 1)
        0.5
    """
    if not temperature >= 0:
        raise ValueError(f"the temperature must be at least 0, got {temperature}")
    return lambda x: temperature * torch.randn_like(x)


# ------------------------------------------------------------------------------------- rejection by a discriminator


def acceptance(logits: Tensor, *, highest: float | Tensor, shift: float = 0.0) -> Tensor:
    r"""How likely a sample is kept, by the logit of a discriminator.

    A perfect discriminator's logit is :math:`a(x) = \log p(x) - \log q(x)`, with q the density of the samples. With M
    the highest logit of all, keeping each x with probability :math:`p(x) / (e^M q(x)) = e^{a(x) - M}` leaves samples
    of exactly p. That is seldom: a share of :math:`e^{-M}`. A shift :math:`\gamma` trades exactness for samples,

    .. math:: P = \sigma\!\left(a - M - \log\left(1 - e^{a - M}\right) - \gamma\right)
              = \frac{e^{a - M}}{e^{a - M} + e^\gamma \left(1 - e^{a - M}\right)},

    exact at 0, generous below, severe above.

    Args:
        logits: :math:`a(x)`, shape (B,).
        highest: M; logits above it count as M.
        shift: :math:`\gamma`.

    Returns:
        Probabilities, shape (B,).

    Raises:
        ValueError: If the logits are not of shape (B,).

    Reference:
        Azadi et al., *Discriminator Rejection Sampling* (2019), equations (6) and (8).

    Example:
        >>> acceptance(torch.tensor([0.0, 1.0]).log(), highest=math.log(2.0))
        tensor([0.0000, 0.5000])
    """
    if logits.ndim != 1:
        raise ValueError(f"expected one logit for each sample, shape (B,), got {tuple(logits.shape)}")
    below = (logits - highest).clamp(max=0)
    return torch.sigmoid(below - (-below.expm1()).log() - shift)


@torch.no_grad()
def reject(
    sample: Callable[[int], Tensor],
    logit: Callable[[Tensor], Tensor],
    n: int,
    *,
    highest: float,
    shift: float = 0.0,
    most: int = 1000,
) -> Tensor:
    r"""Draw samples and keep those that a discriminator believes in, until there are n; see :func:`acceptance`.

    Args:
        sample: Maps a number n to n samples, shape (n, \*event).
        logit: Maps samples to the discriminator's logits, shape (n,).
        n: Number of samples to keep.
        highest: The highest logit M; look for it among many samples first.
        shift: :math:`\gamma`.
        most: Gives up after this many proposals for each sample wanted.

    Returns:
        Samples, shape (n, \*event).

    Raises:
        RuntimeError: If too few are accepted.

    Reference:
        Azadi et al., *Discriminator Rejection Sampling* (2019), Algorithm 1.

    Example:
        >>> always_right = lambda x: torch.where(x[:, 0] > 0, 0.0, -torch.inf)  # p is q, cut at 0
        >>> bool((reject(lambda n: torch.randn(n, 1), always_right, 50, highest=0.0) > 0).all())
        True
    """
    kept: list[Tensor] = []
    proposed = accepted = 0
    while accepted < n:
        if proposed >= most * n:
            raise RuntimeError(
                f"only {accepted} of {proposed} proposals were accepted, {n} are needed: lower the shift"
            )
        x = sample(max(n, 100))
        keep = torch.rand(len(x), device=x.device) < acceptance(logit(x), highest=highest, shift=shift)
        kept.append(x[keep])
        proposed, accepted = proposed + len(x), accepted + int(keep.sum())
    return torch.cat(kept)[:n] if kept else sample(0)


def _split(x: Tensor, t: Tensor, *, denoise: Denoiser, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """What the denoiser takes for data, and what for noise."""
    if not len(x):
        raise ValueError(f"there are no points: expected x of at least one row, got shape {tuple(x.shape)}")
    if t.ndim:
        raise ValueError(f"expected a single time, of shape (), got shape {tuple(t.shape)}")
    alpha_t, sigma_t = schedule(t)
    if not sigma_t > 0:
        raise ValueError(f"there is no noise at t = {t:g}: start from a time with sigma_t > 0")
    x_hat = denoise(x, t)
    if (x_hat.shape, x_hat.dtype) != (x.shape, x.dtype):
        raise ValueError(
            f"x is {x.dtype} of shape {tuple(x.shape)}, but the denoiser gave {x_hat.dtype} of {tuple(x_hat.shape)}"
        )
    return x_hat, (x - alpha_t * x_hat) / sigma_t


def _require_backward(t: Tensor, s: Tensor) -> None:
    if not s < t:
        raise ValueError(f"this sampler goes back in time: expected s < t, got t = {t:g} and s = {s:g}")
