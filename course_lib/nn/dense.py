"""Fully connected networks, and numbers that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

__all__ = ["MLP", "Constant", "dense_networks"]


class MLP(nn.Sequential):
    r"""A fully connected network: linear layers with an activation between them.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        hidden: Sizes of the hidden layers; with none, the network is one linear layer.
        activation: Class of the activation.

    Example:
        >>> MLP(2, 1, hidden=[64])
        MLP(
          (0): Linear(in_features=2, out_features=64, bias=True)
          (1): SiLU()
          (2): Linear(in_features=64, out_features=1, bias=True)
        )
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        sizes = [in_features, *hidden, out_features]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), activation()]
        super().__init__(*layers[:-1])


def dense_networks(
    shape: Sequence[int], latent: int, *, hidden: Sequence[int] = (512, 256)
) -> tuple[nn.Module, nn.Module]:
    r"""Make a fully connected encoder and decoder, one the mirror image of the other.

    Args:
        shape: Shape of one example, such as (C, H, W).
        latent: Size of the code K.
        hidden: Sizes of the encoder's hidden layers; the decoder has them in reverse.

    Returns:
        The encoder, (B, \*shape) -> (B, K), and the decoder, (B, K) -> (B, \*shape).

    Example:
        >>> import torch
        >>> encoder, decoder = dense_networks((1, 8, 8), 4, hidden=[32])
        >>> decoder(encoder(torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2, 1, 8, 8])
    """
    encoder = nn.Sequential(nn.Flatten(), MLP(prod(shape), latent, hidden=hidden))
    decoder = nn.Sequential(MLP(latent, prod(shape), hidden=hidden[::-1]), nn.Unflatten(1, tuple(shape)))
    return encoder, decoder


class Constant(nn.Module):
    r"""Learned numbers that are the same for every example, such as one standard deviation for all pixels.

    Args:
        value: Where they start, shape (F,).

    Example:
        >>> import torch
        >>> Constant(torch.tensor([0.5]))(torch.zeros(3, 7))
        tensor([[0.5000],
                [0.5000],
                [0.5000]], grad_fn=<ExpandBackward0>)
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self, x: Tensor) -> Tensor:
        r"""(B, \*any) -> (B, F), whatever the values of ``x``."""
        return self.value.expand(len(x), -1)
