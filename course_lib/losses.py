r"""Objective functions, as pure functions of what networks put out.

**A bound** (:mod:`course_lib.models.vae`). A model with a latent variable trains an approximate posterior as well. Its
evidence lower bound is a reconstruction term minus a divergence, and between normals that has a closed form.

**Two players** (:mod:`course_lib.models.gan`). A discriminator with logit a(x) believes that x is real with probability
:math:`\sigma(a(x))`. Since :math:`-\log \sigma(a) = \operatorname{softplus}(-a)`, no loss here ever takes the logarithm
of a probability. For a fixed generator with density q, the pointwise minimum of

.. math:: -p(x) \log \sigma(a) - q(x) \log(1 - \sigma(a))
          \quad\text{is at}\quad a^*(x) = \log p(x) - \log q(x),

and the discriminator's loss is then :math:`2 \log 2 - 2\, \mathrm{JSD}(p, q)`.

**A critic** (:mod:`course_lib.models.wgan`). By Kantorovich-Rubinstein duality,

.. math:: W_1(p, q) = \max_{\|D\|_{\mathrm{Lip}} \le 1} \; \mathbb E_{x \sim p} D(x) - \mathbb E_{x \sim q} D(x),

and a differentiable D is 1-Lipschitz on a convex set exactly when :math:`\|\nabla D\| \le 1` on it. What is optimal has
gradient norm 1 along the lines on which mass is moved: that is what the gradient penalty asks for.

**A denoiser** (:mod:`course_lib.models.diffusion`). From noisy data :math:`x_t = \alpha_t x + \sigma_t \epsilon` a
network predicts the noise, the clean data, or another combination of the two, under squared error. All such predictions
are equivalent: :class:`Prediction` turns one into another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "CLEAN",
    "NOISE",
    "SCORE",
    "VELOCITY",
    "Prediction",
    "V",
    "clip_weights_",
    "convert",
    "critic_loss",
    "discriminator_loss",
    "free_bits",
    "gradient_penalty",
    "hinge_discriminator_loss",
    "kl_to_standard_normal",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "non_saturating_loss",
    "prediction_error",
    "saturating_loss",
    "wasserstein_generator_loss",
    "zero_centered_penalty",
]


# -------------------------------------------------------------------------------- a bound on the likelihood, in nats


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    r"""Divergence of a diagonal normal from the standard normal, dimension by dimension.

    .. math:: D_{\mathrm{KL}}\!\left(\mathcal N(\mu_k, \sigma_k^2) \,\|\, \mathcal N(0, 1)\right)
              = \tfrac12 \left(\mu_k^2 + \sigma_k^2 - \log \sigma_k^2 - 1\right)

    The divergence of the whole vector is the *sum* over k. A mean instead would shrink it by a factor of K.

    Args:
        mu: Means, shape (B, K).
        logvar: Log-variances :math:`\log \sigma^2`, shape (B, K).

    Returns:
        Shape (B, K), in nats.

    Raises:
        ValueError: If the shapes differ.

    Reference:
        Kingma and Welling, *Auto-Encoding Variational Bayes* (2014), appendix B.

    Example:
        >>> kl_to_standard_normal(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
        tensor([[0.0000, 0.5000]])
    """
    _require_same_shape("mu", mu, "logvar", logvar)
    return 0.5 * (mu.square() + logvar.expm1() - logvar)  # expm1 keeps the digits of a small divergence


def free_bits(kl: Tensor, *, floor: float) -> Tensor:
    r"""Charge every latent dimension for at least ``floor`` nats, so that none gains by saying less.

    .. math:: \sum_k \max\left(\lambda, \frac1B \sum_i \mathrm{KL}_{ik}\right)

    Where the mean divergence of a dimension lies below :math:`\lambda`, its gradient is zero.

    Args:
        kl: Divergences, shape (B, K), in nats.
        floor: :math:`\lambda \ge 0`, in nats for each dimension; 0 gives the plain sum.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the floor is negative.

    Reference:
        Kingma et al., *Improved Variational Inference with Inverse Autoregressive Flow* (2016), equation (15).

    Example:
        >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 1.0]]), floor=0.5)  # the means are 0.1 and 2
        tensor(2.5000)
    """
    if not floor >= 0:
        raise ValueError(f"the floor must be at least 0 nats, got {floor}")
    return kl.mean(0).clamp(min=floor).sum()


# --------------------------------------------------------------------------- two players: losses on logits, in nats


def discriminator_loss(real: Tensor, fake: Tensor, *, smoothing: float = 0.0) -> Tensor:
    r"""Cross-entropy of the discriminator, with one-sided label smoothing.

    .. math:: -\mathbb E_{x \sim p} \left[(1 - s) \log \sigma(a(x)) + s \log(1 - \sigma(a(x)))\right]
              - \mathbb E_{x \sim q} \log(1 - \sigma(a(x)))

    Only real data get the soft label 1 - s. A soft label on fake data too would reward the discriminator for believing
    in samples where there are no data, and the generator for staying there.

    Args:
        real: Logits of real data, shape (B,).
        fake: Logits of samples, shape (B,).
        smoothing: s in [0, 1): the share of doubt in the label of real data.

    Returns:
        A scalar in nats; :math:`2 \log 2 \approx 1.386` for a discriminator that knows nothing (logits 0).

    Raises:
        ValueError: If a batch is empty, or ``smoothing`` lies outside [0, 1).

    Reference:
        Goodfellow et al., *Generative Adversarial Nets* (2014), equation (1); Salimans et al., *Improved Techniques for
        Training GANs* (2016), section 3.4.

    Example:
        >>> discriminator_loss(torch.zeros(8), torch.zeros(8))
        tensor(1.3863)
    """
    _require_examples(real=real, fake=fake)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
    # softplus(a) = softplus(-a) + a, so the doubt s adds s a to the loss of a real example
    return F.softplus(-real).mean() + smoothing * real.mean() + F.softplus(fake).mean()


def saturating_loss(fake: Tensor) -> Tensor:
    r"""The generator's side of the minimax game; its gradient vanishes where the discriminator is sure.

    .. math:: \mathbb E_{x \sim q} \log(1 - \sigma(a(x))), \qquad
              \frac{\partial}{\partial a} \log(1 - \sigma(a)) = -\sigma(a) \to 0 \text{ for } a \to -\infty

    Args:
        fake: Logits of samples, shape (B,).

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the batch is empty.

    Reference:
        Goodfellow et al., *Generative Adversarial Nets* (2014), equation (1).

    Example:
        >>> a = torch.tensor([-10.0], requires_grad=True)
        >>> saturating_loss(a).backward()
        >>> a.grad  # the discriminator is sure, and the generator learns next to nothing
        tensor([-4.5398e-05])
    """
    _require_examples(fake=fake)
    return -F.softplus(fake).mean()


def non_saturating_loss(fake: Tensor) -> Tensor:
    r"""The generator raises the probability of being taken for real; its gradient is largest where it is found out.

    .. math:: -\mathbb E_{x \sim q} \log \sigma(a(x)), \qquad
              -\frac{\partial}{\partial a} \log \sigma(a) = -\sigma(-a) \to -1 \text{ for } a \to -\infty

    Args:
        fake: Logits of samples, shape (B,).

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the batch is empty.

    Reference:
        Goodfellow et al., *Generative Adversarial Nets* (2014), section 3.

    Example:
        >>> a = torch.tensor([-10.0], requires_grad=True)
        >>> non_saturating_loss(a).backward()
        >>> a.grad
        tensor([-1.0000])
    """
    _require_examples(fake=fake)
    return F.softplus(-fake).mean()


def least_squares_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""The discriminator regresses 1 on real data and 0 on samples.

    .. math:: \tfrac12\, \mathbb E_{x \sim p} (a(x) - 1)^2 + \tfrac12\, \mathbb E_{x \sim q}\, a(x)^2,
              \qquad a^*(x) = \frac{p(x)}{p(x) + q(x)}

    Args:
        real: Outputs for real data, shape (B,), without a sigmoid.
        fake: Outputs for samples, shape (B,).

    Returns:
        A scalar.

    Raises:
        ValueError: If a batch is empty.

    Reference:
        Mao et al., *Least Squares Generative Adversarial Networks* (2017), equations (2) and (9).

    Example:
        >>> least_squares_discriminator_loss(torch.full((4,), 0.5), torch.full((4,), 0.5))
        tensor(0.2500)
    """
    _require_examples(real=real, fake=fake)
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_generator_loss(fake: Tensor) -> Tensor:
    r"""The generator wants its samples to be given the value of real data, 1.

    .. math:: \tfrac12\, \mathbb E_{x \sim q} (a(x) - 1)^2

    Args:
        fake: Outputs for samples, shape (B,).

    Returns:
        A scalar.

    Raises:
        ValueError: If the batch is empty.

    Reference:
        Mao et al., *Least Squares Generative Adversarial Networks* (2017), equation (9).

    Example:
        >>> least_squares_generator_loss(torch.tensor([0.0, 1.0]))
        tensor(0.2500)
    """
    _require_examples(fake=fake)
    return 0.5 * (fake - 1).square().mean()


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""The discriminator pushes real data above 1 and samples below -1, and no further.

    .. math:: \mathbb E_{x \sim p} \max(0, 1 - a(x)) + \mathbb E_{x \sim q} \max(0, 1 + a(x))

    The generator that goes with it raises the outputs: :func:`wasserstein_generator_loss`.

    Args:
        real: Outputs for real data, shape (B,).
        fake: Outputs for samples, shape (B,).

    Returns:
        A scalar.

    Raises:
        ValueError: If a batch is empty.

    Reference:
        Miyato et al., *Spectral Normalization for Generative Adversarial Networks* (2018), equations (16) and (17).

    Example:
        >>> hinge_discriminator_loss(torch.tensor([3.0]), torch.tensor([0.0]))
        tensor(1.)
    """
    _require_examples(real=real, fake=fake)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def zero_centered_penalty(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""How steep a discriminator is at the data; with real data this is the regularizer called R1.

    .. math:: \mathbb E_{x \sim p} \|\nabla a(x)\|_2^2

    Where samples are as good as data, a discriminator should be flat. Without a price on its slope it need not become
    flat, and the players may circle around the answer instead of reaching it. Half of this, times a weight, is added
    to the discriminator's loss.

    Args:
        discriminator: Maps (B, \*event) to one logit for each example, shape (B,), each example by itself.
        x: Real data, shape (B, \*event). They receive no gradient.

    Returns:
        A scalar, differentiable in the discriminator's parameters.

    Raises:
        ValueError: If the batch is empty, or the discriminator does not give one logit for each example.

    Reference:
        Mescheder, Geiger and Nowozin, *Which Training Methods for GANs do actually Converge?* (2018), equation (9).

    Example:
        >>> w = torch.tensor([3.0, 4.0])
        >>> zero_centered_penalty(lambda x: x @ w, torch.randn(8, 2))
        tensor(25.)
    """
    _require_examples(x=x)
    return _slopes(discriminator, x.detach()).square().mean()


