r"""Held-out likelihood: the one figure of merit with an absolute meaning, for the families that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.evaluation.intervals import Interval, mean_interval
from course_lib.probability import bits_per_dim

__all__ = ["HeldOut", "held_out_likelihood"]


class HeldOut(NamedTuple):
    """Mean negative log-likelihood ``nll`` in nats per example, and the same in ``bits`` per dimension."""

    nll: Interval
    bits: Interval


@torch.no_grad()
def held_out_likelihood(
    log_prob: Callable[[Tensor], Tensor], x: Tensor, *, levels: int = 1, batch_size: int = 500
) -> HeldOut:
    r"""Mean negative log-likelihood of data that the model was not trained on.

    .. math:: \mathrm{NLL} = -\frac1N \sum_i \log p(x_i), \qquad
              \text{bits/dim} = \frac{\mathrm{NLL}}{D \ln 2} + \log_2 L

    Its expectation is the entropy of the data plus :math:`D_{\mathrm{KL}}(\text{data} \Vert \text{model})`, so a model
    cannot do better than the entropy. A log-density and the log-probability of integer levels are on one scale only
    after dequantization, see :func:`course_lib.probability.dequantize`.

    Args:
        log_prob: Maps (B, \*event) to (B,) nats; a lower bound, such as the ELBO, makes the result an upper bound.
        x: Held-out data, shape (N, \*event).
        levels: Number of integer levels L that the data was scaled from when ``log_prob`` is a density of the scaled
            data; 1 when it is a log-probability, or the data was never discrete.
        batch_size: Number of rows for one call.

    Returns:
        Both figures, with their intervals; lower is better.

    Raises:
        ValueError: If there are fewer than 2 rows, or ``log_prob`` returns another shape than (B,).
        FloatingPointError: If a log-likelihood is NaN or infinite; the message names the row. One impossible row makes
            the mean infinite, and leaving it out would flatter the model.

    Reference:
        Theis, van den Oord and Bethge, *A note on the evaluation of generative models* (2016), section 3.1.

    Example:
        >>> from course_lib.probability import ring
        >>> nll, bits = held_out_likelihood(ring().log_prob, ring().sample(10_000))
        >>> abs(nll.value + 2.907) < 0.05, nll.low < nll.value < nll.high
        (True, True)
    """
    values = torch.cat([_checked(log_prob(batch), batch) for batch in x.split(batch_size)])
    if not (finite := values.isfinite()).all():
        rows = (~finite).nonzero().flatten()
        raise FloatingPointError(
            f"the log-likelihood of {len(rows)} of {len(x)} rows is not finite; row {int(rows[0])} has "
            f"{values[rows[0]].item()}"
        )
    nll = mean_interval(-values)
    bits = (bits_per_dim(-torch.tensor(bound).double(), dims=x[0].numel(), levels=levels).item() for bound in nll)
    return HeldOut(nll, Interval(*bits))


def _checked(values: Tensor, batch: Tensor) -> Tensor:
    if values.shape != batch.shape[:1]:
        raise ValueError(f"expected one log-likelihood for each of {len(batch)} rows, got shape {tuple(values.shape)}")
    return values.double()
