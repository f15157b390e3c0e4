r"""Classifier two-sample tests: if no classifier can tell fake from real, they are the same.

Label real samples 1 and fake samples 0, train a classifier on one part and count on the other how often it is right.
With as many real as fake, an accuracy of 1/2 means that it cannot tell them apart. The best possible classifier has

.. math:: \text{accuracy}^* = \tfrac12 + \tfrac12 \, \mathrm{TV}(P, Q), \qquad
          \mathrm{TV}(P, Q) = \tfrac12 \int \left| p(x) - q(x) \right| dx ,

so every classifier's held-out accuracy is a lower bound on the total variation distance, and different classifiers see
different things: neighbours see fine structure, a small network sees smooth and global differences.

Cross-validation uses every point for training and for testing, so its verdicts are not independent: two held-out points
that are neighbours vote for each other. The accuracy varies 1.1 to 1.4 times as much as that of independent verdicts
(measured on normal samples). The intervals here count each verdict of K folds as :math:`(K - 1) / (2 K - 1)` of an
independent one, after Nadeau and Bengio, *Inference for the Generalization Error* (2003), which is on the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from course_lib.evaluation.checks import require_pair
from course_lib.evaluation.intervals import share_interval, shuffled
from course_lib.nn import MLP
from course_lib.train import fit, minimize

__all__ = ["C2ST", "c2st", "c2st_network"]


class C2ST(NamedTuple):
    """Held-out ``accuracy`` of a classifier of fake against real, and its 95 % confidence interval."""

    accuracy: float
    low: float
    high: float


# Maps training points, their labels and held-out points to predicted labels.
Classifier = Callable[[Tensor, Tensor, Tensor], Tensor]


def c2st(
    x: Tensor, y: Tensor, *, neighbours: int = 25, folds: int = 5, generator: torch.Generator | None = None
) -> C2ST:
    r"""Classifier two-sample test by nearest neighbours, cross-validated.

    A point is called real when most of its ``neighbours`` nearest training points are. The larger sample is cut at
    random to the size of the smaller, so that chance is 1/2.

    Args:
        x: Samples, shape (N, D). Distances are Euclidean: bring the dimensions to one scale first.
        y: Samples, shape (M, D).
        neighbours: Number of neighbours that vote; an odd number cannot tie.
        folds: Number of parts; each is predicted from all others.
        generator: Source of the split; the global random state when omitted.

    Returns:
        Accuracy over all held-out points, 0.5 when the samples cannot be told apart, and its interval.

    Raises:
        ValueError: If the samples cannot be compared, or are too few for the folds and the neighbours.

    Reference:
        Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests* (2017), section 3.

    Example:
        >>> c2st(torch.randn(500, 2), torch.randn(500, 2) + 10.0).accuracy
        1.0
    """
    require_pair(x=x, y=y)
    smaller = min(len(x), len(y))
    if not 1 <= neighbours <= 2 * (smaller - math.ceil(smaller / max(folds, 2))):
        raise ValueError(
            f"{neighbours} neighbours cannot be found: {folds} folds of {len(x)} and {len(y)} samples leave fewer"
        )

    def vote(points: Tensor, labels: Tensor, held_out: Tensor) -> Tensor:
        search = NearestNeighbors(n_neighbors=neighbours).fit(points.cpu().numpy())
        index = torch.as_tensor(search.kneighbors(held_out.cpu().numpy(), return_distance=False))  # (held out, k)
        return labels.cpu()[index].double().mean(1) > 0.5

    return _cross_validated(vote, x, y, folds=folds, generator=generator)


def c2st_network(
    x: Tensor,
    y: Tensor,
    *,
    hidden: tuple[int, ...] = (64, 64),
    steps: int = 500,
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> C2ST:
    r"""Classifier two-sample test by a small network, cross-validated.

    Inputs are standardized by the training points; the network is trained by Adam on batches of 256 with weight decay.
    The larger sample is cut at random to the size of the smaller, so that chance is 1/2.

    Args:
        x: Samples, shape (N, D).
        y: Samples, shape (M, D).
        hidden: Sizes of the hidden layers; with none, this is logistic regression.
        steps: Training steps of each fold.
        folds: Number of parts; each is predicted by a network trained on all others.
        generator: Source of the split and of the networks' weights and batches; the global random state when omitted.

    Returns:
        Accuracy over all held-out points, 0.5 when the samples cannot be told apart, and its interval.

    Raises:
        ValueError: If the samples cannot be compared, or are too few for the folds.

    Reference:
        Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests* (2017), section 3.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 500, 2, generator=g)
        >>> c2st_network(x, y + 10.0, steps=100, folds=2, generator=g).accuracy
        1.0
    """
    require_pair(x=x, y=y)

    def train_and_predict(points: Tensor, labels: Tensor, held_out: Tensor) -> Tensor:
        mean, std = points.mean(0), points.std(0).clamp(min=1e-6)
        points, held_out = ((part - mean) / std for part in (points, held_out))
        network = MLP(points.shape[1], 1, hidden=hidden).to(points)
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)

        def loss(index: Tensor) -> Tensor:
            logits = network(points[index])[:, 0]
            return F.binary_cross_entropy_with_logits(logits, labels[index].to(logits))

        index = torch.randint(len(points), (steps, min(256, len(points))), device=points.device)
        fit(minimize(loss, optimizer, schedule=schedule), index, steps)
        with torch.no_grad():
            return (network(held_out)[:, 0] > 0).long()

    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices, enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(torch.randint(2**62, (), generator=generator).item())
        return _cross_validated(train_and_predict, x, y, folds=folds, generator=None)


def _cross_validated(
    classify: Classifier, x: Tensor, y: Tensor, *, folds: int, generator: torch.Generator | None
) -> C2ST:
    n = min(len(x), len(y))
    if not 2 <= folds <= n:
        raise ValueError(f"folds must lie between 2 and the {n} rows of the smaller sample, got {folds}")
    points = torch.cat([shuffled(z, generator=generator)[:n].to(x.dtype) for z in (x, y)])  # (2n, D)
    labels = torch.arange(2, device=x.device).repeat_interleave(n)
    fold = torch.arange(2 * n, device=x.device) % n % folds  # every fold has as many of each
    right = 0
    for k in range(folds):
        held_out = fold == k
        predicted = classify(points[~held_out], labels[~held_out], points[held_out])
        right += int((predicted.to(labels) == labels[held_out]).sum())
    independent = (folds - 1) / (2 * folds - 1)
    _, low, high = share_interval(right * independent, 2 * n * independent)
    return C2ST(right / (2 * n), low, high)