# --------------------------------------------------------------- a critic: losses on scores, in the units of the data


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""What a critic minimizes: minus the gap between its mean scores.

    .. math:: -\left(\mathbb E_{x \sim p} D(x) - \mathbb E_{x \sim q} D(x)\right) \ge -W_1(p, q)
              \quad \text{for a 1-Lipschitz } D

    Args:
        real: Scores of real data, shape (B,).
        fake: Scores of samples, shape (B,).

    Returns:
        A scalar. Its negative estimates :math:`W_1` from below, in the units of the data, as far as the critic is
        1-Lipschitz and near its optimum.

    Raises:
        ValueError: If a batch is empty.

    Reference:
        Arjovsky, Chintala and Bottou, *Wasserstein GAN* (2017), equation (2).

    Example:
        >>> critic_loss(torch.tensor([2.0, 4.0]), torch.tensor([1.0]))  # moved by 2 on average
        tensor(-2.)
    """
    _require_examples(real=real, fake=fake)
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    r"""The generator raises the score of its samples.

    .. math:: -\mathbb E_{x \sim q} D(x)

    Args:
        fake: Scores of samples, shape (B,).

    Returns:
        A scalar.

    Raises:
        ValueError: If the batch is empty.

    Reference:
        Arjovsky, Chintala and Bottou, *Wasserstein GAN* (2017), Algorithm 1.

    Example:
        >>> wasserstein_generator_loss(torch.tensor([1.0, 3.0]))
        tensor(-2.)
    """
    _require_examples(fake=fake)
    return -fake.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""How far the critic's slope is from 1 on lines between real data and samples.

    .. math:: \mathbb E \left(\|\nabla D(\hat x)\|_2 - 1\right)^2, \qquad
              \hat x = \alpha\, x + (1 - \alpha)\, \tilde x, \quad \alpha \sim \mathcal U[0, 1]

    There is one :math:`\alpha` for each example, and the norm is over all dimensions of an example. The critic must
    score each example by itself: with batch normalization there is no gradient of one score.

    Args:
        critic: Maps (B, \*event) to one score for each example, shape (B,).
        real: Real data x, shape (B, \*event).
        fake: Samples :math:`\tilde x`, of the same shape. Neither receives a gradient.
        generator: Source of :math:`\alpha`; the global random state when omitted.

    Returns:
        A scalar, differentiable in the critic's parameters, with a finite gradient also where the norm is 0.

    Raises:
        ValueError: If the batch is empty, the shapes differ, or the critic does not give one score for each example.

    Reference:
        Gulrajani et al., *Improved Training of Wasserstein GANs* (2017), equation (3) and Algorithm 1.

    Example:
        >>> w = torch.tensor([3.0, 4.0])  # the slope of a linear critic is |w| = 5 everywhere
        >>> gradient_penalty(lambda x: x @ w, torch.randn(8, 2), torch.randn(8, 2))
        tensor(16.)
    """
    _require_examples(real=real, fake=fake)
    if real.shape != fake.shape:
        raise ValueError(f"real and fake must have the same shape, got {tuple(real.shape)} and {tuple(fake.shape)}")
    per_example = (len(real), *(1 for _ in real.shape[1:]))
    alpha = torch.rand(per_example, generator=generator, dtype=real.dtype, device=real.device)  # (B, 1, ...)
    slopes = _slopes(critic, torch.lerp(fake.detach(), real.detach(), alpha))
    return (slopes - 1).square().mean()


