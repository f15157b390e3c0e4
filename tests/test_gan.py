"""The game against what is known of it: the best discriminator and its value, unrolling by finite differences."""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

from course_lib import losses
from course_lib.data import Batches, Draws
from course_lib.models.gan import GAN
from course_lib.models.gan_layers import InstanceNoise, MinibatchDiscrimination, spectrally_normalized
from course_lib.nn import MLP, ClassInput, ClassOutput, conv_players, dense_players
from course_lib.probability import GaussianMixture, gaussian
from course_lib.train import EMA, Checkpoint, alternate, fit, minimize

# ------------------------------------------------------------------------------- the discriminator, on known densities


def known_pair():
    """Real data from p; a linear generator that is not trained, so that its density q is known too."""
    p = gaussian([1.0, 0.0], [[1.0, 0.3], [0.3, 0.5]])
    generator = nn.Linear(2, 2)
    with torch.no_grad():
        generator.weight.copy_(torch.tensor([[0.8, 0.0], [-0.5, 1.0]]))
        generator.bias.copy_(torch.tensor([-0.5, 0.5]))
    w = generator.weight.detach()
    return p, generator, gaussian([-0.5, 0.5], w @ w.T)


def jensen_shannon(p, q):
    """By quadrature on a grid, in nats."""
    axis = torch.linspace(-8, 8, 161)
    grid = torch.cartesian_prod(axis, axis)
    log_p, log_q = (density.log_prob(grid).double() for density in (p, q))
    log_m = torch.logaddexp(log_p, log_q) - np.log(2)
    cell = (axis[1] - axis[0]).item() ** 2
    return 0.5 * cell * sum((law.exp() * (law - log_m)).sum().item() for law in (log_p, log_q))


@pytest.mark.parametrize("seed", range(5))
def test_the_trained_discriminator_is_the_log_ratio_and_its_value_that_of_jensen_and_shannon(seed):
    # measured over ten seeds: median error 0.06 to 0.10 nats, value within 0.007
    torch.manual_seed(seed)
    p, generator, q = known_pair()
    gan = GAN(generator, MLP(2, 1, hidden=[32]), latent=2)
    optimizer = torch.optim.Adam(gan.discriminator.parameters(), lr=2e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=300)
    draws = Draws(p.sample, batch_size=1024, seed=seed)
    fit(minimize(gan.discriminator_loss, optimizer, schedule=schedule), draws, 300)
    x = torch.cat([p.sample(5000), q.sample(5000)])
    with torch.no_grad():
        error = (gan.discriminator(x)[:, 0] - (p.log_prob(x) - q.log_prob(x))).abs()
        value = -gan.discriminator_loss(p.sample(50_000)).item()
    assert error.median() < 0.2
    assert value == pytest.approx(2 * jensen_shannon(p, q) - 2 * np.log(2), abs=0.015)


def test_smooth_labels_move_the_best_discriminator_to_a_smaller_belief():
    # Salimans et al. 2016: with smoothing s it believes (1 - s) p / (p + q); with p = q that is (1 - s) / 2
    generator = nn.Linear(2, 2)
    with torch.no_grad():
        generator.weight.copy_(torch.eye(2))
        generator.bias.zero_()
    objective = partial(losses.discriminator_loss, smoothing=0.2)
    gan = GAN(generator, nn.Linear(2, 1), latent=2, discriminator_objective=objective)
    optimizer = torch.optim.Adam(gan.discriminator.parameters(), lr=2e-2)
    fit(minimize(gan.discriminator_loss, optimizer), Draws(lambda n: torch.randn(n, 2), batch_size=512), 400)
    assert gan.discriminator(torch.randn(1000, 2)).sigmoid().mean().item() == pytest.approx(0.4, abs=0.03)


# --------------------------------------------------------------------------------------------------------- the players


def small_gan(*, discriminator_objective=losses.discriminator_loss, generator_objective=losses.non_saturating_loss):
    return GAN(
        MLP(3, 2, hidden=[8]),
        MLP(2, 1, hidden=[8], activation=nn.Tanh),
        latent=3,
        discriminator_objective=discriminator_objective,
        generator_objective=generator_objective,
    )


