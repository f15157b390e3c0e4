r"""Diffusion and flow matching: learn to take noise away, then start from nothing but noise.

Data is mixed with noise, :math:`x_t = \alpha_t x + \sigma_t \epsilon`, from t = 0 (data) to t = 1 (noise). A network is
asked for what was mixed, and squared error teaches it the mean answer,

.. math:: \hat x(x_t, t) \approx \mathbb E[x \mid x_t], \qquad
          \hat\epsilon(x_t, t) = \frac{x_t - \alpha_t \hat x}{\sigma_t} \approx \mathbb E[\epsilon \mid x_t]
          = -\sigma_t \nabla \log p_t(x_t).

That is all one needs to know about the density :math:`p_t` of noisy data. Let every point move as those that pass
through it do on average,

.. math:: dx_t = \hat x(x_t, t)\, d\alpha_t + \hat\epsilon(x_t, t)\, d\sigma_t ,

and a cloud of points with density :math:`p_0` has density :math:`p_t` at every t. Run backwards from noise, this
*probability-flow* equation draws samples; run forwards from data, it is a normalizing flow, and gives the likelihood.
Diffusion and flow matching differ in the schedule and in what the network is asked for, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from course_lib.losses import Prediction, prediction_error
from course_lib.probability import normal_log_prob
from course_lib.schedules import Schedule, power_clock

__all__ = ["Diffusion"]


class Diffusion(nn.Module):
    r"""A network that predicts from noisy data, a schedule, and what follows from them.

    .. math:: \mathcal L = \mathbb E_{x, t, \epsilon}
              \left\| y_\theta(\alpha_t x + \sigma_t \epsilon, t) - (a_t x + b_t \epsilon) \right\|^2

    Flow matching is ``Diffusion(network, shape, schedule=Straight(), prediction=VELOCITY)``.

    Args:
        network: Maps (x_t, t, c) of shapes (B, \*shape), (B,) and (B,) to the prediction, (B, \*shape). Whether c may
            be left out, or be -1 for "not told", is the network's affair.
        shape: Shape of one example.
        schedule: Maps t to :math:`(\alpha_t, \sigma_t)`.
        prediction: What the network predicts, one of :mod:`course_lib.losses`.
        class_dropout: Probability with which a class is hidden in training, so that guidance is possible.
        clock: Maps u in [0, 1] to times; training draws u evenly, sampling spaces it evenly.

    Raises:
        ValueError: If the prediction says nothing about the data where the clock ends, as the noise does where
            :math:`\alpha_t = 0`; or ``class_dropout`` lies outside [0, 1].

    Reference:
        Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020); Lipman et al., *Flow Matching for
        Generative Modeling* (2023).

    Example:
        >>> from course_lib.losses import VELOCITY
        >>> from course_lib.nn import TimeMLP
        >>> from course_lib.schedules import Straight
        >>> model = Diffusion(TimeMLP(2), (2,), schedule=Straight(), prediction=VELOCITY)
        >>> model.sample(5).shape, model.log_prob(torch.zeros(3, 2), steps=10).shape
        (torch.Size([5, 2]), torch.Size([3]))
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        *,
        schedule: Schedule,
        prediction: Prediction,
        class_dropout: float = 0.1,
        clock: Callable[[Tensor], Tensor] = power_clock,
    ) -> None:
        super().__init__()
        if not 0 <= class_dropout <= 1:
            raise ValueError(f"class_dropout is a probability, got {class_dropout}")
        last = clock(torch.tensor(1.0))
        if not prediction.determinant(*schedule(last)).abs() > 1e-6:
            raise ValueError(f"at t = {last:g} no signal is left, and a prediction of {prediction.name} cannot find it")
        self.network, self.shape, self.schedule, self.prediction = network, tuple(shape), schedule, prediction
        self.class_dropout, self.clock = class_dropout, clock
        self.register_buffer("zero", torch.zeros(self.shape), persistent=False)  # knows the device and the dtype

    def loss(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Mean squared error of the prediction at random times, summed over the event dimensions, a scalar."""
        if not len(self._checked(x)):
            raise ValueError(f"the batch is empty: expected at least one example, got shape {tuple(x.shape)}")
        t = self.clock(torch.rand(len(x), dtype=x.dtype, device=x.device))
        alpha_t, sigma_t = self._schedule(t, like=x)
        eps = torch.randn_like(x)
        if c is not None:
            c = torch.where(torch.rand(len(c), device=c.device) < self.class_dropout, -1, c)
        y = self.network(alpha_t * x + sigma_t * eps, t, c)
        return prediction_error(y, x, eps, prediction=self.prediction, alpha_t=alpha_t, sigma_t=sigma_t).mean()

    def split(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""The means :math:`\hat x` and :math:`\hat\epsilon` of data and noise given x_t; t of shape () or (B,)."""
        alpha_t, sigma_t = self._schedule(t, like=self._checked(x_t))
        y = self.network(x_t, torch.as_tensor(t).to(x_t).expand(len(x_t)), c)
        return self.prediction.split(y, x_t, alpha_t=alpha_t, sigma_t=sigma_t)

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        r"""The posterior mean :math:`\hat x \approx \mathbb E[x \mid x_t]`, shape (B, \*shape); t is () or (B,)."""
        return self.split(x_t, t, c)[0]

    def score(self, x_t: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        r"""The score :math:`\nabla \log p_t(x_t) \approx -\hat\epsilon / \sigma_t`, (B, \*shape), where t > 0."""
        sigma_t = self._schedule(t, like=x_t)[1]
        if not (sigma_t > 0).all():
            raise ValueError("without noise the score is not known: expected times with sigma_t > 0")
        return -self.split(x_t, t, c)[1] / sigma_t

    def times(self, steps: int) -> Tensor:
        """Times from noise to exactly 0 (data) in so many steps, shape (steps + 1,)."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        even = torch.linspace(1, 0, steps, dtype=self.zero.dtype, device=self.zero.device)
        return torch.cat([self.clock(even), even.new_zeros(1)])

    @torch.no_grad()
    def sample(self, n: int, c: Tensor | None = None, *, steps: int = 50) -> Tensor:
        r"""Draw n samples, shape (n, \*shape): Heun's method on the probability-flow equation, from noise to data.

        Other samplers, and guidance, are in :mod:`course_lib.samplers`: they take :meth:`denoise` and :meth:`times`.
        """
        times = self.times(steps)[:-1]
        noise = torch.randn(n, *self.shape, dtype=times.dtype, device=times.device)
        x = _heun(partial(self.split, c=c), self.schedule(times[0])[1] * noise, times, schedule=self.schedule)
        return self.denoise(x, times[-1], c)  # the last step, to t = 0

    @torch.no_grad()
    def log_prob(self, x: Tensor, c: Tensor | None = None, *, steps: int = 200) -> Tensor:
        r"""Log-density in nats, (B, \*shape) -> (B,), exact up to the error of solving the equation.

        .. math:: \log p_0(x_0) = \log p_1(x_1) + \int \nabla \cdot \hat x\, d\alpha_t
                  + \int \nabla \cdot \hat\epsilon\, d\sigma_t

        The divergence costs one derivative of the network per dimension: nothing in a toy, much in a large image.
        Heun's error is of order 1/steps²: double the steps to see how much is left.

        Reference:
            Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations* (2021), equation
            (39); Chen et al., *Neural Ordinary Differential Equations* (2018), theorem 1.
        """
        times = self.times(steps + 1)[:-1].flip(0)
        alpha_t, _ = self.schedule(times[0])  # a step from 0 to the first time: x shrinks, the noise is not yet seen
        state = torch.cat([alpha_t * self._checked(x).flatten(1), x.new_zeros(len(x), 1)], dim=1)  # (B, D + 1)
        state = _heun(partial(self._split_and_divergences, c=c), state, times, schedule=self.schedule)
        log_var = 2 * self.schedule(times[-1])[1].log().expand(state.shape[1] - 1)
        base = normal_log_prob(state[:, :-1], torch.zeros_like(log_var), log_var)
        return base + state[:, -1] + len(log_var) * alpha_t.log()

    def _split_and_divergences(self, state: Tensor, t: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both means, flat, with their divergences as the last column: (B, D + 1) each."""
        dims = state.shape[1] - 1
        with torch.enable_grad():
            x_t = state[:, :-1].detach().unflatten(1, self.shape).requires_grad_()
            y = self.network(x_t, t.expand(len(x_t)), c).flatten(1)  # (B, D)
            slopes = [
                torch.autograd.grad(y[:, i].sum(), x_t, retain_graph=True)[0].flatten(1)[:, i] for i in range(dims)
            ]
        # the means are linear in y and x_t, so their divergences are the same combination of those: D is that of x_t
        y = torch.cat([y.detach(), sum(slopes)[:, None]], dim=1)
        x_t = torch.cat([state[:, :-1], torch.full_like(state[:, -1:], dims)], dim=1)
        alpha_t, sigma_t = self.schedule(t)
        return self.prediction.split(y, x_t, alpha_t=alpha_t, sigma_t=sigma_t)

    def _schedule(self, t: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of the shape (B, 1, ...), one for each example of a batch."""
        t = torch.as_tensor(t, dtype=like.dtype, device=like.device)
        if t.shape not in ((), like.shape[:1]):
            raise ValueError(f"expected one time, or one for each of {len(like)} examples, got shape {tuple(t.shape)}")
        alpha_t, sigma_t = self.schedule(t.expand(len(like)))
        return alpha_t.view(-1, *[1] * len(self.shape)), sigma_t.view(-1, *[1] * len(self.shape))

    def _checked(self, x: Tensor) -> Tensor:
        if not x.ndim or x.shape[1:] != self.shape:
            raise ValueError(f"expected x of shape (B, {str(self.shape)[1:-1].strip(',')}), got {tuple(x.shape)}")
        if (x.dtype, x.device) != (self.zero.dtype, self.zero.device):
            here = f"{self.zero.dtype} on {self.zero.device}"
            raise ValueError(f"expected x of {here} as the model, got {x.dtype} on {x.device}")
        return x


def _heun(
    field: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], state: Tensor, times: Tensor, *, schedule: Schedule
) -> Tensor:
    r"""Solve :math:`d\,\text{state} = f\, d\alpha_t + g\, d\sigma_t` by the trapezoidal rule on a forward look."""
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        f, g = field(state, t)
        f_s, g_s = field(state + (alpha_s - alpha_t) * f + (sigma_s - sigma_t) * g, s)
        state = state + (alpha_s - alpha_t) * (f + f_s) / 2 + (sigma_s - sigma_t) * (g + g_s) / 2
    return state
