r"""Several seeds of a small model, trained as one.

One seed proves nothing, and on small networks most of a step's time is spent on starting operations, not on
arithmetic. So S models of the same architecture become one whose linear layers multiply S matrices at once:

.. math:: y_s = x_s W_s^\top + b_s, \qquad s = 1, \dots, S .

A batch of S B rows holds the B rows of the first model, then those of the second, and so on. Everything that treats
rows one by one (activations, losses, samplers, gradient penalties) works as it is. The models share nothing: multiply a
loss that is a mean over rows by S, and each gets the gradient that it would get alone. Only what puts two batches one
after the other before a network would give rows to the wrong model; :class:`.WGAN` puts them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from course_lib.nn import Constant
from course_lib.train import Batch, Indexable

__all__ = ["StackedConstant", "StackedLinear", "Together", "stack", "unstack"]

Model = TypeVar("Model", bound=nn.Module)


class StackedLinear(nn.Module):
    r"""S linear layers side by side, each for its own block of rows.

    Args:
        layers: The layers, all of one size.

    Raises:
        ValueError: If the rows cannot be divided among the layers.

    Example:
        >>> layers = [nn.Linear(3, 2) for _ in range(4)]
        >>> x = torch.randn(4, 5, 3)
        >>> y = StackedLinear(layers)(x.flatten(0, 1))
        >>> torch.allclose(y[5:10], layers[1](x[1]), atol=1e-6)
        True
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))  # (S, in, out)
        no_bias = layers[0].bias is None
        self.bias = None if no_bias else nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """(S B, in) -> (S B, out)."""
        blocks = _blocks(x, len(self.weight))  # (S, B, in)
        y = blocks @ self.weight if self.bias is None else torch.baddbmm(self.bias, blocks, self.weight)
        return y.flatten(0, 1)

    def separate(self, s: int) -> nn.Linear:
        """A copy of layer s alone."""
        layer = nn.Linear(*self.weight.shape[1:], bias=self.bias is not None).to(self.weight)
        with torch.no_grad():
            layer.weight.copy_(self.weight[s].T)
            if self.bias is not None:
                layer.bias.copy_(self.bias[s, 0])
        return layer


class StackedConstant(nn.Module):
    r"""S learned constants side by side; see :class:`course_lib.nn.Constant`.

    Args:
        constants: The constants, all of one size.

    Example:
        >>> StackedConstant([Constant(torch.tensor([1.0])), Constant(torch.tensor([2.0]))])(torch.zeros(4, 7))[:, 0]
        tensor([1., 1., 2., 2.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, constants: Sequence[Constant]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.stack([constant.value.detach() for constant in constants]))  # (S, F)
        self.value.requires_grad_(constants[0].value.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        r"""(S B, \*any) -> (S B, F)."""
        return self.value.repeat_interleave(_blocks(x, len(self.value)).shape[1], dim=0)

    def separate(self, s: int) -> Constant:
        """A copy of constant s alone."""
        return Constant(self.value[s].detach()).requires_grad_(self.value.requires_grad)


STACKED = {nn.Linear: StackedLinear, Constant: StackedConstant}
"""What a layer with parameters becomes. Layers without parameters need no other form."""


def stack(models: Sequence[Model]) -> Model:
    r"""Make one model of several that have the same architecture.

    Args:
        models: S models of dense layers, each initialised under its own seed. They are left as they are.

    Returns:
        A model of the same class. Its methods take and give S B rows, B for each of the models.

    Raises:
        ValueError: If there are no models, or their architectures differ.
        TypeError: If a layer has parameters or buffers and is neither linear nor a constant.

    Reference:
        The idea of an ensemble as one batched model is that of ``torch.func.stack_module_state``.

    Example:
        >>> from course_lib.models.autoencoder import linear_autoencoder
        >>> models = [linear_autoencoder(dim=5, latent=2) for _ in range(3)]
        >>> x = torch.randn(8, 5)
        >>> together = stack(models)(x.repeat(3, 1))  # (24, 5)
        >>> torch.allclose(together[8:16], models[1](x), atol=1e-6)
        True
    """
    if not models:
        raise ValueError("expected at least one model, got none")
    first = models[0]
    for other in models[1:]:
        if _described(other) != _described(first):
            raise ValueError(f"models must have one architecture, got {_described(first)}, and {_described(other)}")
    if type(first) in STACKED:
        return STACKED[type(first)](models)
    if own := [name for name, _ in (*first.named_parameters(recurse=False), *first.named_buffers(recurse=False))]:
        raise TypeError(f"{type(first).__name__} holds {own}, and only linear layers and constants can be stacked")
    together = deepcopy(first)
    for name, _ in first.named_children():
        setattr(together, name, stack([getattr(model, name) for model in models]))
    return together


def _described(model: nn.Module) -> str:
    """The layers with their settings, by name, and the sizes of what they hold."""
    return f"{model} holding {[tuple(tensor.shape) for tensor in model.state_dict().values()]}"


def unstack(together: Model, s: int) -> Model:
    r"""Take model s out of a stacked one.

    Args:
        together: What :func:`stack` made.
        s: Which model, counted from 0.

    Returns:
        A model of its own, with copies of the parameters.

    Example:
        >>> models = [nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)]
        >>> torch.equal(unstack(stack(models), 2)[0].weight, models[2][0].weight)
        True
    """
    if isinstance(together, StackedLinear | StackedConstant):
        return together.separate(s)
    alone = deepcopy(together)
    for name, child in together.named_children():
        setattr(alone, name, unstack(child, s))
    return alone


class Together:
    r"""Batch k of every model, one after the other.

    Args:
        batches: Endless batches for each of the S models, such as draws with different seeds.
        parts: ``n_critic`` of :func:`course_lib.train.alternate`, which cuts a batch into that many parts. Each part
            must hold rows for every model.

    Raises:
        ValueError: If there are no batches.

    Example:
        >>> batches = Together([[torch.tensor([1, 2])], [torch.tensor([3, 4])]])
        >>> batches[0]
        tensor([1, 2, 3, 4])
    """

    def __init__(self, batches: Sequence[Indexable], *, parts: int = 1) -> None:
        if not batches:
            raise ValueError("expected batches for at least one model, got none")
        self.batches, self.parts = batches, parts

    def __getitem__(self, k: int) -> Batch:
        """Batch k, of S B rows."""
        several = [batch[k] for batch in self.batches]
        if isinstance(several[0], tuple):
            return tuple(self._join(tensors) for tensors in zip(*several, strict=True))
        return self._join(several)

    def _join(self, tensors: Sequence[Tensor]) -> Tensor:
        if self.parts == 1:
            return torch.cat(tensors)
        return torch.cat([torch.cat(part) for part in zip(*(t.chunk(self.parts) for t in tensors), strict=True)])


def _blocks(x: Tensor, s: int) -> Tensor:
    if len(x) % s:
        raise ValueError(f"{len(x)} rows cannot be divided among {s} models: expected a multiple of {s}")
    return x.reshape(s, len(x) // s, *x.shape[1:])