@torch.no_grad()
def clip_weights_(parameters: Iterable[Tensor], *, bound: float) -> None:
    r"""Force every weight of a critic into a box, in place.

    .. math:: w \leftarrow \min(\max(w, -c), c)

    The critic is then K-Lipschitz for some K that depends on c and on the network, not 1-Lipschitz; its value is some
    unknown multiple of a lower bound of :math:`W_1`. It is here to be compared with the gradient penalty.

    Args:
        parameters: The weights, which are changed.
        bound: c > 0.

    Raises:
        ValueError: If ``bound`` is not positive.

    Reference:
        Arjovsky, Chintala and Bottou, *Wasserstein GAN* (2017), Algorithm 1.

    Example:
        >>> w = torch.tensor([-0.5, 0.005, 2.0])
        >>> clip_weights_([w], bound=0.01)
        >>> w
        tensor([-0.0100,  0.0050,  0.0100])
    """
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    for parameter in parameters:
        parameter.clamp_(-bound, bound)


def _slopes(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Norm of the gradient of each example's score over all its dimensions, (B, \\*event) -> (B,)."""
    x = x.requires_grad_()
    scores = score(x)
    if scores.numel() != len(x):
        raise ValueError(f"expected one score for each of {len(x)} examples, got shape {tuple(scores.shape)}")
    # the graph of the gradient is kept, because a penalty is differentiated once more, in the parameters
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)  # (B, *event)
    # vector_norm has slope 0 where it is 0; the square root of a sum of squares would have slope infinity there
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # (B,)


