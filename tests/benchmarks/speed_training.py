"""Steps per second of our loop against a plain tutorial loop: same network, same data, same batch size, one run.

    python tests/benchmarks/speed_training.py [--seconds 4] [--rounds 3]

The plain loop is what tutorials show: torchvision's MNIST, which turns one picture after the other into a tensor, a
``DataLoader``, Adam with its defaults, a sigmoid in the decoder, and binary cross-entropy on probabilities. Ours is the
course's: one tensor that is sliced, fused Adam, and cross-entropy on logits. The two are timed in turn, several times,
in one process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator

import torch
from timing import loaded, plain_steps, steps_per_second
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from course_lib.data import Batches, images
from course_lib.train import minimize

BATCH, LATENT = 128, 20


class Pictures(MNIST):
    """torchvision's MNIST, with its own ``__getitem__``, over pictures that are in memory already."""

    def __init__(self, pictures: Tensor) -> None:
        self.data, self.targets = pictures, torch.zeros(len(pictures), dtype=torch.int64)
        self.transform, self.target_transform = ToTensor(), None


def pictures() -> Tensor:
    """MNIST when COURSE_DATA has it, else noise of the same shape: speed does not depend on the content."""
    if os.environ.get("COURSE_DATA"):
        return (images("mnist").x[:, 0] * 255).round().to(torch.uint8)
    return torch.randint(0, 256, (60_000, 28, 28), dtype=torch.uint8)


def networks(hidden: int, *, outputs: int) -> nn.ModuleList:
    """784 - hidden - outputs, and 20 - hidden - 784."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    decoder = nn.Sequential(nn.Linear(LATENT, hidden), nn.ReLU(), nn.Linear(hidden, 784))
    return nn.ModuleList([encoder, decoder])


def encode(nets: nn.ModuleList, x: Tensor) -> tuple[Tensor, Tensor | float]:
    """A code and its KL divergence to the prior, summed over the batch; an autoencoder has none."""
    z = nets[0](x)
    if z.shape[1] == LATENT:
        return z, 0.0
    mu, logvar = z.chunk(2, dim=1)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    return mu + (0.5 * logvar).exp() * torch.randn_like(mu), kl


def tutorial_steps(nets: nn.ModuleList, x: Tensor) -> Iterator[None]:
    def loss(batch: Tensor) -> Tensor:
        z, kl = encode(nets, batch)
        return F.binary_cross_entropy(nets[1](z).sigmoid(), batch.flatten(1), reduction="sum") + kl

    return plain_steps(loss, nets.parameters(), loaded(Pictures(x), BATCH))


def our_steps(nets: nn.ModuleList, x: Tensor) -> Iterator[None]:
    def loss(batch: Tensor) -> Tensor:
        z, kl = encode(nets, batch)
        return F.binary_cross_entropy_with_logits(nets[1](z), batch.flatten(1), reduction="sum") + kl

    step = minimize(loss, torch.optim.Adam(nets.parameters(), lr=1e-3, fused=True))
    batches = Batches(x[:, None].float() / 255, batch_size=BATCH)
    k = 0
    while True:
        step(batches[k])
        k += 1
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="time for each loop in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    x = pictures()
    print(f"steps per second, batches of {BATCH}, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    for name, outputs in (("autoencoder", LATENT), ("VAE", 2 * LATENT)):
        for hidden in (128, 400):
            plain, ours = [], []
            for _ in range(options.rounds):
                for speeds, steps in ((plain, tutorial_steps), (ours, our_steps)):
                    loop = steps(networks(hidden, outputs=outputs), x)
                    # by the clock on the wall: processor time would count both of two threads
                    speeds.append(steps_per_second(loop, options.seconds, clock=time.perf_counter))
            ratio = statistics.median(b / a for a, b in zip(plain, ours, strict=True))
            a, b = statistics.median(plain), statistics.median(ours)
            print(f"{name:12} {hidden} hidden units   plain {a:5.0f}/s   ours {b:5.0f}/s   {ratio:.1f} x")


if __name__ == "__main__":
    main()
