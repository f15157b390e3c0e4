r"""What is modelled, with which means, and what comes out: the three things a family and the leaderboard agree on.

Continuous models see images as points: dequantized, so that a density makes sense, and scaled to [-2, 2],

.. math:: y = \frac{(L - 1)\, x + u}{L}, \qquad v = 4 y - 2, \qquad
          \log P(x) \ge \mathbb E_u \log p(v) + D \log \frac 4L ,

with L levels and D pixels. So every likelihood of an image is a log-probability of its levels, or a lower bound of it,
and all are on one scale. Toy data is left as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from course_lib.data import IMAGES, TOYS, Batches, Draws, LabelledImages, images, toy
from course_lib.probability import GaussianMixture, dequantize
from course_lib.train import Checkpoint, Indexable, Step, fit

__all__ = ["Family", "Problem", "Run", "Trained", "problem"]


@dataclass(frozen=True)
class Problem:
    r"""Data to model: a toy with a known density, or images with a training and a test set.

    Args:
        name: Its name in the command and the tables.
        mixture: The density of a toy; None for images.
        train: Training images; None for toys, which are drawn afresh for every batch.
        test: Test images, which models are judged by.
        levels: Number of grey levels L of the images.
    """

    name: str
    mixture: GaussianMixture | None = None
    train: LabelledImages | None = None
    test: LabelledImages | None = None
    levels: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return (self.mixture.dim,) if self.train is None else tuple(self.train.x.shape[1:])

    @property
    def dim(self) -> int:
        """Number of dimensions D of one example."""
        return math.prod(self.shape)

    def batches(self, run: Run) -> Indexable:
        """Endless batches of data for training."""
        if self.train is None:
            return Draws(self.mixture.sample, batch_size=run.batch_size, seed=run.seed)
        return Batches(self.train.x, batch_size=run.batch_size, seed=run.seed)

    def points(self, run: Run) -> Indexable:
        """The same batches as points for continuous models, shape (B, D)."""
        return _Mapped(self.to_points, self.batches(run))

    def to_points(self, x: Tensor) -> Tensor:
        r"""Data to points v, (B, \*shape) -> (B, D)."""
        return x if self.train is None else 4 * dequantize(x.flatten(1), levels=self.levels) - 2

    def to_data(self, v: Tensor) -> Tensor:
        r"""Points to data, (B, D) -> (B, \*shape); images are cut to the allowed levels."""
        if self.train is None:
            return v
        level = ((v + 2) / 4 * self.levels).floor().clamp(0, self.levels - 1)
        return (level / (self.levels - 1)).view(-1, *self.shape)

    @property
    def log_volume(self) -> float:
        """What to add to a log-density of points for a log-probability (a lower bound) of images, in nats."""
        return 0.0 if self.train is None else self.dim * math.log(4 / self.levels)


def problem(name: str) -> Problem:
    r"""Look up a problem.

    Args:
        name: One of :data:`course_lib.data.TOYS` or :data:`course_lib.data.IMAGES`.

    Returns:
        The problem.

    Raises:
        ValueError: If there is no such data.
        DataError: If images are missing.

    Example:
        >>> problem("ring8").shape, problem("digits").shape
        ((2,), (1, 8, 8))
    """
    if name in TOYS:
        return Problem(name, mixture=toy(name))
    if name not in IMAGES:
        raise ValueError(f"no data is called {name!r}; there are {', '.join([*TOYS, *IMAGES])}")
    return Problem(name, train=images(name), test=images(name, split="test"), levels=17 if name == "digits" else 256)


class _Mapped:
    def __init__(self, function: Callable[[Tensor], Tensor], batches: Indexable) -> None:
        self.function, self.batches = function, batches

    def __getitem__(self, k: int) -> Tensor:
        return self.function(self.batches[k])


class Trained(NamedTuple):
    r"""What a family hands over when it is trained.

    ``sample(n)`` draws n samples in the space of the data. ``log_prob`` maps data to nats, for images as
    log-probabilities; None where the family has none, and ``bound`` says that it is a lower bound. ``passes`` counts
    calls of a network, one after the other, for one batch of samples; ``parameters`` all that were trained.
    """

    sample: Callable[[int], Tensor]
    log_prob: Callable[[Tensor], Tensor] | None = None
    bound: bool = False
    passes: int | None = None
    parameters: int | None = None


@dataclass
class Run:
    """One training: the budget, which is the same for every family, the seed, and where to go on after an interruption.

    Args:
        steps: Training steps. A step of two players updates both.
        batch_size: Examples for each step.
        seed: Chooses weights and batches.
        checkpoint: File to resume from and to save to; None keeps nothing.
    """

    steps: int
    batch_size: int
    seed: int = 0
    checkpoint: Path | None = None
    clock: _Clock = field(default_factory=lambda: _Clock())

    def fit(self, step: Step, batches: Indexable, **parts: Any) -> None:
        """Train, or go on where the checkpoint was saved; the parts are all that changes in training, by name."""
        hooks, history = [], None
        if self.checkpoint is not None:
            checkpoint = Checkpoint(self.checkpoint, every=max(1, self.steps // 4), clock=self.clock, **parts)
            hooks, history = [checkpoint], checkpoint.restore()
        with self.clock:
            fit(step, batches, self.steps, history=history, hooks=hooks)


class _Clock:
    """CPU time of a training in seconds, which goes on after an interruption."""

    def __init__(self) -> None:
        self._before, self._since = 0.0, None

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._since is None else time.process_time() - self._since)

    def __enter__(self) -> None:
        self._since = time.process_time()

    def __exit__(self, *exception: object) -> None:
        self._before, self._since = self.seconds, None

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._before = state["seconds"]


Family = Callable[[Problem, Run], Trained]