def _require_examples(**batches: Tensor) -> None:
    for name, values in batches.items():
        if not values.numel():
            raise ValueError(f"{name} is empty, shape {tuple(values.shape)}: expected at least one example")


# ----------------------------------------------------------- noise prediction: what a network is asked to say about x_t


class Prediction:
    r"""What a network predicts from noisy data: a known combination of the clean data and the noise.

    .. math:: y = a_t\, x + b_t\, \epsilon, \qquad x_t = \alpha_t\, x + \sigma_t\, \epsilon

    ====================  ==================  =================  ================================================
    name                  :math:`a_t`         :math:`b_t`        y is
    ====================  ==================  =================  ================================================
    :data:`NOISE`         0                   1                  the noise :math:`\epsilon`
    :data:`CLEAN`         1                   0                  the clean data x, often written :math:`x_0`
    :data:`V`             :math:`-\sigma_t`   :math:`\alpha_t`   v, whose size is that of the data at every t
    :data:`VELOCITY`      -1                  1                  :math:`\epsilon - x`, the velocity of flow matching
    :data:`SCORE`         0                   :math:`-1/\sigma`  :math:`-\epsilon / \sigma_t`, the score of x given x_t
    ====================  ==================  =================  ================================================

    Two equations for two unknowns: whoever knows :math:`x_t` and one of them knows all. With
    :math:`d = \alpha_t b_t - \sigma_t a_t`,

    .. math:: x = (b_t\, x_t - \sigma_t\, y) / d, \qquad \epsilon = (\alpha_t\, y - a_t\, x_t) / d .

    All this is linear in x and :math:`\epsilon`, so it holds for their means given :math:`x_t` as well, and these are
    what squared error teaches. The mean of :data:`SCORE` is the score :math:`\nabla \log p_t(x_t)` of noisy data.

    Args:
        name: What it is called in errors.
        weights: Maps :math:`(\alpha_t, \sigma_t)` to :math:`(a_t, b_t)`.

    Reference:
        Salimans and Ho, *Progressive Distillation for Fast Sampling of Diffusion Models* (2022), section 4 and appendix
        D, for v; Vincent, *A Connection Between Score Matching and Denoising Autoencoders* (2011), for the score.

    Example:
        >>> x, eps = torch.tensor([[1.0]]), torch.tensor([[3.0]])
        >>> alpha_t = sigma_t = torch.tensor(0.5)
        >>> y = V.target(x, eps, alpha_t=alpha_t, sigma_t=sigma_t)
        >>> y, V.split(y, alpha_t * x + sigma_t * eps, alpha_t=alpha_t, sigma_t=sigma_t)
        (tensor([[1.]]), (tensor([[1.]]), tensor([[3.]])))
    """

    def __init__(self, name: str, weights: Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | float]]) -> None:
        self.name, self.weights = name, weights

    def __repr__(self) -> str:
        return f"Prediction({self.name!r})"

    def target(self, x: Tensor, eps: Tensor, *, alpha_t: Tensor, sigma_t: Tensor) -> Tensor:
        r"""y from clean data and noise; all broadcast, :math:`\alpha_t` and :math:`\sigma_t` to the shape of ``x``."""
        a, b = self.weights(alpha_t, sigma_t)
        return a * x + b * eps

    def split(self, y: Tensor, x_t: Tensor, *, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Clean data and noise, :math:`(x, \epsilon)`, from y and noisy data, both of the shape of ``x_t``."""
        a, b = self.weights(alpha_t, sigma_t)
        d = self.determinant(alpha_t, sigma_t)
        return (b * x_t - sigma_t * y) / d, (alpha_t * y - a * x_t) / d

    def determinant(self, alpha_t: Tensor, sigma_t: Tensor) -> Tensor:
        r"""d: where it is 0, y and :math:`x_t` say the same thing twice, and x and the noise stay unknown."""
        a, b = self.weights(alpha_t, sigma_t)
        return alpha_t * b - sigma_t * a


NOISE = Prediction("noise", lambda alpha_t, sigma_t: (0.0, 1.0))
"""The noise, as DDPM predicts it. It says nothing about x where no signal is left."""

CLEAN = Prediction("clean data", lambda alpha_t, sigma_t: (1.0, 0.0))
"""The clean data, as a denoiser predicts it. It says nothing about the noise where there is none."""

V = Prediction("v", lambda alpha_t, sigma_t: (-sigma_t, alpha_t))
"""v, which is well behaved at both ends."""

VELOCITY = Prediction("velocity", lambda alpha_t, sigma_t: (-1.0, 1.0))
"""The velocity of the straight path, with :class:`course_lib.schedules.Straight`: flow matching."""

SCORE = Prediction("score", lambda alpha_t, sigma_t: (0.0, -1.0 / sigma_t))
"""The score of noisy data. It grows without bound where the noise vanishes: for conversions, not for training."""


def convert(
    y: Tensor, x_t: Tensor, *, source: Prediction, target: Prediction, alpha_t: Tensor, sigma_t: Tensor
) -> Tensor:
    r"""Turn one kind of prediction into another.

    Args:
        y: Prediction of the kind ``source``, of the shape of ``x_t``.
        x_t: Noisy data.
        source: What ``y`` is.
        target: What it shall become.
        alpha_t: Share of the data :math:`\alpha_t`, broadcastable to ``x_t``.
        sigma_t: Share of the noise :math:`\sigma_t`, broadcastable to ``x_t``.

    Returns:
        Prediction of the kind ``target``, of the shape of ``x_t``.

    Raises:
        ValueError: If ``y`` and ``x_t`` have different shapes.

    Example:
        >>> x_t, eps = torch.tensor([[2.0]]), torch.tensor([[1.0]])
        >>> convert(eps, x_t, source=NOISE, target=SCORE, alpha_t=torch.tensor(0.6), sigma_t=torch.tensor(0.8))
        tensor([[-1.2500]])
    """
    _require_same_shape("the prediction", y, "the noisy data", x_t)
    x, eps = source.split(y, x_t, alpha_t=alpha_t, sigma_t=sigma_t)
    return target.target(x, eps, alpha_t=alpha_t, sigma_t=sigma_t)


def prediction_error(
    y_hat: Tensor, x: Tensor, eps: Tensor, *, prediction: Prediction, alpha_t: Tensor, sigma_t: Tensor
) -> Tensor:
    r"""Squared error of a prediction, summed over the event dimensions.

    .. math:: \left\| \hat y(x_t, t) - (a_t\, x + b_t\, \epsilon) \right\|^2

    With :data:`NOISE` its mean is DDPM's loss, with :data:`VELOCITY` that of flow matching. The best prediction, and
    so what is learned, is the mean of y given :math:`x_t`. Kinds differ by a factor that depends on t alone: errors of
    the noise are :math:`(\alpha_t / \sigma_t)^2` times errors of the clean data.

    Args:
        y_hat: What the network says, shape (B, \*event).
        x: Clean data, shape (B, \*event).
        eps: The noise that was added, shape (B, \*event).
        prediction: What the network is asked for.
        alpha_t: Share of the data :math:`\alpha_t`, broadcastable to ``x``, such as (B, 1).
        sigma_t: Share of the noise :math:`\sigma_t`, broadcastable to ``x``.

    Returns:
        Shape (B,).

    Raises:
        ValueError: If the shapes of ``y_hat``, ``x`` and ``eps`` differ.

    Reference:
        Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models* (2020), equation (14); Lipman et al., *Flow
        Matching for Generative Modeling* (2023), equation (23).

    Example:
        >>> x, eps = torch.zeros(4, 2), torch.ones(4, 2)
        >>> prediction_error(
        ...     torch.zeros(4, 2), x, eps, prediction=NOISE, alpha_t=torch.tensor(0.6), sigma_t=torch.tensor(0.8)
        ... )
        tensor([2., 2., 2., 2.])
    """
    _require_same_shape("the prediction", y_hat, "the data", x)
    _require_same_shape("the noise", eps, "the data", x)
    y = prediction.target(x, eps, alpha_t=alpha_t, sigma_t=sigma_t)
    return (y_hat - y).square().flatten(1).sum(1)  # (B,)


def _require_same_shape(name: str, a: Tensor, other: str, b: Tensor) -> None:
    if a.shape != b.shape:  # broadcasting would hide the mistake
        raise ValueError(f"{name} has shape {tuple(a.shape)}, {other} {tuple(b.shape)}")
