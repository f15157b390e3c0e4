"""The critic's value against the exact Wasserstein distance of the same samples, with the penalty and with clipping."""

import random

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from course_lib import losses
from course_lib.data import Batches, Draws
from course_lib.models.wgan import WGAN, WGANGP
from course_lib.nn import MLP, ClassInput, ClassOutput, conv_players, dense_players
from course_lib.train import EMA, Checkpoint, alternate, fit, minimize


class Particles(nn.Module):
    """A generator that ignores its latents: its samples are its parameters, so they are the same every time."""

    def __init__(self, points):
        super().__init__()
        self.points = nn.Parameter(points)

    def forward(self, z, *c):
        return self.points[: len(z)].clone()


def exact_w1(x, y):
    """By linear assignment, for two samples of one size."""
    cost = torch.cdist(x, y).numpy()
    return cost[linear_sum_assignment(cost)].mean()


def two_samples(seed):
    torch.manual_seed(seed)
    x = torch.randn(200, 2) @ torch.tensor([[1.0, 0.4], [0.0, 0.6]]) + torch.tensor([1.0, 0.5])
    return x, 0.6 * torch.randn(200, 2)


# ------------------------------------------------------------------------------------------------ value and distance


@pytest.mark.parametrize("seed", range(5))
def test_the_penalized_critics_value_is_the_exact_distance_of_the_same_samples(seed):
    # measured over ten seeds: 1.00 to 1.03 of the distance; the soft penalty alone explains W / (2 lambda) = 0.02
    x, y = two_samples(seed)
    wgan = WGANGP(Particles(y), MLP(2, 1, hidden=[64, 64]), latent=1, penalty=30.0)
    optimizer = torch.optim.Adam(wgan.critic.parameters(), lr=1e-2, betas=(0.5, 0.9), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=300)
    fit(minimize(wgan.critic_loss, optimizer, schedule=schedule), Batches(x, batch_size=200, seed=seed), 300)
    assert wgan.value(x).item() == pytest.approx(exact_w1(x, y), rel=0.06)


