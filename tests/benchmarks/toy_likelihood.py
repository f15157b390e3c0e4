"""What the toy benchmarks of models with an exact likelihood share: the figures of one model, and the table."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from course_lib.data import toy
from course_lib.probability import GaussianMixture

DATA = ("two-clusters-diagonal", "two-clusters-flat", "ring8")
SAMPLES, HELD_OUT, DRAWS = 10_000, 100_000, 10


def sliced_w2(x: Tensor, y: Tensor, *, projections: int = 500) -> float:
    """Sliced 2-Wasserstein distance of two samples of the same size."""
    directions = torch.nn.functional.normalize(torch.randn(x.shape[1], projections), dim=0)
    gaps = (x @ directions).sort(0).values - (y @ directions).sort(0).values
    return gaps.square().mean().sqrt().item()


def c2st(x: Tensor, y: Tensor) -> float:
    """Held-out accuracy of a classifier by 25 nearest neighbours; 0.5 when it cannot tell the samples apart."""
    both, labels = torch.cat([x, y]).numpy(), np.repeat([0, 1], [len(x), len(y)])
    order = np.random.default_rng(0).permutation(len(both))
    return cross_val_score(KNeighborsClassifier(25), both[order], labels[order], cv=5).mean()


def modes(x: Tensor, p: GaussianMixture) -> tuple[int, float]:
    """Modes with a sample within 3 standard deviations, and the share of samples that are so near to one."""
    distance, mode = torch.cdist(x, p.means).min(1)
    near = distance < 3 * p.covariances[mode, 0, 0].sqrt()
    return len(mode[near].unique()), near.float().mean().item()


def draw_from_density(log_prob: Callable[[Tensor], Tensor], p: GaussianMixture, n: int) -> Tensor:
    """Samples of a density that do not come from its own sampler: rejection from a wider copy of the truth."""
    wide = GaussianMixture(p.means, 2 * p.covariances)
    wider = GaussianMixture(p.means, 100 * p.covariances)
    flat = GaussianMixture(p.mean[None], 4 * p.covariance[None])
    parts = [wide.sample(40 * n), wider.sample(20 * n), flat.sample(20 * n)]
    x = torch.cat(parts)
    weights = torch.tensor([0.5, 0.25, 0.25]).log()[:, None]
    proposal = (torch.stack([q.log_prob(x) for q in (wide, wider, flat)]) + weights).logsumexp(0)
    log_ratio = torch.cat([log_prob(chunk) for chunk in x.split(100_000)]) - proposal
    accepted = x[torch.rand(len(x)).log() < log_ratio - log_ratio.max()]
    if len(accepted) < n:
        raise RuntimeError(f"only {len(accepted)} of {len(x)} proposals were accepted, {n} are needed")
    return accepted[torch.randperm(len(accepted))[:n]]


@torch.no_grad()
def figures(model: torch.nn.Module, name: str, seed: int) -> dict[str, float]:
    """All figures of one trained model, each with what the true density itself would get."""
    torch.manual_seed(10_000 + seed)
    p = toy(name)
    held_out = p.sample(HELD_OUT)
    row = {"log-lik": model.log_prob(held_out).mean().item(), "true": p.log_prob(held_out).mean().item()}
    # one pair of samples says little: how many points fall in each mode varies, and with it the distance
    row["sliced W2"] = np.mean([sliced_w2(p.sample(SAMPLES), model.sample(SAMPLES)) for _ in range(DRAWS)])
    row["W2 floor"] = np.mean([sliced_w2(p.sample(SAMPLES), p.sample(SAMPLES)) for _ in range(DRAWS)])
    x = model.sample(SAMPLES)
    row["C2ST"] = c2st(p.sample(SAMPLES), x)
    row["C2ST own"] = c2st(draw_from_density(model.log_prob, p, SAMPLES), x)
    if len(p.means) == 8:
        row["modes"], row["near"] = modes(x, p)
    return row


def main(train: Callable[..., torch.nn.Module], what: str) -> None:
    """Command line of a family: train on every toy with every seed, print a row each."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.data:
        _table(train, name, range(options.seeds))


def _table(train: Callable[..., torch.nn.Module], name: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        start = time.process_time()
        model = train(name, seed)
        seconds = time.process_time() - start
        row = " | ".join(f"{key} {value:.4f}" for key, value in figures(model, name, seed).items())
        print(f"{name} | seed {seed} | {seconds:.1f} s | {row}", flush=True)
