r"""Generative adversarial networks: a generator learns from what a discriminator can tell apart.

The generator turns noise into samples, x = G(z) with standard normal z, and so defines a density q that nobody can
evaluate. The discriminator gives logits a(x) that x is real. They play

.. math:: \min_G \max_a \;\; \mathbb E_{x \sim p} \log \sigma(a(x)) + \mathbb E_{z} \log(1 - \sigma(a(G(z)))) .

For a fixed generator the best answer is :math:`a^* = \log p - \log q`, and the value is then
:math:`2\, \mathrm{JSD}(p, q) - 2 \log 2`: least where q = p. Nothing forces two players that move in turn to arrive
there. This module holds the game. The losses themselves are in :mod:`course_lib.losses`, networks in
:mod:`course_lib.nn`, layers that steady the game in :mod:`course_lib.models.gan_layers`, and the step that lets the
players move in turn is :func:`course_lib.train.alternate`.

A model here has ``sample`` and two losses. It has no ``log_prob``: the density of G(z) is not computed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from course_lib import losses

__all__ = ["GAN"]


class GAN(nn.Module):
    r"""A generator, a discriminator, and the objective of each.

    Other objectives make other games: :func:`course_lib.losses.saturating_loss`, the least-squares pair, or the hinge
    loss with :func:`course_lib.losses.wasserstein_generator_loss`. With ``functools.partial`` the discriminator's
    labels become smooth: ``partial(discriminator_loss, smoothing=0.1)``.

    A conditional game needs no other class. Whatever follows x in the methods, such as labels c of shape (B,), is
    handed to both networks: see ``classes`` of :func:`course_lib.nn.dense_players`.

    Args:
        generator: Maps z, shape (B, K), to samples, shape (B, \*event).
        discriminator: Maps x, shape (B, \*event), to logits, shape (B,) or (B, 1). Real data and samples are shown to
            it in two batches, so that layers that look at the whole batch do not mix them.
        latent: Size of the latent K.
        discriminator_objective: Maps logits of real data and of samples to the discriminator's loss.
        generator_objective: Maps logits of samples to the generator's loss.

    Reference:
        Goodfellow et al., *Generative Adversarial Nets* (2014), equation (1) and Algorithm 1; Mirza and Osindero,
        *Conditional Generative Adversarial Nets* (2014).

    Example:
        >>> gan = GAN(nn.Linear(3, 2), nn.Linear(2, 1), latent=3)
        >>> x = torch.randn(8, 2)
        >>> gan.sample(5).shape, gan.discriminator_loss(x).shape, gan.generator_loss(x).shape
        (torch.Size([5, 2]), torch.Size([]), torch.Size([]))
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        latent: int,
        discriminator_objective: Callable[[Tensor, Tensor], Tensor] = losses.discriminator_loss,
        generator_objective: Callable[[Tensor], Tensor] = losses.non_saturating_loss,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, discriminator, latent
        self.discriminator_objective, self.generator_objective = discriminator_objective, generator_objective

    def generate(self, n: int, *c: Tensor) -> Tensor:
        r"""Make ``n`` samples from fresh latents, with gradients for the generator, shape (n, \*event)."""
        weight = next(self.generator.parameters())
        return self.generator(torch.randn(n, self.latent, dtype=weight.dtype, device=weight.device), *c)

    @torch.no_grad()
    def sample(self, n: int, *c: Tensor) -> Tensor:
        r"""Draw ``n`` samples, of the classes c, shape (n,), where the game is conditional; shape (n, \*event)."""
        return self.generate(n, *c)

    def discriminator_loss(self, x: Tensor, *c: Tensor) -> Tensor:
        """The discriminator's loss on real data and as many samples, a scalar; the generator gets no gradient."""
        fake = _fitting(self.sample(len(x), *c), x)
        return self.discriminator_objective(self.discriminator(x, *c), self.discriminator(fake, *c))

    def generator_loss(self, x: Tensor, *c: Tensor) -> Tensor:
        """The generator's loss on as many samples as there are real data, a scalar."""
        return self.generator_objective(self.discriminator(_fitting(self.generate(len(x), *c), x), *c))

    def unrolled_generator_loss(self, x: Tensor, *c: Tensor, steps: int, lr: float) -> Tensor:
        r"""The generator's loss against the discriminator as it will be, ``steps`` gradient steps ahead.

        .. math:: \theta_0 = \theta, \qquad \theta_{k+1} = \theta_k - \eta\, \nabla_\theta L_D(\theta_k, G), \qquad
                  \text{loss} = L_G(\theta_K, G)

        The gradient also flows through the steps, for :math:`\theta_K` depends on the samples: the generator sees how
        the discriminator will answer, so moving all samples to one place does not pay. The discriminator is left as it
        is.

        Args:
            x: Real data, shape (B, \*event).
            c: Labels, where the game is conditional.
            steps: Number of steps K; 0 gives :meth:`generator_loss`.
            lr: Step size :math:`\eta`.

        Returns:
            A scalar, differentiable in the generator's parameters.

        Raises:
            ValueError: If ``steps`` is negative or ``lr`` is not positive.

        Reference:
            Metz et al., *Unrolled Generative Adversarial Networks* (2017), section 2.2.

        Example:
            >>> gan = GAN(nn.Linear(3, 2), nn.Linear(2, 1), latent=3)
            >>> gan.unrolled_generator_loss(torch.randn(8, 2), steps=5, lr=0.1).shape
            torch.Size([])
        """
        if steps < 0 or not lr > 0:
            raise ValueError(f"expected steps >= 0 and a positive lr, got steps {steps} and lr {lr}")
        fake = _fitting(self.generate(len(x), *c), x)
        weights = dict(self.discriminator.named_parameters())
        for _ in range(steps):
            real_logits, fake_logits = (functional_call(self.discriminator, weights, (y, *c)) for y in (x, fake))
            loss = self.discriminator_objective(real_logits, fake_logits)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {name: w - lr * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
        return self.generator_objective(functional_call(self.discriminator, weights, (fake, *c)))


def _fitting(fake: Tensor, x: Tensor) -> Tensor:
    made, given = ((tuple(y.shape), y.dtype, str(y.device)) for y in (fake, x))
    if made != given:
        raise ValueError(
            "the generator makes samples {} of {} on {}, the data are {} of {} on {}".format(*made, *given)
        )
    return fake
