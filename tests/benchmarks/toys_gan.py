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

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from toys import Judged, Row, command_line, table

from course_lib.data import Draws, toy
from course_lib.losses import zero_centered_penalty
from course_lib.models.gan import GAN
from course_lib.models.gan_layers import InstanceNoise
from course_lib.models.wgan import WGANGP
from course_lib.nn import MLP
from course_lib.train import EMA, alternate, fit


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


def train(recipe: Recipe, seed: int) -> Judged:
    """Train on fresh draws of a toy density."""
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
    return Judged(torch.no_grad()(lambda n: ema.model(torch.randn(n, recipe.latent))))


if __name__ == "__main__":
    parser = command_line(__doc__, rows=tuple(ROWS))
    parser.add_argument("--no-plain", action="store_true", help="leave out the recipe without remedies")
    options = parser.parse_args()
    rows = []
    for name in options.rows:
        if not options.no_plain:
            rows.append(Row(f"{name}, plain", ROWS[name].data, partial(train, plain(ROWS[name]))))
        rows.append(Row(name, ROWS[name].data, partial(train, ROWS[name])))
    table(rows, options.seeds)
