r"""Autoregressive models: one dimension at a time, each given those before it.

The chain rule of probability splits every density, exactly and with no assumption of independence, into

.. math:: p(x) = \prod_{i=1}^D p(x_i \mid x_1, \dots, x_{i-1}) .

Two things are needed. A *network* maps x to parameters whose row i depends on :math:`x_1, \dots, x_{i-1}` only, and a
*conditional* says which distribution those parameters stand for. Then the likelihood is exact and takes one pass of
the network, while a sample takes D: :math:`x_i` must be drawn before it can be fed back.

The sampler asks the very object that reports the density. So the two cannot disagree, about the shape of the noise or
about the smallest scale, which is how hand-written samplers of such models usually go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

from course_lib.nn import LogisticMixture, MaskedMLP

__all__ = ["Autoregressive", "Conditional", "bernoulli", "binary_made", "logistic_mixture", "mixture_made"]


class Conditional(Protocol):
    """Distributions of single numbers, as many as a batch holds."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density or log-probability of each number in nats, of the shape of ``x``."""
        ...

    def sample(self) -> Tensor:
        """One draw from each distribution."""
        ...


class Autoregressive(nn.Module):
    r"""A density of vectors, built from D conditional densities of one number.

    .. math:: \log p(x) = \sum_{i=1}^D \log p(x_i \mid x_{<i})

    Args:
        network: Maps x, shape (B, D), to parameters, shape (B, D, P), whose row i depends on :math:`x_{<i}` only, as
            :class:`course_lib.nn.MaskedMLP` does.
        conditional: Maps parameters, shape (\*batch, P), and a temperature to distributions of one number each:
            :func:`logistic_mixture` or :func:`bernoulli`.
        dim: Number of dimensions D.

    Reference:
        Bengio and Bengio, *Modeling High-Dimensional Discrete Data with Multi-Layer Neural Networks* (2000); Germain
        et al., *MADE: Masked Autoencoder for Distribution Estimation* (2015).

    Example:
        >>> model = mixture_made(2, components=4, hidden=[16])
        >>> model.sample(5).shape, model.log_prob(torch.zeros(3, 2)).shape
        (torch.Size([5, 2]), torch.Size([3]))
    """

    def __init__(self, network: nn.Module, conditional: Callable[[Tensor, float], Conditional], *, dim: int) -> None:
        super().__init__()
        self.network, self.conditional, self.dim = network, conditional, dim

    def conditionals(self, x: Tensor, *, temperature: float = 1.0) -> Conditional:
        """The distributions of every :math:`x_i` given those before it, for data of shape (B, D)."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"expected x of shape (B, {self.dim}), got {tuple(x.shape)}")
        return self.conditional(self.network(x), temperature)

    def log_prob(self, x: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Exact log-density in nats of what :meth:`sample` draws at the same temperature, (B, D) -> (B,)."""
        return self.conditionals(x, temperature=temperature).log_prob(x).sum(1)

    def loss(self, x: Tensor) -> Tensor:
        """Mean negative log-likelihood of the batch in nats, a scalar."""
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0) -> Tensor:
        r"""Draw ``n`` samples, shape (n, D).

        The temperature T is applied to every conditional; below 1 the samples are less diverse. Tempered conditionals
        do not multiply to :math:`p(x)^{1/T}`.
        """
        blank = next(self.parameters()).new_zeros(n, self.dim)
        return self.complete(blank, known=0, temperature=temperature)

    @torch.no_grad()
    def complete(self, x: Tensor, *, known: int, temperature: float = 1.0) -> Tensor:
        r"""Draw the other dimensions given the first ones: an exact sample of :math:`p(x_{>m} \mid x_{\le m})`.

        Args:
            x: Data whose first ``known`` dimensions are kept, shape (B, D). The others are not looked at.
            known: Number m of known dimensions, 0 to D.
            temperature: T applied to every conditional that is sampled.

        Returns:
            Completed data, shape (B, D).

        Raises:
            ValueError: If ``x`` has another shape, or ``known`` lies outside 0 to D.
        """
        if x.ndim != 2 or x.shape[1] != self.dim or not 0 <= known <= self.dim:
            raise ValueError(
                f"expected x of shape (B, {self.dim}) and known from 0 to {self.dim}, got {tuple(x.shape)} and {known}"
            )
        x = torch.cat([x[:, :known], torch.zeros_like(x[:, known:])], dim=1)
        for i in range(known, self.dim):
            x[:, i] = self.conditional(self.network(x)[:, i], temperature).sample()  # (B,)
        return x


def logistic_mixture(parameters: Tensor, temperature: float = 1.0) -> LogisticMixture:
    r"""Read 3 K parameters as a mixture of K logistic distributions: logits, means, log-scales.

    Args:
        parameters: Shape (\*batch, 3 K).
        temperature: T: weights proportional to :math:`\pi_k^{1/T}` and scales :math:`T s_k`.

    Returns:
        Distributions of numbers of shape (\*batch).

    Raises:
        ValueError: If ``temperature`` is not positive.

    Example:
        >>> logistic_mixture(torch.zeros(5, 12)).sample().shape
        torch.Size([5])
    """
    return LogisticMixture.from_parameters(parameters).tempered(temperature)


def bernoulli(parameters: Tensor, temperature: float = 1.0) -> Bernoulli:
    r"""Read one parameter as the logit of a number that is 0 or 1.

    Args:
        parameters: Shape (\*batch, 1).
        temperature: T: the logit is divided by it.

    Returns:
        Distributions of numbers of shape (\*batch). Their ``log_prob`` refuses grey values: those have no probability.

    Raises:
        ValueError: If ``temperature`` is not positive.

    Example:
        >>> bernoulli(torch.zeros(2, 1)).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.6931, -0.6931])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return Bernoulli(logits=parameters.squeeze(-1) / temperature, validate_args=True)


def mixture_made(dim: int, *, components: int = 10, spread: float = 2.0, **options: Any) -> Autoregressive:
    r"""A masked network with mixture-of-logistics conditionals, for real-valued vectors.

    Args:
        dim: Number of dimensions D.
        components: Number of components K of each conditional.
        spread: The component means start evenly spaced from -spread to spread. Components that start in one place
            compete for the nearest mode, and some modes may never get one.
        **options: Passed on to :class:`course_lib.nn.MaskedMLP`. In many dimensions a bounded ``activation`` keeps a
            draw far from the data from making the next conditional wide, and so on without end.

    Returns:
        A model for data of shape (B, D).

    Example:
        >>> mixture_made(2, components=3).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    network = MaskedMLP(dim, 3 * components, **options)
    with torch.no_grad():
        means = network[-2].bias.view(dim, 3, components)[:, 1]
        means += torch.linspace(-spread, spread, components)
    return Autoregressive(network, logistic_mixture, dim=dim)


def binary_made(dim: int, *, hidden: Sequence[int] = (128, 128)) -> Autoregressive:
    r"""A masked network with Bernoulli conditionals, for vectors of zeros and ones.

    Args:
        dim: Number of dimensions D.
        hidden: Sizes of the hidden layers, each at least D - 1.

    Returns:
        A model for data of shape (B, D).

    Example:
        >>> x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # all eight vectors
        >>> bool((binary_made(3).log_prob(x).exp().sum() - 1).abs() < 1e-5)
        True
    """
    return Autoregressive(MaskedMLP(dim, 1, hidden=hidden), bernoulli, dim=dim)
