"""Three seeds of a small model trained as one batched model, against three runs in turn: same networks, batches, steps.

    python tests/benchmarks/speed_stacking.py [--seeds 0 1 2] [--steps 300] [--rounds 5] [--batch-size 32 64 128]

In turn, the runs are timed twice: by our own loop (fused Adam, batches that are there already), and by the loop that
tutorials show, as in the other comparisons of speed (a ``DataLoader``, Adam with its defaults, losses read at every
step). Targets for three seeds: 2.2 times (WGAN-GP) and 3 times (VAE) as fast as three runs in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence

import torch
from speed_wgan import CRITIC_UPDATES, plain_game
from timing import loaded, plain_steps
from torch import Tensor, nn

from course_lib.data import Draws, toy
from course_lib.models.vae import VAE, make_vae
from course_lib.models.wgan import WGANGP
from course_lib.nn import MLP, GaussianPixels, dense_networks
from course_lib.stacking import Together, stack
from course_lib.train import Step, alternate, fit, minimize

LATENT, PENALTY = 2, 0.1


def adam(model: nn.Module, **options: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), fused=True, **options)


def vae(seed: int) -> VAE:
    torch.manual_seed(seed)
    return make_vae(dense_networks, (2,), LATENT, GaussianPixels(), hidden=[64, 64])


def plain_vae(model: VAE, x: Tensor, batch_size: int) -> Iterator[None]:
    return plain_steps(model.loss, model.parameters(), loaded(x, batch_size))


def vae_step(model: VAE, seeds: int) -> Step:
    return minimize(lambda x: seeds * model.loss(x), adam(model, lr=1e-3))


def wgan(seed: int) -> WGANGP:
    torch.manual_seed(seed)
    generator = MLP(LATENT, 2, hidden=(64, 64), activation=nn.ReLU)
    critic = MLP(2, 1, hidden=(64, 64), activation=nn.ReLU)
    return WGANGP(generator, critic, latent=LATENT, penalty=PENALTY)


def plain_wgan(model: WGANGP, x: Tensor, batch_size: int) -> Iterator[None]:
    batches = loaded(x, batch_size)
    return plain_game(model.generator, model.critic, batches, penalty=PENALTY, latent=LATENT)


def wgan_step(model: WGANGP, seeds: int) -> Step:
    return alternate(
        lambda x: seeds * model.critic_loss(x),
        lambda x: seeds * model.generator_loss(x),
        critic_optimizer=adam(model.critic, lr=1e-3),
        generator_optimizer=adam(model.generator, lr=1e-3),
        n_critic=CRITIC_UPDATES,
    )


def batches(seed: int, size: int) -> list[Tensor]:
    draws = Draws(toy("two-clusters-diagonal").sample, batch_size=size, seed=seed)
    return [draws[k] for k in range(20)]


class Around:
    """A few batches over and over, so that drawing them costs nothing in our loops."""

    def __init__(self, few: Sequence[Tensor]) -> None:
        self.few = few

    def __getitem__(self, k: int) -> Tensor:
        return self.few[k % len(self.few)]


def seconds(step: Step, data: Around, steps: int) -> float:
    started = time.perf_counter()
    fit(step, data, steps)
    return time.perf_counter() - started


def seconds_plain(loop: Iterator[None], steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        next(loop)
    return time.perf_counter() - started


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} times (from {min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="which seeds, not how many")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 64, 128], help="rows of one update")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, steps = options.seeds, options.steps
    for batch_size in options.batch_size:
        for name, make, make_step, plain, parts in (
            ("VAE", vae, vae_step, plain_vae, 1),
            ("WGAN-GP", wgan, wgan_step, plain_wgan, CRITIC_UPDATES),
        ):
            each = [batches(seed, parts * batch_size) for seed in seeds]
            joined = Together(each, parts=parts)
            joined = Around([joined[k] for k in range(20)])
            ours, tutorials, rates = [], [], []
            for _ in range(options.rounds):
                models = [make(seed) for seed in seeds]
                together = seconds(make_step(stack(models), len(seeds)), joined, steps)
                pairs = list(zip(models, each, strict=True))
                in_turn = [seconds(make_step(model, 1), Around(few), steps) for model, few in pairs]
                plainly = [seconds_plain(plain(model, torch.cat(few), batch_size), steps) for model, few in pairs]
                ours.append(sum(in_turn) / together)
                tutorials.append(sum(plainly) / together)
                rates.append(steps / together)
            print(
                f"{name:8} batch {batch_size:3}   {len(seeds)} seeds as one, against the same in turn: "
                f"{spread(ours)} as fast as our loop, {spread(tutorials)} as fast as plain loops; "
                f"{statistics.median(rates):.0f} steps/s for all together",
                flush=True,
            )


if __name__ == "__main__":
    main()
