"""What the comparisons of speed share: the clock, and the loop that tutorials show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset


def steps_per_second(
    steps: Iterator[None], seconds: float, *, clock: Callable[[], float] = time.process_time, warm_up: int = 20
) -> float:
    """How fast an endless loop yields; by processor time, so that other programs on the machine count less."""
    for _ in range(warm_up):
        next(steps)
    done, started = 0, clock()
    while clock() - started < seconds:
        next(steps)
        done += 1
    return done / (clock() - started)


def loaded(data: Tensor | Dataset, batch_size: int) -> Iterator[Tensor]:
    """Shuffled batches by a ``DataLoader``, again and again; of a data set that has labels, without them."""
    dataset = TensorDataset(data) if isinstance(data, Tensor) else data
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)
    while True:
        for x, *_ in loader:
            yield x


def plain_steps(
    loss: Callable[[Tensor], Tensor], parameters: Iterable[Tensor], batches: Iterable[Tensor], *, lr: float = 1e-3
) -> Iterator[None]:
    """One model with one loss, as in a tutorial: Adam with its defaults, and a loss that is read at every step."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for batch in batches:
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        optimizer.step()
        value.item()  # tutorials add up the loss for printing
        yield
