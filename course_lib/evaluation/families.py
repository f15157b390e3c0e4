r"""The families as entries of the leaderboard: each a function that trains one model on a problem.

All get the same number of steps and examples. What differs is what the chapters say should: the network that fits the
family, and a learning rate that was good for it. Each function imports its own family, so that one that is broken costs
one row of the table and not the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.evaluation.problem import Family, Problem, Run, Trained
from course_lib.nn import MLP, CategoricalLevels, GaussianPixels, LogisticLevels, SplineBijection, dense_networks
from course_lib.train import EMA, Indexable, Step, alternate, minimize

__all__ = ["FAMILIES", "IMAGE_FAMILIES", "from_sampler"]


def autoregressive(problem: Problem, run: Run) -> Trained:
    """One dimension after the other, with mixtures of logistics."""
    from course_lib.models.autoregressive import mixture_made

    if problem.dim > 100:
        raise ValueError(f"{problem.dim} masked outputs are too slow to sample one by one: see pixelcnn")
    # in a long chain of draws an unbounded network runs away from the data
    sizes = {"hidden": (64, 64)} if problem.dim < 8 else {"hidden": (256, 256), "activation": nn.Tanh}
    model = mixture_made(problem.dim, components=16, spread=3.0, **sizes)
    return _density(_minimized(model, problem.points(run), run, lr=5e-3), problem, passes=problem.dim)


def pixelcnn(problem: Problem, run: Run) -> Trained:
    """Images pixel by pixel, on their own grey levels."""
    from course_lib.models.pixelcnn import GatedPixelCNN

    levels = CategoricalLevels(problem.levels) if problem.levels < 50 else LogisticLevels(problem.levels)
    model = GatedPixelCNN(problem.shape, levels, channels=16, layers=3)
    model = _minimized(model, problem.batches(run), run, lr=5e-3)
    return Trained(model.sample, model.log_prob, passes=problem.dim, parameters=_count(model))


def flow(problem: Problem, run: Run) -> Trained:
    """An invertible map to a normal: masked splines in the plane, coupled splines for images."""
    from course_lib.models.flow import Coupling, Flow, Masked, StandardNormal
    from course_lib.models.flow_layers import ActNorm, Permutation

    dim, layers = problem.dim, 2 if problem.dim < 8 else 4
    spline = SplineBijection(bins=32 if dim < 8 else 8, bound=3.0, smallest=1e-4)  # narrow: modes may be small
    make = partial(Masked if dim < 8 else Coupling, hidden=(64, 64))
    transforms: list[nn.Module] = [ActNorm(dim)]
    for _ in range(layers):
        transforms += [make(dim, spline), Permutation(torch.randperm(dim).tolist() if dim > 2 else [1, 0])]
    model = Flow(transforms, StandardNormal(dim))
    batches = problem.points(run)
    model(batches[0])  # sets the scale of ActNorm before the average takes its first copy
    passes = layers * (dim if dim < 8 else 1)
    return _density(_minimized(model, batches, run, lr=5e-3), problem, passes=passes)


def vae(problem: Problem, run: Run) -> Trained:
    """A code, a decoder, and normal noise of learned size around what it says."""
    from course_lib.models.vae import make_vae

    latent, hidden = (2, (128, 128)) if problem.dim < 8 else (16, (256, 128))
    model = make_vae(dense_networks, (problem.dim,), latent, GaussianPixels(sigma=0.5), hidden=hidden)
    model = _minimized(model, problem.points(run), run, lr=2e-3)

    def bound(x: Tensor) -> Tensor:
        return model.log_prob_iw(problem.to_points(x), 100) + problem.log_volume

    sample = _sampler(model, problem)
    return Trained(sample, bound, bound=True, passes=1, parameters=_count(model))


def gan(problem: Problem, run: Run) -> Trained:
    """Two players: the non-saturating game."""
    from course_lib.models.gan import GAN

    latent = 4 if problem.dim < 8 else 16
    model = GAN(*_players(problem, latent, norm=nn.BatchNorm2d), latent=latent)
    step, parts = _game(model, model.discriminator, model.discriminator_loss, lr=1e-3)
    return _played(model, step, parts, problem, run)


def wgan_gp(problem: Problem, run: Run) -> Trained:
    """A generator against a critic with a gradient penalty."""
    from course_lib.models.wgan import WGANGP

    latent = 4 if problem.dim < 8 else 16
    players = _players(problem, latent, norm=nn.Identity)
    model = WGANGP(*players, latent=latent, penalty=0.1 if problem.dim < 8 else 10.0)
    step, parts = _game(model, model.critic, model.critic_loss, lr=1e-3, n_critic=4)
    return _played(model, step, parts, problem, run)


def diffusion(problem: Problem, run: Run) -> Trained:
    """Noise taken away step by step, with a variance-preserving schedule."""
    from course_lib.losses import V
    from course_lib.schedules import Cosine, LinearLogSNR

    # in the plane modes may be small: every order of magnitude of the noise gets its share of the steps
    schedule = LinearLogSNR(start=11.0, end=-9.0) if problem.dim < 8 else Cosine()
    return _denoiser(problem, run, schedule=schedule, prediction=V)


def flow_matching(problem: Problem, run: Run) -> Trained:
    """Straight lines between noise and data."""
    from course_lib.losses import VELOCITY
    from course_lib.schedules import Straight, power_clock

    clock = partial(power_clock, exponent=3.0, low=2e-3) if problem.dim < 8 else power_clock
    return _denoiser(problem, run, schedule=Straight(), prediction=VELOCITY, clock=clock)


FAMILIES: dict[str, Family] = {
    "autoregressive": autoregressive,
    "flow": flow,
    "vae": vae,
    "gan": gan,
    "wgan-gp": wgan_gp,
    "diffusion": diffusion,
    "flow-matching": flow_matching,
}
"""The entries of the leaderboard, by name. One more family is one more function here."""

IMAGE_FAMILIES: dict[str, Family] = {"pixelcnn": pixelcnn}
"""The entries that model images only."""


def from_sampler(sample: Callable[[int], Tensor], problem: Problem, run: Run) -> Trained:
    r"""An entry that needs no training: any function that maps n to n samples.

    Args:
        sample: Maps n to samples, shape (n, \*shape).
        problem: The problem it is entered for.
        run: Not used, since nothing is trained.

    Returns:
        The entry.

    Example:
        >>> from course_lib.evaluation.problem import problem
        >>> ring = problem("ring8")
        >>> from_sampler(ring.mixture.sample, ring, Run(steps=1, batch_size=1)).sample(5).shape
        torch.Size([5, 2])
    """
    return Trained(sample)


# ------------------------------------------------------------------------------------------------- what they share


def _minimized(model: nn.Module, batches: Indexable, run: Run, *, lr: float) -> nn.Module:
    """Train a model with one loss by Adam, with a learning rate that rises and falls, and average its weights."""
    ema = EMA(model, decay=0.995)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=run.steps, pct_start=0.1)
    step = minimize(model.loss, optimizer, clip=10.0, ema=ema, schedule=schedule)
    run.fit(step, batches, model=model, ema=ema, optimizer=optimizer, schedule=schedule)
    return ema.model.eval()


def _density(model: nn.Module, problem: Problem, *, passes: int) -> Trained:
    def log_prob(x: Tensor) -> Tensor:
        return model.log_prob(problem.to_points(x)) + problem.log_volume

    return Trained(_sampler(model, problem), log_prob, passes=passes, parameters=_count(model))


def _sampler(model: nn.Module, problem: Problem) -> Callable[[int], Tensor]:
    return lambda n: problem.to_data(model.sample(n))


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _players(problem: Problem, latent: int, *, norm: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    if problem.train is not None:
        from course_lib.nn import conv_players

        return conv_players(problem.shape, latent, norm=norm)
    leaky = partial(nn.LeakyReLU, 0.2)
    judge = nn.Sequential(MLP(problem.dim, 1, hidden=(128, 128), activation=leaky), nn.Flatten(0))
    return MLP(latent, problem.dim, hidden=(128, 128), activation=leaky), judge


def _game(
    model: nn.Module, judge: nn.Module, judge_loss: Callable[[Tensor], Tensor], *, lr: float, n_critic: int = 1
) -> tuple[Step, dict[str, Any]]:
    """The step of two players, with weights averaged for sampling, and all that changes in training."""
    ema = EMA(model, decay=0.995)
    critic_optimizer, generator_optimizer = (
        torch.optim.Adam(player.parameters(), lr=lr, betas=(0.5, 0.9), fused=True)
        for player in (judge, model.generator)
    )
    step = alternate(
        judge_loss,
        model.generator_loss,
        critic_optimizer=critic_optimizer,
        generator_optimizer=generator_optimizer,
        n_critic=n_critic,
        ema=ema,
    )
    parts = {"model": model, "ema": ema, "critic": critic_optimizer, "generator": generator_optimizer}
    return step, parts


def _played(model: nn.Module, step: Step, parts: dict[str, Any], problem: Problem, run: Run) -> Trained:
    run.fit(step, problem.batches(run), **parts)
    averaged = parts["ema"].model.eval()

    def sample(n: int) -> Tensor:
        x = averaged.sample(n)
        return x if problem.train is None else (x * (problem.levels - 1)).round() / (problem.levels - 1)

    return Trained(sample, passes=1, parameters=_count(model))


def _denoiser(problem: Problem, run: Run, **process: Any) -> Trained:
    from course_lib.models.diffusion import Diffusion
    from course_lib.nn import TimeMLP

    planar = problem.dim < 8
    network = TimeMLP(problem.dim, hidden=3 * ((128,) if planar else (512,)), waves=4 if planar else 0)
    model = Diffusion(network, (problem.dim,), **process)
    model = _minimized(model, problem.points(run), run, lr=4e-3 if planar else 2e-3)
    steps = 40

    def sample(n: int) -> Tensor:
        return problem.to_data(model.sample(n, steps=steps))

    # of images the likelihood could be had too, but at one derivative of the network for every pixel and step
    log_prob = partial(model.log_prob, steps=100) if problem.train is None else None
    return Trained(sample, log_prob, passes=2 * steps - 1, parameters=_count(model))
