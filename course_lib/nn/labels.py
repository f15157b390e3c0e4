"""Networks that are told a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ClassInput", "ClassOutput"]


class ClassInput(nn.Module):
    r"""A network that is told a class: the label, one-hot, is appended to the input.

    .. math:: y = f([x, e_c])

    Inputs of shape (B, F) get C more features; images get C more channels, each of one value.

    Args:
        network: f, for the longer input.
        classes: Number of classes C.

    Raises:
        ValueError: If the labels are not int64, not one for each example, or not in 0 ... C - 1.

    Reference:
        Mirza and Osindero, *Conditional Generative Adversarial Nets* (2014), section 3.2.

    Example:
        >>> generator = ClassInput(nn.Linear(4 + 10, 2), classes=10)
        >>> generator(torch.randn(3, 4), torch.tensor([0, 7, 9])).shape
        torch.Size([3, 2])
    """

    def __init__(self, network: nn.Module, *, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        r"""(B, F) or (B, C, H, W), and labels (B,), -> (B, \*event)."""
        one_hot = F.one_hot(_checked_labels(c, len(x), self.classes), self.classes).to(x.dtype)  # (B, classes)
        one_hot = one_hot.view(*one_hot.shape, *(1 for _ in x.shape[2:])).expand(-1, -1, *x.shape[2:])
        return self.network(torch.cat([x, one_hot], dim=1))


class ClassOutput(nn.Module):
    r"""A network with one output for each class, of which the label picks its own.

    .. math:: y = f(x)_c = w_c^\top \phi(x) + b_c

    The features :math:`\phi` are shared; only the last layer knows the class.

    Args:
        network: f, with C outputs.
        classes: Number of classes C.

    Reference:
        Miyato and Koyama, *cGANs with Projection Discriminator* (2018), section 3; :math:`w_c` is their sum of
        :math:`v_c` and the weights of :math:`\psi`.

    Example:
        >>> ClassOutput(nn.Identity(), classes=3)(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([2]))
        tensor([7.])
    """

    def __init__(self, network: nn.Module, *, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        r"""(B, \*event) and labels (B,) -> (B,)."""
        return self.network(x).gather(1, _checked_labels(c, len(x), self.classes)[:, None])[:, 0]


def _checked_labels(c: Tensor, n: int, classes: int) -> Tensor:
    if c.shape != (n,) or c.dtype != torch.int64:
        raise ValueError(f"expected {n} labels, shape ({n},) and torch.int64, got {tuple(c.shape)} and {c.dtype}")
    if n and not 0 <= c.min() <= c.max() < classes:
        raise ValueError(f"labels must lie in 0 ... {classes - 1}, got {c.min().item()} to {c.max().item()}")
    return c
