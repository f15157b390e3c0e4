"""A GAN and a WGAN-GP on the toys: a plain recipe beside one with remedies, judged like every other family.

    python tests/benchmarks/toys_gan.py [--rows tilted-gan ...] [--seeds 0 1 2 3 4] [--no-plain]

Targets, each on five of five seeds:

- tilted-gan: C2ST at most 0.54, KL of the fitted Gaussian to the truth at most 0.03;
- flat-gan (two clusters, std 0.5): C2ST at most 0.60, within-mode spread 0.9 to 1.1;
- diagonal-wgan (two clusters, std 1): sliced W2 at most 0.10;
- ring-gan, ring-wgan: 8 of 8 modes covered, at least 0.80 of the samples within 3 standard deviations of one.

The plain recipe has no remedy: rate 1e-3 throughout, Adam's usual decay rates, batches of 64, samples from the last
generator, lambda 10. The remedies of each row stand in ``ROWS``. Both train for the same number of steps.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.data import Draws, toy
from course_lib.evaluation.classifier_tests import c2st
from course_lib.evaluation.distances import sliced_wasserstein
from course_lib.evaluation.modes import mode_coverage
from course_lib.losses import zero_centered_penalty
from course_lib.models.gan import GAN
from course_lib.models.gan_layers import InstanceNoise
from course_lib.models.wgan import WGANGP
from course_lib.nn import MLP
from course_lib.probability import GaussianMixture
from course_lib.train import EMA, alternate, fit

SAMPLES, DRAWS = 10_000, 10


@dataclass(frozen=True)
class Recipe:
    """How one row is trained. The defaults are the plain recipe."""

    data: str
    steps: int
    latent: int = 2
    generator: tuple[int, ...] = (128, 128)
    judge: tuple[int, ...] = (128, 128)
    penalty: float | None = None  # of a WGAN-GP; a GAN has none
    n_critic: int = 1
    batch_size: int = 64
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    falls_from: float = 1.0  # the rate is constant until this share of the steps, then falls to 0 like a cosine
    ema: float = 0.0  # 0 averages nothing
    noise: tuple[float, float] | None = None  # standard deviation of the instance noise at the start and at the end
    flatness: float = 0.0  # weight of the zero-centred penalty (R1) on a GAN's discriminator


def plain(recipe: Recipe) -> Recipe:
    """The same networks for as many steps, without the remedies."""
    return Recipe(
        data=recipe.data,
        steps=recipe.steps,
        latent=recipe.latent,
        generator=recipe.generator,
        judge=recipe.judge,
        penalty=None if recipe.penalty is None else 10.0,
        n_critic=recipe.n_critic,
    )


REMEDIES = {"batch_size": 256, "betas": (0.0, 0.9), "falls_from": 0.3, "ema": 0.995}

ROWS = {
    "tilted-gan": Recipe(
        "tilted-gaussian",
        2500,
        generator=(),
        judge=(64, 64),
        flatness=0.1,
        **REMEDIES | {"lr": 3e-3, "betas": (0.5, 0.9)},
    ),
    "flat-gan": Recipe("two-clusters-flat", 5000, latent=4, noise=(0.5, 0.05), **REMEDIES),
    "diagonal-wgan": Recipe("two-clusters-diagonal", 2500, latent=4, penalty=0.1, n_critic=5, **REMEDIES),
    "ring-gan": Recipe("ring8", 6000, generator=(128,) * 3, judge=(128,) * 3, noise=(0.3, 0.02), **REMEDIES),
    "ring-wgan": Recipe("ring8", 2500, generator=(128,) * 3, judge=(128,) * 3, penalty=0.1, n_critic=5, **REMEDIES),
}


def train(recipe: Recipe, seed: int) -> Callable[[int], Tensor]:
    """Train on fresh draws; a function that draws samples."""
    torch.manual_seed(seed)
    generator = MLP(recipe.latent, 2, hidden=recipe.generator, activation=nn.ReLU)
    judge = MLP(2, 1, hidden=recipe.judge, activation=partial(nn.LeakyReLU, 0.2))
    fade = None
    if recipe.penalty is not None:
        model = WGANGP(generator, judge, latent=recipe.latent, penalty=recipe.penalty)
        judge_loss = model.critic_loss
    else:
        if recipe.noise:
            noise = InstanceNoise(recipe.noise[0])
            judge = nn.Sequential(noise, judge)
            fade = partial(noise.anneal, (recipe.noise[1] / recipe.noise[0]) ** (1 / recipe.steps))
        model = GAN(generator, judge, latent=recipe.latent)
        judge_loss = model.discriminator_loss
        if recipe.flatness:

            def judge_loss(x: Tensor) -> Tensor:
                return model.discriminator_loss(x) + 0.5 * recipe.flatness * zero_centered_penalty(judge, x)

    optimizers = [
        torch.optim.Adam(player.parameters(), lr=recipe.lr, betas=recipe.betas, fused=True)
        for player in (judge, generator)
    ]

    def rate(k: int) -> float:
        late = k / recipe.steps - recipe.falls_from
        return 0.5 * (1 + math.cos(math.pi * late / (1 - recipe.falls_from))) if late > 0 else 1.0

    ema = EMA(generator, decay=recipe.ema)
    step = alternate(
        judge_loss,
        model.generator_loss,
        critic_optimizer=optimizers[0],
        generator_optimizer=optimizers[1],
        n_critic=recipe.n_critic,
        after_critic=fade,
        ema=ema,
        schedules=[torch.optim.lr_scheduler.LambdaLR(o, rate) for o in optimizers],
    )
    draws = Draws(toy(recipe.data).sample, batch_size=recipe.batch_size * recipe.n_critic, seed=seed)
    fit(step, draws, recipe.steps)
    return torch.no_grad()(lambda n: ema.model(torch.randn(n, recipe.latent)))


@torch.no_grad()
def figures(sample: Callable[[int], Tensor], p: GaussianMixture, seed: int) -> dict[str, float]:
    """All figures of one sampler; the true density's own are the floor."""
    torch.manual_seed(10_000 + seed)
    # one pair of samples says little: how many points fall in each mode varies, and with it the distance
    row = {"sliced W2": np.mean([sliced_wasserstein(p.sample(SAMPLES), sample(SAMPLES)) for _ in range(DRAWS)])}
    x = sample(SAMPLES)
    row["C2ST"] = c2st(p.sample(SAMPLES), x).accuracy
    if len(p.means) == 1:
        fitted = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T))
        truth = torch.distributions.MultivariateNormal(p.mean, p.covariance)
        row["KL"] = torch.distributions.kl_divergence(fitted, truth).item()
    else:
        found = mode_coverage(x, p)
        row |= {"modes": found.covered, "near": found.near, "mode KL": found.kl, "spread": found.spread}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="which seeds, not how many")
    parser.add_argument("--no-plain", action="store_true", help="leave out the recipe without remedies")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.rows:
        recipes = {"remedies": ROWS[name]} if options.no_plain else {"plain": plain(ROWS[name]), "remedies": ROWS[name]}
        p = toy(ROWS[name].data)
        _report(name, "truth", figures(p.sample, p, 0))
        for label, recipe in recipes.items():
            for seed in options.seeds:
                start = time.process_time()
                sample = train(recipe, seed)
                seconds = time.process_time() - start
                _report(name, f"{label} | seed {seed} | {seconds:.0f} s", figures(sample, p, seed))


def _report(name: str, label: str, row: dict[str, float]) -> None:
    print(f"{name} | {label} | " + " | ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
