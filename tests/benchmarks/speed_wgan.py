"""Steps per second of our WGAN-GP loop against a plain tutorial loop: same networks, same data, same batch, one run.

    python tests/benchmarks/speed_wgan.py [--seconds 4] [--rounds 5]

A step is five updates of the critic and one of the generator. The plain loop is what tutorials show: a ``DataLoader``
over a tensor, two passes of the critic for data and samples, the penalty by ``autograd.grad`` with ``grad_outputs``
and a norm, Adam with its defaults, and both losses read with ``.item()`` for printing. Ours is the course's
:class:`~course_lib.models.wgan.WGANGP` with :func:`~course_lib.train.alternate`: one pass for real data and samples,
fused Adam, batches that are slices, and no gradient in the critic's parameters while the generator learns. To see what
slicing alone gives, the plain loop is also timed on batches that are there already. The loops are timed in turn,
several times, in one process.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from timing import loaded, steps_per_second
from torch import Tensor, nn

from course_lib.data import Batches
from course_lib.models.wgan import WGANGP
from course_lib.nn import MLP
from course_lib.train import alternate

LATENT, CRITIC_UPDATES, RATE, BETAS = 8, 5, 1e-4, (0.5, 0.9)
LEAKY = partial(nn.LeakyReLU, 0.2)


def networks(dim: int, hidden: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    return MLP(LATENT, dim, hidden=hidden, activation=LEAKY), MLP(dim, 1, hidden=hidden, activation=LEAKY)


def plain_game(
    generator: nn.Module, critic: nn.Module, batches: Iterable[Tensor], *, penalty: float, latent: int = LATENT
) -> Iterator[None]:
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=RATE, betas=BETAS)
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS)
    for k, real in enumerate(batches, start=1):
        fake = generator(torch.randn(len(real), latent)).detach()
        alpha = torch.rand(len(real), 1)
        between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
        scores = critic(between)
        gradient = torch.autograd.grad(
            scores, between, grad_outputs=torch.ones_like(scores), create_graph=True, retain_graph=True
        )[0]
        slopes = ((gradient.norm(2, dim=1) - 1) ** 2).mean()
        critic_loss = critic(fake).mean() - critic(real).mean() + penalty * slopes
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        critic_loss.item()
        if k % CRITIC_UPDATES == 0:
            generator_loss = -critic(generator(torch.randn(len(real), latent))).mean()
            generator_optimizer.zero_grad()
            generator_loss.backward()
            generator_optimizer.step()
            generator_loss.item()
            yield


def slices(x: Tensor, batch_size: int) -> Iterator[Tensor]:
    while True:
        yield from x.split(batch_size)[:-1]


def our_steps(generator: nn.Module, critic: nn.Module, x: Tensor, *, batch_size: int, penalty: float) -> Iterator[None]:
    wgan = WGANGP(generator, critic, latent=LATENT, penalty=penalty)
    step = alternate(
        wgan.critic_loss,
        wgan.generator_loss,
        critic_optimizer=torch.optim.Adam(critic.parameters(), lr=RATE, betas=BETAS, fused=True),
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS, fused=True),
        n_critic=CRITIC_UPDATES,
    )
    batches = Batches(x, batch_size=batch_size * CRITIC_UPDATES)
    k = 0
    while True:
        step(batches[k])
        k += 1
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="time for each loop in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"steps per second of processor time, median of {options.rounds} rounds")
    for label, dim, hidden, batch_size in (
        ("2-D, 64 x 64", 2, (64, 64), 256),
        ("2-D, 128 x 128 x 128", 2, (128, 128, 128), 256),
        ("784-D, 256 x 256", 784, (256, 256), 64),
    ):
        x = torch.rand(20_000, dim)  # speed does not depend on the content
        loops = {
            "plain": lambda nets, x=x, b=batch_size: plain_game(*nets, loaded(x, b), penalty=10.0),
            "plain on slices": lambda nets, x=x, b=batch_size: plain_game(*nets, slices(x, b), penalty=10.0),
            "ours": lambda nets, x=x, b=batch_size: our_steps(*nets, x, batch_size=b, penalty=10.0),
        }
        speeds = {name: [] for name in loops}
        for _ in range(options.rounds):
            for name, loop in loops.items():
                speeds[name].append(steps_per_second(loop(networks(dim, hidden)), options.seconds, warm_up=5))
        line = "   ".join(f"{name} {statistics.median(values):.1f}/s" for name, values in speeds.items())
        ratios = [
            statistics.median(b / a for a, b in zip(speeds[name], speeds["ours"], strict=True))
            for name in ("plain", "plain on slices")
        ]
        print(f"{label:22} batch {batch_size:3}   {line}   {ratios[0]:.2f} x, {ratios[1]:.2f} x without loading")


if __name__ == "__main__":
    main()
