r"""Wasserstein GANs: a critic measures how far the samples are from the data, and the generator shortens the way.

The Wasserstein distance :math:`W_1(p, q)` is the least work, mass times way, that turns q into p. By
Kantorovich-Rubinstein duality it is a maximum over functions with slope at most 1 everywhere,

.. math:: W_1(p, q) = \max_{\|D\|_{\mathrm{Lip}} \le 1} \; \mathbb E_{x \sim p} D(x) - \mathbb E_{x \sim q} D(x),

and where p and q do not meet, it still says which way they lie from each other; the Jensen-Shannon divergence does not.
The critic D is a network that is trained towards this maximum, by one of two ways of holding its slope:

- :class:`WGAN`, with :func:`course_lib.losses.clip_weights_` after each update, keeps the slope below *some* bound;
- :class:`WGANGP` pulls the slope towards 1 on the lines between data and samples.

The step that trains both is :func:`course_lib.train.alternate` with ``n_critic`` above 1, because what the generator
follows is a distance only near the critic's optimum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.losses import critic_loss, gradient_penalty, wasserstein_generator_loss

__all__ = ["WGAN", "WGANGP"]


class WGAN(nn.Module):
    r"""A generator and a critic without any limit on its slope; the training step has to clip the critic's weights.

    .. math:: L_D = -\left(\mathbb E\, D(x) - \mathbb E\, D(G(z))\right), \qquad L_G = -\mathbb E\, D(G(z))

    A conditional model needs no other class. Whatever follows x in the methods, such as labels c of shape (B,), is
    handed to both networks: see ``classes`` of :func:`course_lib.nn.dense_players`.

    Args:
        generator: Maps z, shape (B, K), to samples, shape (B, \*event).
        critic: Maps x, shape (B, \*event), to scores, shape (B,) or (B, 1), each example by itself.
        latent: Size of the latent K.

    Raises:
        ValueError: If the critic holds batch normalization: then a score depends on the other examples.

    Reference:
        Arjovsky, Chintala and Bottou, *Wasserstein GAN* (2017), Algorithm 1.

    Example:
        >>> from course_lib.losses import clip_weights_
        >>> from course_lib.train import alternate
        >>> wgan = WGAN(nn.Linear(3, 2), nn.Linear(2, 1), latent=3)
        >>> step = alternate(
        ...     wgan.critic_loss,
        ...     wgan.generator_loss,
        ...     critic_optimizer=torch.optim.RMSprop(wgan.critic.parameters(), lr=5e-5),
        ...     generator_optimizer=torch.optim.RMSprop(wgan.generator.parameters(), lr=5e-5),
        ...     n_critic=5,
        ...     after_critic=lambda: clip_weights_(wgan.critic.parameters(), bound=0.01),
        ... )
        >>> _ = step(torch.randn(40, 2))
        >>> wgan.critic.weight.abs().max().item() <= 0.01
        True
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, *, latent: int) -> None:
        super().__init__()
        for module in critic.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise ValueError(
                    f"a critic must score each example by itself, but {type(module).__name__} mixes the batch; "
                    "use norm=nn.Identity, or GroupNorm with one group"
                )
        self.generator, self.critic, self.latent = generator, critic, latent

    def generate(self, n: int, *c: Tensor) -> Tensor:
        r"""Make ``n`` samples from fresh latents, with gradients for the generator, shape (n, \*event)."""
        weight = next(self.generator.parameters())
        return self.generator(torch.randn(n, self.latent, dtype=weight.dtype, device=weight.device), *c)

    @torch.no_grad()
    def sample(self, n: int, *c: Tensor) -> Tensor:
        r"""Draw ``n`` samples, of the classes c, shape (n,), where the model is conditional; shape (n, \*event)."""
        return self.generate(n, *c)

    @torch.no_grad()
    def value(self, x: Tensor, *c: Tensor) -> Tensor:
        r"""The critic's estimate :math:`\mathbb E\, D(x) - \mathbb E\, D(G(z))`, without any penalty, a scalar.

        With a 1-Lipschitz critic it is at most :math:`W_1`, in the units of the data. This is the figure to watch.
        """
        return -self._gap(x, self._samples_like(x, *c), *c)

    def critic_loss(self, x: Tensor, *c: Tensor) -> Tensor:
        """The critic's loss on real data and as many samples, a scalar; the generator gets no gradient."""
        return self._gap(x, self._samples_like(x, *c), *c)

    def generator_loss(self, x: Tensor, *c: Tensor) -> Tensor:
        """The generator's loss on as many samples as there are real data, a scalar."""
        return wasserstein_generator_loss(self.critic(self.generate(len(x), *c), *c))

    def _gap(self, x: Tensor, fake: Tensor, *c: Tensor) -> Tensor:
        # one pass for both: the time of a small network goes into the number of its calls. Every example is followed by
        # its sample, which keeps the rows of a model together where several are stacked
        pairs = torch.stack([x, fake], dim=1)  # (B, 2, *event)
        scores = self.critic(pairs.flatten(0, 1), *(label.repeat_interleave(2, dim=0) for label in c))
        return critic_loss(*scores.unflatten(0, (len(x), 2)).unbind(1))

    def _samples_like(self, x: Tensor, *c: Tensor) -> Tensor:
        fake = self.sample(len(x), *c)
        made, given = ((tuple(y.shape), y.dtype, str(y.device)) for y in (fake, x))
        if made != given:
            raise ValueError("the generator makes {} of {} on {}, the data are {} of {} on {}".format(*made, *given))
        return fake


class WGANGP(WGAN):
    r"""A Wasserstein GAN whose critic pays for every slope other than 1.

    .. math:: L_D = -\left(\mathbb E\, D(x) - \mathbb E\, D(G(z))\right)
              + \lambda\, \mathbb E \left(\|\nabla D(\hat x)\|_2 - 1\right)^2

    with :math:`\hat x` uniform on the lines between data and samples: :func:`course_lib.losses.gradient_penalty`.

    The penalty is soft. Where the distance is W, giving every slope a factor a gains :math:`a W` and costs
    :math:`\lambda (a - 1)^2`, so the best critic is too steep by :math:`a - 1 = W / (2 \lambda)`.

    Args:
        generator: Maps z, shape (B, K), to samples, shape (B, \*event).
        critic: Maps x, shape (B, \*event), to scores, shape (B,) or (B, 1), each example by itself.
        latent: Size of the latent K.
        penalty: :math:`\lambda`. The paper's 10 is for images; for data in the plane its own experiments use 0.1.

    Raises:
        ValueError: If ``penalty`` is not positive, or the critic holds batch normalization.

    Reference:
        Gulrajani et al., *Improved Training of Wasserstein GANs* (2017), equation (3) and Algorithm 1.

    Example:
        >>> wgan = WGANGP(nn.Linear(3, 2), nn.Linear(2, 1), latent=3, penalty=10.0)
        >>> x = torch.randn(8, 2)
        >>> wgan.sample(5).shape, wgan.critic_loss(x).shape, wgan.generator_loss(x).shape
        (torch.Size([5, 2]), torch.Size([]), torch.Size([]))
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, *, latent: int, penalty: float) -> None:
        super().__init__(generator, critic, latent=latent)
        if not penalty > 0:
            raise ValueError(f"penalty must be positive, got {penalty}")
        self.penalty = penalty

    def critic_loss(self, x: Tensor, *c: Tensor) -> Tensor:
        """The critic's loss with its penalty on real data and as many samples, a scalar."""
        fake = self._samples_like(x, *c)
        return self._gap(x, fake, *c) + self.penalty * gradient_penalty(lambda y: self.critic(y, *c), x, fake)
