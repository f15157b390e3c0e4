r"""What a model can do, as structural types.

A model is a plain :class:`torch.nn.Module`. It inherits from none of these: having the method is enough, and what a
family cannot compute, its model does not have. An autoencoder has no ``sample``, and a GAN no ``log_prob``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["HasLogProb", "HasLoss", "Samples"]


@runtime_checkable
class Samples(Protocol):
    r"""A model that can draw samples.

    Example:
        >>> from course_lib.probability import ring
        >>> isinstance(ring(), Samples)
        True
    """

    def sample(self, n: int) -> Tensor:
        r"""Draw ``n`` samples, shape (n, \*event)."""
        ...


@runtime_checkable
class HasLogProb(Protocol):
    r"""A model that can compute the exact log-density of data.

    Example:
        >>> from course_lib.probability import ring
        >>> isinstance(ring(), HasLogProb)
        True
    """

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each row of ``x`` in nats, shape (B,)."""
        ...


@runtime_checkable
class HasLoss(Protocol):
    r"""A model that is trained by minimizing one scalar.

    Example:
        >>> from course_lib.models.autoencoder import linear_autoencoder
        >>> isinstance(linear_autoencoder(dim=5, latent=2), HasLoss)
        True
    """

    def loss(self, x: Tensor) -> Tensor:
        """The scalar to minimize on the batch ``x``."""
        ...