def test_each_player_is_judged_by_its_own_objective_on_the_right_data():
    seen = {}

    def for_the_discriminator(real, fake):
        seen["real"], seen["fake"] = real.detach(), fake.detach()
        return losses.hinge_discriminator_loss(real, fake)

    def for_the_generator(fake):
        seen["generator"] = fake.detach()
        return losses.wasserstein_generator_loss(fake)

    gan = small_gan(discriminator_objective=for_the_discriminator, generator_objective=for_the_generator)
    x = torch.randn(6, 2)
    for k, loss in enumerate((gan.discriminator_loss, gan.generator_loss)):
        torch.manual_seed(k)
        loss(x)
    torch.manual_seed(0)
    torch.testing.assert_close(seen["real"], gan.discriminator(x))
    torch.testing.assert_close(seen["fake"], gan.discriminator(gan.generator(torch.randn(6, 3))))
    torch.manual_seed(1)
    torch.testing.assert_close(seen["generator"], gan.discriminator(gan.generator(torch.randn(6, 3))))


def test_the_discriminators_loss_gives_the_generator_no_gradient_and_the_generators_loss_does():
    gan = small_gan()
    gan.discriminator_loss(torch.randn(4, 2)).backward()
    assert all(p.grad is None for p in gan.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in gan.discriminator.parameters())
    gan.generator_loss(torch.randn(4, 2)).backward()
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.parameters())
    assert not gan.sample(4).requires_grad


def test_samples_follow_the_generators_precision_and_are_new_every_time():
    gan = small_gan().double()
    x = gan.sample(50_000)
    assert x.shape == (50_000, 2) and x.dtype == torch.float64
    assert not torch.equal(gan.sample(3), gan.sample(3))
    identity = GAN(nn.Linear(2, 2), nn.Linear(2, 1), latent=2)
    with torch.no_grad():
        identity.generator.weight.copy_(torch.eye(2))
        identity.generator.bias.zero_()
    z = identity.sample(50_000)  # the latents themselves: standard normal
    torch.testing.assert_close(torch.cov(z.T), torch.eye(2), atol=0.03, rtol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.03, rtol=0)


def play(gan, critic_loss, batches, *, steps, lr):
    """Both players by Adam with a rate that falls to zero; the averaged generator."""
    ema = EMA(gan.generator, decay=0.98)
    optimizers = [
        torch.optim.Adam(player.parameters(), lr=lr, betas=(0.5, 0.9), fused=True)
        for player in (gan.discriminator, gan.generator)
    ]
    step = alternate(
        critic_loss,
        gan.generator_loss,
        critic_optimizer=optimizers[0],
        generator_optimizer=optimizers[1],
        ema=ema,
        schedules=[torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=steps) for o in optimizers],
    )
    fit(step, batches, steps)
    return ema.model


@pytest.mark.parametrize("objective", [losses.non_saturating_loss, losses.saturating_loss])
@pytest.mark.parametrize("seed", range(3))
def test_the_game_finds_a_gaussian(seed, objective):
    # measured over ten seeds and both objectives: mean within 0.014, standard deviation within 0.02
    torch.manual_seed(seed)
    gan = GAN(nn.Linear(1, 1), MLP(1, 1, hidden=[32]), latent=1, generator_objective=objective)

    def critic_loss(x):
        return gan.discriminator_loss(x) + 0.5 * losses.zero_centered_penalty(gan.discriminator, x)

    draws = Draws(lambda n: 2.0 + 0.5 * torch.randn(n, 1), batch_size=256, seed=seed)
    generator = play(gan, critic_loss, draws, steps=400, lr=2e-2)
    assert generator.bias.item() == pytest.approx(2.0, abs=0.05)
    assert abs(generator.weight.item()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_conditional_game_puts_every_class_in_its_place(seed):
    torch.manual_seed(seed)
    # measured over ten seeds: every mean within 0.10
    centers = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]])
    c = torch.arange(3).repeat(1000)
    x = centers[c] + 0.5 * torch.randn(len(c), 2)
    gan = GAN(ClassInput(nn.Linear(2 + 3, 2), classes=3), ClassOutput(MLP(2, 3, hidden=[64]), classes=3), latent=2)
    generator = play(gan, gan.discriminator_loss, Batches(x, c, batch_size=300, seed=seed), steps=250, lr=2e-2)
    for k in range(3):
        samples = generator(torch.randn(2000, 2), torch.full((2000,), k)).detach()
        assert (samples.mean(0) - centers[k]).norm() < 0.2


