"""Three seeds of a small model trained as one batched model, against three runs in turn: same networks, batches, steps.

    python tests/benchmarks/speed_stacking.py [--seeds 3] [--steps 300] [--rounds 5]

Targets for three seeds: 2.2 times (WGAN-GP) and 3 times (VAE) as fast as three runs in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

from course_lib.data import Draws, toy
from course_lib.losses import critic_loss, gradient_penalty, wasserstein_generator_loss
from course_lib.models.vae import VAE, make_vae
from course_lib.nn import MLP, GaussianPixels, dense_networks
from course_lib.stacking import Together, stack
from course_lib.train import Step, alternate, fit, minimize

LATENT, N_CRITIC = 2, 5


def adam(model: nn.Module, **options: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), fused=True, **options)


def vae(seed: int) -> VAE:
    torch.manual_seed(seed)
    return make_vae(dense_networks, (2,), LATENT, GaussianPixels(), hidden=[64, 64])


def vae_step(model: VAE, seeds: int) -> Step:
    return minimize(lambda x: seeds * model.loss(x), adam(model, lr=1e-3))


def wgan(seed: int) -> nn.ModuleDict:
    torch.manual_seed(seed)
    generator = MLP(LATENT, 2, hidden=(64, 64), activation=nn.ReLU)
    return nn.ModuleDict({"generator": generator, "critic": MLP(2, 1, hidden=(64, 64), activation=nn.ReLU)})


def wgan_step(model: nn.ModuleDict, seeds: int) -> Step:
    generator, critic = model["generator"], model["critic"]

    def fake(x: torch.Tensor) -> torch.Tensor:
        return generator(torch.randn(len(x), LATENT))

    def loss_of_critic(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x_fake = fake(x)
        return seeds * (critic_loss(critic(x), critic(x_fake)) + 0.1 * gradient_penalty(critic, x, x_fake))

    return alternate(
        loss_of_critic,
        lambda x: seeds * wasserstein_generator_loss(critic(fake(x))),
        critic_optimizer=adam(critic, lr=1e-3),
        generator_optimizer=adam(generator, lr=1e-3),
        n_critic=N_CRITIC,
    )


def batches(seed: int, size: int) -> list[torch.Tensor]:
    draws = Draws(toy("two-clusters-diagonal").sample, batch_size=size, seed=seed)
    return [draws[k] for k in range(20)]


class Around:
    """A few batches over and over, so that drawing them costs nothing in either loop."""

    def __init__(self, few: Sequence[torch.Tensor]) -> None:
        self.few = few

    def __getitem__(self, k: int) -> torch.Tensor:
        return self.few[k % len(self.few)]


def seconds(step: Step, data: Around, steps: int) -> float:
    started = time.perf_counter()
    fit(step, data, steps)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, make, make_step, size, parts in (
        ("VAE", vae, vae_step, 128, 1),
        ("WGAN-GP", wgan, wgan_step, N_CRITIC * 128, N_CRITIC),
    ):
        each = [batches(seed, size) for seed in range(options.seeds)]
        joined = Together(each, parts=parts)
        joined = Around([joined[k] for k in range(20)])
        ratios, rates = [], []
        for _ in range(options.rounds):
            models = [make(seed) for seed in range(options.seeds)]
            together = seconds(make_step(stack(models), options.seeds), joined, options.steps)
            in_turn = sum(
                seconds(make_step(model, 1), Around(few), options.steps)
                for model, few in zip(models, each, strict=True)
            )
            ratios.append(in_turn / together)
            rates.append(options.steps / together)
        print(
            f"{name:8} {options.seeds} seeds as one: {statistics.median(ratios):.2f} times as fast as in turn "
            f"(from {min(ratios):.2f} to {max(ratios):.2f}); {statistics.median(rates):.0f} steps/s for all together"
        )


if __name__ == "__main__":
    main()
