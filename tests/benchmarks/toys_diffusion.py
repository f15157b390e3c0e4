"""Diffusion and flow matching on the toys, against the exact densities, with the floors beside.

    python tests/benchmarks/toys_diffusion.py [--family diffusion] [--data ring8 ...] [--seeds 5]

Targets: sliced W2 at most 0.07 on two-clusters-diagonal; C2ST at most 0.53 on two-clusters-flat; on ring8 8 modes and
at least 0.95 of the samples near one. Training takes less than 2 minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import product

import numpy as np
import torch

from course_lib.data import Draws, toy
from course_lib.evaluation import c2st, mode_coverage, sliced_wasserstein
from course_lib.losses import VELOCITY, V
from course_lib.models.diffusion import Diffusion
from course_lib.nn import TimeMLP
from course_lib.schedules import Cosine, LinearLogSNR, Straight, power_clock
from course_lib.train import EMA, fit, minimize

FAMILIES = ("diffusion", "flow-matching")
SAMPLES, HELD_OUT, PAIRS = 10_000, 1000, 2

# Broad clusters need all noise levels alike. The ring's modes are 1/100 of its radius: there, most of the work is to be
# done where the noise is small, and the network must change fast.
BROAD = {"steps": 2000, "batch_size": 256, "hidden": (64, 64, 64), "waves": 0}
NARROW = {"steps": 5000, "batch_size": 512, "hidden": (128, 128, 128), "waves": 4}
SETTINGS = {"two-clusters-diagonal": BROAD, "two-clusters-flat": BROAD, "ring8": NARROW}
LR, EMA_DECAY = 4e-3, 0.998


def family(name: str, data_name: str) -> dict[str, object]:
    """Schedule, prediction and clock."""
    narrow = SETTINGS[data_name] is NARROW
    if name == "diffusion":
        schedule = LinearLogSNR(start=11.0, end=-9.0) if narrow else Cosine()
        return {"schedule": schedule, "prediction": V}
    clock = partial(power_clock, exponent=3.0, low=2e-3) if narrow else power_clock
    return {"schedule": Straight(), "prediction": VELOCITY, "clock": clock}


def train(name: str, data_name: str, seed: int) -> Diffusion:
    """Train on fresh draws of a toy density."""
    torch.manual_seed(seed)
    settings = SETTINGS[data_name]
    network = TimeMLP(2, hidden=settings["hidden"], waves=settings["waves"])
    model = Diffusion(network, (2,), **family(name, data_name))
    ema = EMA(model, decay=EMA_DECAY)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=settings["steps"], pct_start=0.1)
    draws = Draws(toy(data_name).sample, batch_size=settings["batch_size"], seed=seed)
    fit(minimize(model.loss, optimizer, clip=10.0, ema=ema, schedule=schedule), draws, settings["steps"])
    return ema.model.eval()


@torch.no_grad()
def figures(model: Diffusion, name: str, seed: int) -> dict[str, float]:
    """All figures of one trained model, each with what the true density itself would get."""
    torch.manual_seed(10_000 + seed)
    p = toy(name)
    held_out = p.sample(HELD_OUT)
    row = {"gap in log-lik": (model.log_prob(held_out, steps=100) - p.log_prob(held_out)).mean().item()}
    x = model.sample(PAIRS * SAMPLES, steps=40).split(SAMPLES)
    # one pair of samples says little: how many points fall in each mode varies, and with it the distance
    row["sliced W2"] = np.mean([sliced_wasserstein(p.sample(SAMPLES), part) for part in x])
    row["W2 floor"] = np.mean([sliced_wasserstein(p.sample(SAMPLES), p.sample(SAMPLES)) for _ in x])
    row["C2ST"] = c2st(p.sample(SAMPLES), x[0]).accuracy
    found, true = mode_coverage(x[0], p), mode_coverage(p.sample(SAMPLES), p)
    return row | {"modes": found.covered, "near": found.near, "near floor": true.near, "spread": found.spread}


def main() -> None:
    """Train on every toy with every seed, print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--data", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed, name, kind in product(range(options.seeds), options.data, options.family):
        start = time.process_time()
        model = train(kind, name, seed)
        seconds = time.process_time() - start
        row = " | ".join(f"{key} {value:.4g}" for key, value in figures(model, name, seed).items())
        print(f"{name} | {kind} | seed {seed} | {seconds:.1f} s | {row}", flush=True)


if __name__ == "__main__":
    main()