# ----------------------------------------------------------------------------------------------------------- unrolling


def loss_after_looking_ahead(gan, x, *, steps, lr, seed):
    """What unrolling should compute, by a copy of the discriminator and PyTorch's own gradient descent."""
    torch.manual_seed(seed)
    fake = gan.generator(torch.randn(len(x), gan.latent, dtype=x.dtype)).detach()
    ahead = copy.deepcopy(gan.discriminator)
    optimizer = torch.optim.SGD(ahead.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        losses.discriminator_loss(ahead(x), ahead(fake)).backward()
        optimizer.step()
    return losses.non_saturating_loss(ahead(fake)).item()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_unrolled_loss_and_its_gradient_agree_with_finite_differences_through_gradient_descent(steps):
    gan = small_gan().double()
    x = torch.randn(16, 2, dtype=torch.float64) + 1
    before = copy.deepcopy(gan.discriminator.state_dict())
    torch.manual_seed(3)
    loss = gan.unrolled_generator_loss(x, steps=steps, lr=0.7)
    assert loss.item() == pytest.approx(loss_after_looking_ahead(gan, x, steps=steps, lr=0.7, seed=3), rel=1e-9)
    weights = gan.generator[-1].weight
    (gradient,) = torch.autograd.grad(loss, weights)
    numeric = torch.zeros_like(weights)
    for i, j in np.ndindex(*weights.shape):
        both = []
        for sign in (1, -1):
            with torch.no_grad():
                weights[i, j] += sign * 1e-5
            both.append(loss_after_looking_ahead(gan, x, steps=steps, lr=0.7, seed=3))
            with torch.no_grad():
                weights[i, j] -= sign * 1e-5
        numeric[i, j] = (both[0] - both[1]) / 2e-5
    torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-8)
    assert all(torch.equal(value, before[name]) for name, value in gan.discriminator.state_dict().items())


# ------------------------------------------------------------------------------------------------------------- remedies


def test_minibatch_discrimination_sums_over_the_batch_as_scipy_does():
    layer = MinibatchDiscrimination(5, kernels=3, kernel_dim=4).double()
    features = torch.randn(7, 5, dtype=torch.float64)
    out = layer(features).detach()
    assert out.shape == (7, 8)
    torch.testing.assert_close(out[:, :5], features)
    tensor = layer.project(features).detach().numpy()  # (7, 3, 4)
    for a in range(3):
        near = np.exp(-cdist(tensor[:, a], tensor[:, a], metric="cityblock"))
        np.testing.assert_allclose(out[:, 5 + a].numpy(), near.sum(1), rtol=1e-9)
    order = torch.randperm(7)
    torch.testing.assert_close(layer(features[order]).detach(), out[order])  # no place in the batch is special


def test_minibatch_discrimination_tells_a_collapsed_batch_from_a_spread_one():
    layer = MinibatchDiscrimination(2, kernels=6)
    collapsed, spread = torch.zeros(64, 2), 50 * torch.randn(64, 2)
    assert (layer(collapsed)[:, 2:] == 64).all()
    assert layer(spread)[:, 2:].mean() < 10


def test_a_gan_shows_real_data_and_samples_to_its_discriminator_apart():
    sizes = []

    class Watch(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x

    gan = GAN(nn.Linear(3, 2), nn.Sequential(Watch(), MinibatchDiscrimination(2), nn.Linear(18, 1)), latent=3)
    gan.discriminator_loss(torch.randn(9, 2))
    assert sizes == [9, 9]


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 5, 3), nn.Linear(4, 1)])
def test_spectral_norm_divides_by_the_largest_singular_value(layer):
    plain = layer.weight.detach().clone()
    network = spectrally_normalized(nn.Sequential(layer, nn.ReLU()))
    x = torch.randn(1, 6) if plain.ndim == 2 and plain.shape[1] == 6 else torch.randn(1, *plain.shape[1:])
    for _ in range(200):
        network(x)
    network.eval()
    largest = np.linalg.svd(plain.flatten(1).numpy(), compute_uv=False)[0]
    torch.testing.assert_close(network[0].weight.detach(), plain / largest, rtol=1e-4, atol=1e-6)


