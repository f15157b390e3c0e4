"""A VAE with a learned sigma on the toys; samples are drawn with the observation's noise.

    python tests/benchmarks/toys_vae.py [--data two-clusters-diagonal ...] [--seeds 5]

Target: sliced W2 at most 0.10 on two-clusters-diagonal, where two real samples of 10,000 have 0.038.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from course_lib.data import Draws, toy
from course_lib.evaluation import c2st, mode_coverage, sliced_wasserstein
from course_lib.models.vae import VAE, make_vae
from course_lib.nn import GaussianPixels, dense_networks
from course_lib.train import EMA, fit, minimize

DATA = ("two-clusters-diagonal", "two-clusters-flat", "ring8", "tilted-gaussian")
SETTINGS = {"steps": 6000, "batch_size": 512, "lr": 2e-3, "latent": 2, "hidden": (128, 128), "ema": 0.998}
SAMPLES, DRAWS = 10_000, 10


def train(data_name: str, seed: int) -> VAE:
    """Train on fresh draws of a toy density."""
    torch.manual_seed(seed)
    model = make_vae(dense_networks, (2,), SETTINGS["latent"], GaussianPixels(), hidden=SETTINGS["hidden"])
    ema = EMA(model, decay=SETTINGS["ema"])
    optimizer = torch.optim.Adam(model.parameters(), lr=SETTINGS["lr"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=SETTINGS["lr"], total_steps=SETTINGS["steps"], pct_start=0.1
    )
    draws = Draws(toy(data_name).sample, batch_size=SETTINGS["batch_size"], seed=seed)
    fit(minimize(model.loss, optimizer, clip=10.0, ema=ema, schedule=schedule), draws, SETTINGS["steps"])
    return ema.model.eval()


@torch.no_grad()
def figures(model: VAE, name: str, seed: int) -> dict[str, float]:
    """All figures of one trained model, with the floor of two real samples."""
    torch.manual_seed(10_000 + seed)
    p = toy(name)
    pairs = [(p.sample(SAMPLES), model.sample(SAMPLES), p.sample(SAMPLES)) for _ in range(DRAWS)]
    coverage = mode_coverage(pairs[0][1], p)
    return {
        "sliced W2": np.mean([sliced_wasserstein(real, fake) for real, fake, _ in pairs]),
        "W2 floor": np.mean([sliced_wasserstein(real, other) for real, _, other in pairs]),
        "C2ST": c2st(*pairs[0][:2]).accuracy,
        "modes": coverage.covered,
        "near": coverage.near,
        "spread": coverage.spread,
        "sigma": model.likelihood.sigma,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.data:
        for seed in range(options.seeds):
            start = time.process_time()
            model = train(name, seed)
            seconds = time.process_time() - start
            row = " | ".join(f"{key} {value:.4f}" for key, value in figures(model, name, seed).items())
            print(f"{name} | seed {seed} | {seconds:.1f} s | {row}", flush=True)


if __name__ == "__main__":
    main()