def test_a_soft_penalty_makes_the_best_critic_too_steep_by_the_distance_over_twice_its_weight():
    # all mass moves along one line by 2: the best of linear critics has slope 1 + 2 / (2 * 5) = 1.2, the value is 2.4
    y = torch.randn(100, 2)
    x = y + torch.tensor([2.0, 0.0])
    wgan = WGANGP(Particles(y), nn.Linear(2, 1), latent=1, penalty=5.0)
    optimizer = torch.optim.Adam(wgan.critic.parameters(), lr=0.05)
    fit(minimize(wgan.critic_loss, optimizer), Batches(x, batch_size=100), 300)
    assert wgan.value(x).item() == pytest.approx(2.4, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_the_clipped_critics_value_says_more_about_the_bound_than_about_the_distance(seed):
    # measured over ten seeds: 0.0013 to 0.0014 of the distance with bound 0.01, 1.45 to 1.68 of it with 0.1: a value
    # that grows like the third power of the bound, as three layers make it
    x, y = two_samples(seed)
    value = {}
    for bound in (0.01, 0.1):
        torch.manual_seed(seed)
        wgan = WGAN(Particles(y), MLP(2, 1, hidden=[64, 64]), latent=1)
        step = alternate(
            wgan.critic_loss,
            wgan.generator_loss,
            critic_optimizer=torch.optim.RMSprop(wgan.critic.parameters(), lr=1e-2),
            generator_optimizer=torch.optim.SGD(wgan.generator.parameters(), lr=0.0),
            after_critic=lambda wgan=wgan, bound=bound: losses.clip_weights_(wgan.critic.parameters(), bound=bound),
        )
        fit(step, Batches(x, batch_size=200, seed=seed), 150)
        assert all(p.abs().max() <= bound + 1e-7 for p in wgan.critic.parameters())
        value[bound] = wgan.value(x).item()
    assert value[0.01] < 0.01 * exact_w1(x, y)
    assert value[0.1] > 500 * value[0.01]


@pytest.mark.parametrize("seed", range(5))
def test_following_the_critic_brings_the_samples_to_the_data(seed):
    # measured over ten seeds: the distance falls from 1.0 ... 1.3 to 0.23 ... 0.44, to 0.21 ... 0.35 of what it was
    torch.manual_seed(seed)
    start = 0.6 * torch.randn(100, 2)
    wgan = WGANGP(Particles(start.clone()), MLP(2, 1, hidden=[64]), latent=1, penalty=1.0)
    step = alternate(
        wgan.critic_loss,
        wgan.generator_loss,
        critic_optimizer=torch.optim.Adam(wgan.critic.parameters(), lr=1e-2, betas=(0.0, 0.9), fused=True),
        generator_optimizer=torch.optim.SGD(wgan.generator.parameters(), lr=0.05 * len(start)),
        n_critic=3,
    )

    def real(n):
        return torch.randn(n, 2) @ torch.tensor([[1.0, 0.4], [0.0, 0.6]]) + torch.tensor([1.0, 0.5])

    fit(step, Draws(real, batch_size=300, seed=seed), 80)
    x = real(100)
    assert exact_w1(x, wgan.sample(100)) < 0.5 * exact_w1(x, start)


# ----------------------------------------------------------------------------------------------------- what is computed


def small_wgan(penalty=3.0):
    return WGANGP(MLP(3, 2, hidden=[8]), MLP(2, 1, hidden=[8], activation=nn.Tanh), latent=3, penalty=penalty)


def test_the_value_is_the_gap_of_mean_scores_and_the_losses_pull_at_its_two_ends():
    wgan = small_wgan()
    x = torch.randn(6, 2)
    torch.manual_seed(0)
    value = wgan.value(x)
    torch.manual_seed(0)
    fake = wgan.generator(torch.randn(6, 3))
    torch.testing.assert_close(value, wgan.critic(x).mean() - wgan.critic(fake).mean())
    plain = WGAN(wgan.generator, wgan.critic, latent=3)
    torch.manual_seed(0)
    torch.testing.assert_close(plain.critic_loss(x), -value)
    torch.manual_seed(0)
    torch.testing.assert_close(wgan.generator_loss(x), -wgan.critic(fake).mean())
    assert not value.requires_grad and not wgan.sample(3).requires_grad


def test_the_penalty_enters_with_its_weight_and_not_into_the_value():
    x = torch.randn(6, 2)
    wgan = small_wgan()
    torch.manual_seed(0)
    with_penalty = wgan.critic_loss(x)
    torch.manual_seed(0)
    fake = wgan.sample(6)
    slope = losses.gradient_penalty(wgan.critic, x, fake)  # draws what critic_loss drew: latents, then alpha
    expected = wgan.critic(fake).mean() - wgan.critic(x).mean() + 3.0 * slope
    torch.testing.assert_close(with_penalty, expected)


def test_the_critics_loss_gives_the_generator_no_gradient_and_the_generators_loss_does():
    wgan = small_wgan()
    wgan.critic_loss(torch.randn(4, 2)).backward()
    assert all(p.grad is None for p in wgan.generator.parameters())
    assert all(p.grad is not None for p in wgan.critic.parameters())
    wgan.generator_loss(torch.randn(4, 2)).backward()
    assert all(p.grad.abs().sum() > 0 for p in wgan.generator.parameters())


def test_a_conditional_critic_scores_and_is_penalized_under_the_right_labels():
    # score of class c: c * x_0. Slopes 0, 1, 2 cost 1, 0, 1; labels that got lost or mixed would cost something else
    critic = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    wgan = WGANGP(ClassInput(nn.Linear(2 + 3, 2), classes=3), ClassOutput(critic, classes=3), latent=2, penalty=6.0)
    c = torch.tensor([0, 1, 1, 2])
    x = torch.randn(4, 2)
    torch.manual_seed(0)
    loss = wgan.critic_loss(x, c)
    torch.manual_seed(0)
    fake = wgan.sample(4, c)
    assert loss.item() == pytest.approx((c * (fake - x)[:, 0]).mean().item() + 6.0 * 2 / 4, rel=1e-5)
    torch.manual_seed(0)
    assert wgan.value(x, c).item() == pytest.approx((c * (x - fake)[:, 0]).mean().item(), rel=1e-4)
    torch.manual_seed(0)
    assert wgan.generator_loss(x, c).item() == pytest.approx(-(c * fake[:, 0]).mean().item(), rel=1e-4)


def test_each_point_is_penalized_under_its_own_label():
    # score of class c: c x_0^2 / 2, with slope c |x_0|; samples are the data, so the points between are too
    class Bowls(nn.Module):
        def forward(self, x):
            return x[:, :1].square() / 2 * torch.tensor([0.0, 1.0, 2.0])

    x, c = torch.tensor([[0.5, 9.0], [2.0, 9.0], [-3.0, 9.0], [4.0, 9.0]]), torch.tensor([2, 0, 1, 2])
    wgan = WGANGP(Particles(x.clone()), ClassOutput(Bowls(), classes=3), latent=1, penalty=1.0)
    assert wgan.critic_loss(x, c).item() == pytest.approx(np.mean([0.0**2, 1.0**2, 2.0**2, 7.0**2]), rel=1e-5)


def test_samples_and_losses_follow_the_generators_precision():
    wgan = small_wgan().double()
    x = torch.randn(4, 2, dtype=torch.float64)
    for value in (wgan.sample(3), wgan.critic_loss(x), wgan.generator_loss(x), wgan.value(x)):
        assert value.dtype == torch.float64


@pytest.mark.parametrize("make", [dense_players, lambda *a: conv_players(*a, norm=nn.Identity)])
def test_images_go_through(make):
    wgan = WGANGP(*make((1, 8, 8), 5), latent=5, penalty=10.0)
    x = torch.rand(4, 1, 8, 8)
    wgan.critic_loss(x).backward()
    wgan.generator_loss(x).backward()
    assert all(p.grad.isfinite().all() for p in wgan.parameters())
    assert wgan.sample(2).shape == (2, 1, 8, 8)


# ------------------------------------------------------------------------------------------------------------- resuming


class Interrupted(Exception):
    pass


def small_training(path, *, every=5, stop_before=None, seed=0):
    torch.manual_seed(seed)
    wgan = small_wgan()
    ema = EMA(wgan.generator, decay=0.9)
    optimizers = {
        "critic": torch.optim.Adam(wgan.critic.parameters(), lr=1e-3, betas=(0.0, 0.9), fused=True),
        "generator": torch.optim.Adam(wgan.generator.parameters(), lr=1e-3, betas=(0.0, 0.9), fused=True),
    }
    schedules = {f"{k}_lr": torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=30) for k, o in optimizers.items()}
    step = alternate(
        wgan.critic_loss,
        wgan.generator_loss,
        critic_optimizer=optimizers["critic"],
        generator_optimizer=optimizers["generator"],
        n_critic=3,
        ema=ema,
        schedules=schedules.values(),
    )
    checkpoint = Checkpoint(path, every=every, wgan=wgan, ema=ema, **optimizers, **schedules)

    def interrupt(k, history):
        if k + 1 == stop_before:
            raise Interrupted

    draws = Draws(lambda n: torch.randn(n, 2), batch_size=24)
    history = fit(step, draws, 30, history=checkpoint.restore(), hooks=[checkpoint, interrupt])
    return wgan, ema, history


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_at_a_random_step_and_resumed_equals_uninterrupted_to_the_bit(tmp_path, seed):
    straight, ema, history = small_training(tmp_path / "none.pt", every=1000)
    with pytest.raises(Interrupted):
        small_training(tmp_path / "run.pt", stop_before=random.Random(seed).randint(6, 29))
    torch.manual_seed(12345)
    resumed, ema_again, history_again = small_training(tmp_path / "run.pt", seed=99)
    for name in ("critic", "generator"):
        assert torch.equal(history[name], history_again[name])
    for a, b in ((straight, resumed), (ema.model, ema_again.model)):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: small_wgan().critic_loss(torch.zeros(4, 3)),
            r"\(4, 2\) of torch.float32 on cpu, the data are \(4, 3\) of",
        ),
        (
            lambda: small_wgan().critic_loss(torch.zeros(4, 2).double()),
            "of torch.float32 on cpu, .* of torch.float64 on",
        ),
        (lambda: small_wgan().value(torch.zeros(4, 3)), r"\(4, 2\) of torch.float32 on cpu, the data are \(4, 3\) of"),
        (lambda: small_wgan().critic_loss(torch.zeros(0, 2)), "real is empty"),
        (lambda: small_wgan().generator_loss(torch.zeros(0, 2)), "fake is empty"),
        (lambda: small_wgan(penalty=0.0), "penalty must be positive, got 0.0"),
        (lambda: WGAN(nn.Linear(1, 2), nn.BatchNorm1d(2), latent=1), "each example by itself, but BatchNorm1d mixes"),
        (lambda: WGANGP(*conv_players((1, 8, 8), 2), latent=2, penalty=1.0), "BatchNorm2d mixes the batch"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_on_paper():
    # two points moved to two points on a line: sorted, the gaps are 1 and 3
    x, y = torch.tensor([[5.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    wgan = WGAN(Particles(y), nn.Linear(1, 1), latent=1)
    with torch.no_grad():
        wgan.critic.weight.fill_(1.0)  # the best critic: all mass moves the same way
    assert wgan.value(x).item() == pytest.approx(np.mean([1.0, 3.0])) == exact_w1(x, y)