def test_a_spectrally_normalized_network_is_1_lipschitz():
    network = spectrally_normalized(MLP(2, 1, hidden=[32, 32], activation=nn.LeakyReLU))
    for _ in range(200):
        network(torch.randn(4, 2))
    network.eval()
    x, y = 3 * torch.randn(2, 5000, 2)
    slopes = (network(x) - network(y)).abs()[:, 0] / (x - y).norm(dim=1)
    assert slopes.max() < 1.001
    assert all(hasattr(m, "parametrizations") for m in network if isinstance(m, nn.Linear))


def test_instance_noise_blurs_in_training_only_and_fades():
    noise = InstanceNoise(0.8)
    x = torch.full((100_000,), 3.0)
    assert noise(x).mean().item() == pytest.approx(3.0, abs=0.02)
    assert noise(x).std().item() == pytest.approx(0.8, rel=0.02)
    noise.anneal(0.5)
    noise.anneal(0.5)
    assert noise(x).std().item() == pytest.approx(0.2, rel=0.02)
    other = InstanceNoise(5.0)
    other.load_state_dict(noise.state_dict())
    assert other.std.item() == pytest.approx(0.2)
    noise.eval()
    assert torch.equal(noise(x), x)


# -------------------------------------------------------------------------------------------------------- the networks


@pytest.mark.parametrize("make", [dense_players, conv_players])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 12, 16)])
@pytest.mark.parametrize("classes", [0, 4])
def test_players_fit_images_of_several_sizes(make, shape, classes):
    generator, discriminator = make(shape, 5, classes=classes)
    labels = (torch.arange(6) % classes,) if classes else ()
    x = generator(torch.randn(6, 5), *labels)
    assert x.shape == (6, *shape) and x.min() >= 0 and x.max() <= 1
    x = torch.rand(6, *shape, requires_grad=True)
    assert discriminator(x, *labels).shape == (6,)
    discriminator.eval()
    (gradient,) = torch.autograd.grad(discriminator(x, *labels)[2], x)
    assert (gradient[2] != 0).float().mean() > 0.95  # every pixel counts
    assert (gradient[[0, 1, 3, 4, 5]] == 0).all()
    gan = GAN(generator, discriminator, latent=5)
    assert gan.sample(6, *labels).shape == (6, *shape)
    for loss in (gan.discriminator_loss, gan.generator_loss, partial(gan.unrolled_generator_loss, steps=1, lr=0.1)):
        assert loss(x.detach(), *labels).isfinite()


def test_only_inner_layers_are_normalized_and_a_critic_asks_for_none():
    generator, discriminator = conv_players((1, 8, 8), 5)
    kinds = [type(m).__name__ for m in generator]
    assert kinds.index("BatchNorm2d") > 0 and kinds[-1] == "Sigmoid" and "BatchNorm" not in kinds[-2]
    first_norm = next(i for i, m in enumerate(discriminator[0]) if isinstance(m, nn.BatchNorm2d))
    assert first_norm > 1
    _, critic = conv_players((1, 8, 8), 5, norm=nn.Identity)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())


def test_labels_enter_the_generator_and_choose_the_discriminators_output():
    c = torch.tensor([2, 0])
    z = torch.randn(2, 3)
    told = ClassInput(nn.Identity(), classes=3)(z, c)
    torch.testing.assert_close(told, torch.cat([z, torch.eye(3)[c]], dim=1))
    x = torch.randn(2, 3)
    torch.testing.assert_close(ClassOutput(nn.Identity(), classes=3)(x, c), torch.stack([x[0, 2], x[1, 0]]))


# ------------------------------------------------------------------------------------------------------------- training


class Interrupted(Exception):
    pass


