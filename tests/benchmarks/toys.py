"""What the toy benchmarks share: the same figures for every family, one command line, one table.

A script names its rows, each with its data and a function that trains one seed; this module trains, measures and
prints. The row ``truth`` is what the density's own samples get, in every figure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from course_lib.data import toy
from course_lib.evaluation import c2st, mode_coverage, sliced_wasserstein
from course_lib.probability import GaussianMixture

SAMPLES = 10_000


@dataclass(frozen=True)
class Judged:
    """One trained model, and how much of it is to be measured."""

    sample: Callable[[int], Tensor]
    log_prob: Callable[[Tensor], Tensor] | None = None
    held_out: int = 100_000  # points for the log-likelihood
    draws: int = 10  # pairs of samples for the sliced distance
    own: bool = False  # whether to hold the sampler against the model's own density too
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One row of the table: what it is called, its data, and how a seed is trained."""

    name: str
    data: str
    train: Callable[[int], Judged]


@torch.no_grad()
def figures(model: Judged, p: GaussianMixture, seed: int) -> dict[str, float]:
    """All figures of one model against the density it should have."""
    torch.manual_seed(10_000 + seed)
    row = {}
    if model.log_prob is not None:
        held_out = p.sample(model.held_out)
        row["log-lik"], truth = model.log_prob(held_out).mean().item(), p.log_prob(held_out).mean().item()
        row["gap in log-lik"] = row["log-lik"] - truth
    # one pair of samples says little: how many points fall in each mode varies, and with it the distance
    for name, sample in (("sliced W2", model.sample), ("W2 floor", p.sample)):
        pairs = ((p.sample(SAMPLES), sample(SAMPLES)) for _ in range(model.draws))
        row[name] = np.mean([sliced_wasserstein(real, other) for real, other in pairs])
    x = model.sample(SAMPLES)
    row["C2ST"] = c2st(p.sample(SAMPLES), x).accuracy
    if model.own:
        row["C2ST own"] = c2st(_from_density(model.log_prob, p, SAMPLES), x).accuracy
    found = mode_coverage(x, p)
    row |= {"modes": found.covered, "near": found.near, "mode KL": found.kl, "spread": found.spread}
    if len(p.means) == 1:
        fitted = MultivariateNormal(x.mean(0), torch.cov(x.T))
        row["KL"] = kl_divergence(fitted, MultivariateNormal(p.mean, p.covariance)).item()
    return row | model.more


def command_line(description: str, **choices: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with ``--seeds`` and one option for each of the choices, all of them by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, values in choices.items():
        parser.add_argument(f"--{name}", nargs="+", default=list(values), choices=list(values))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="which seeds, not how many")
    return parser


def table(rows: Iterable[Row], seeds: Sequence[int]) -> None:
    """Train every row with every seed and print a line each, below that of the true density."""
    torch.set_num_threads(1)
    judged = set()
    for row in rows:
        p = toy(row.data)
        if row.data not in judged:
            judged.add(row.data)
            _print(row.data, "truth", figures(Judged(p.sample, p.log_prob), p, 0))
        for seed in seeds:
            start = time.process_time()
            model = row.train(seed)
            seconds = time.process_time() - start
            _print(row.data, f"{row.name} | seed {seed} | {seconds:.1f} s", figures(model, p, seed))


def _print(data: str, label: str, row: dict[str, float]) -> None:
    print(f"{data} | {label} | " + " | ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


def _from_density(log_prob: Callable[[Tensor], Tensor], p: GaussianMixture, n: int) -> Tensor:
    """Samples of a density that do not come from its own sampler: weighted draws from wider copies of the truth."""
    wide = GaussianMixture(p.means, 2 * p.covariances)
    wider = GaussianMixture(p.means, 100 * p.covariances)
    flat = GaussianMixture(p.mean[None], 4 * p.covariance[None])
    x = torch.cat([wide.sample(40 * n), wider.sample(20 * n), flat.sample(20 * n)])
    weights = torch.tensor([0.5, 0.25, 0.25]).log()[:, None]
    proposal = (torch.stack([q.log_prob(x) for q in (wide, wider, flat)]) + weights).logsumexp(0)
    log_ratio = torch.cat([log_prob(chunk) for chunk in x.split(100_000)]) - proposal
    return x[torch.multinomial((log_ratio - log_ratio.max()).exp(), n)]