def remedied_training(path, *, every=5, stop_before=None, seed=0):
    """With everything that has a state: noise that fades, power iteration, batch statistics, average, schedules."""
    torch.manual_seed(seed)
    noise = InstanceNoise(0.5)
    judge = spectrally_normalized(MLP(2, 1, hidden=[8]))
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    gan = GAN(generator, nn.Sequential(noise, judge), latent=3)
    ema = EMA(gan.generator, decay=0.9)
    optimizers = {
        "d": torch.optim.Adam(gan.discriminator.parameters(), lr=4e-3, betas=(0.5, 0.9), fused=True),
        "g": torch.optim.Adam(gan.generator.parameters(), lr=1e-3, betas=(0.5, 0.9), fused=True),
    }
    schedules = {f"{k}_lr": torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=30) for k, o in optimizers.items()}
    step = alternate(
        gan.discriminator_loss,
        partial(gan.unrolled_generator_loss, steps=2, lr=0.1),
        critic_optimizer=optimizers["d"],
        generator_optimizer=optimizers["g"],
        n_critic=2,
        after_critic=lambda: noise.anneal(0.97),
        ema=ema,
        schedules=schedules.values(),
    )
    checkpoint = Checkpoint(path, every=every, gan=gan, ema=ema, **optimizers, **schedules)

    def interrupt(k, history):
        if k + 1 == stop_before:
            raise Interrupted

    draws = Draws(GaussianMixture(torch.zeros(1, 2), torch.eye(2)[None]).sample, batch_size=16)
    history = fit(step, draws, 30, history=checkpoint.restore(), hooks=[checkpoint, interrupt])
    return gan, ema, history


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_at_a_random_step_and_resumed_equals_uninterrupted_to_the_bit(tmp_path, seed):
    straight, ema, history = remedied_training(tmp_path / "none.pt", every=1000)
    with pytest.raises(Interrupted):
        remedied_training(tmp_path / "run.pt", stop_before=random.Random(seed).randint(6, 29))
    torch.manual_seed(12345)
    resumed, ema_again, history_again = remedied_training(tmp_path / "run.pt", seed=99)
    for name in ("critic", "generator"):
        assert torch.equal(history[name], history_again[name])
    for a, b in ((straight, resumed), (ema.model, ema_again.model)):
        states = (a.state_dict(), b.state_dict())
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_each_step_of_the_game_computes_only_the_gradients_it_uses_and_advances_the_schedules():
    gan = small_gan()
    optimizers = [torch.optim.SGD(player.parameters(), lr=1.0) for player in (gan.discriminator, gan.generator)]
    critic_gradients = []
    step = alternate(
        gan.discriminator_loss,
        gan.generator_loss,
        critic_optimizer=optimizers[0],
        generator_optimizer=optimizers[1],
        after_critic=lambda: critic_gradients.extend(p.grad.clone() for p in gan.discriminator.parameters()),
        schedules=(torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in optimizers),
    )
    step(torch.randn(8, 2))
    left = [p.grad for p in gan.discriminator.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(critic_gradients, left, strict=True))
    step(torch.randn(8, 2))
    assert [o.param_groups[0]["lr"] for o in optimizers] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: small_gan().discriminator_loss(torch.zeros(4, 3)),
            r"\(4, 2\) of torch.float32 on cpu, the data are \(4, 3\) of",
        ),
        (
            lambda: small_gan().discriminator_loss(torch.zeros(4, 2).double()),
            "torch.float32 on cpu, .* torch.float64 on",
        ),
        (lambda: small_gan().discriminator_loss(torch.zeros(4, 2, device="meta")), "on cpu, .* on meta"),
        (
            lambda: small_gan().generator_loss(torch.zeros(4, 3)),
            r"\(4, 2\) of torch.float32 on cpu, the data are \(4, 3\) of",
        ),
        (lambda: small_gan().discriminator_loss(torch.zeros(0, 2)), "real is empty"),
        (lambda: small_gan().generator_loss(torch.zeros(0, 2)), "fake is empty"),
        (lambda: small_gan().unrolled_generator_loss(torch.zeros(4, 2), steps=-1, lr=0.1), "got steps -1"),
        (lambda: small_gan().unrolled_generator_loss(torch.zeros(4, 2), steps=1, lr=0.0), "lr 0.0"),
        (lambda: InstanceNoise(-1.0), "std must not be negative, got -1.0"),
        (lambda: conv_players((1, 30, 28), 2), r"multiples of 4, got an image of shape \(1, 30, 28\)"),
        (lambda: ClassInput(nn.Identity(), classes=3)(torch.zeros(2, 1), torch.tensor([0, 3])), "0 ... 2, got 0 to 3"),
        (lambda: ClassOutput(nn.Identity(), classes=3)(torch.zeros(2, 3), torch.tensor([-1, 0])), "got -1 to 0"),
        (lambda: ClassInput(nn.Identity(), classes=3)(torch.zeros(2, 1), torch.tensor([0])), r"2 labels.*got \(1,\)"),
        (
            lambda: ClassInput(nn.Identity(), classes=3)(torch.zeros(1, 1), torch.tensor([0.0])),
            "int64, got .* torch.float32",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
