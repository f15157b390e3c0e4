"""Diffusion with the exact network of a mixture gives its density and samples; a trained one comes near."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from course_lib import probability
from course_lib.data import Draws
from course_lib.losses import CLEAN, NOISE, VELOCITY, V
from course_lib.models.diffusion import Diffusion
from course_lib.nn import TimeMLP, UNet, time_embedding
from course_lib.probability import GaussianMixture
from course_lib.protocols import HasLogProb, HasLoss, Samples
from course_lib.samplers import ddim, exact_denoiser, guided, heun, simulate
from course_lib.schedules import Cosine, LinearBeta, LinearLogSNR, Straight, power_clock
from course_lib.train import EMA, Checkpoint, fit, minimize

QUADRATIC = partial(power_clock, exponent=2.0, low=1e-5)
SETTINGS = {
    "eps, linear": {"schedule": LinearBeta(beta_1=40.0), "prediction": NOISE, "clock": QUADRATIC},
    "x, log-SNR": {"schedule": LinearLogSNR(start=13.0, end=-16.0), "prediction": CLEAN},
    "v, cosine": {"schedule": Cosine(), "prediction": V, "clock": QUADRATIC},
    "flow matching": {"schedule": Straight(), "prediction": VELOCITY},
}


def mixture():
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    shapes = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, 0.0], [0.0, 0.6]]], dtype=torch.float64)
    return GaussianMixture(means, shapes, torch.tensor([0.7, 0.3], dtype=torch.float64))


class Exact(nn.Module):
    """The network that squared error would teach in the end: the mean of the prediction, from the score of p_t."""

    def __init__(self, p, schedule, prediction, **_):
        super().__init__()
        self.p, self.schedule, self.prediction = p, schedule, prediction

    def forward(self, x, t, c=None):
        alpha_t, sigma_t = self.schedule(t[0])
        inverses = torch.linalg.inv(alpha_t**2 * self.p.covariances + sigma_t**2 * torch.eye(x.shape[1]).to(x))
        offsets = x[:, None] - alpha_t * self.p.means  # (B, M, D)
        pulls = torch.einsum("mij,bmj->bmi", inverses, offsets)
        log_joint = self.p.weights.log() + inverses.logdet() / 2 - (offsets * pulls).sum(2) / 2
        score = -torch.einsum("bm,bmi->bi", log_joint.softmax(1), pulls)
        shares = torch.einsum("bm,mij,bmj->bi", log_joint.softmax(1), alpha_t * self.p.covariances, pulls)
        x_hat = log_joint.softmax(1) @ self.p.means + shares  # the linear-Gaussian posterior of each component
        a, b = self.prediction.weights(alpha_t, sigma_t)
        return a * x_hat - b * sigma_t * score


def oracle(name, p=None):
    p = mixture() if p is None else p
    return Diffusion(Exact(p, **SETTINGS[name]), (p.dim,), **SETTINGS[name]).to(p.means.dtype)


def randomized(network, std=0.3):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(std * torch.randn_like(parameter))
    return network


# ------------------------------------------------------------------------------------------- with the exact network


@pytest.mark.parametrize("name", SETTINGS)
def test_the_likelihood_by_the_equation_is_the_exact_one_and_converges(name):
    model, x = oracle(name), 1.5 * torch.randn(10, 2, dtype=torch.float64)
    exact = mixture().log_prob(x)
    errors = [(model.log_prob(x, steps=steps) - exact).abs().max().item() for steps in (40, 80)]
    assert errors[0] < 0.2 and errors[1] < 0.05 and errors[1] < errors[0] / 2.5


@pytest.mark.parametrize("dim", [1, 4])
def test_the_likelihood_of_a_gaussian_in_any_dimension(dim):
    a = torch.randn(dim, dim, dtype=torch.float64)
    p = probability.gaussian(torch.randn(dim).double(), 0.1 * torch.eye(dim).double() + a @ a.T / dim)
    x = p.sample(6)
    torch.testing.assert_close(oracle("flow matching", p).log_prob(x, steps=100), p.log_prob(x), rtol=0, atol=0.02)


def test_the_likelihood_of_narrow_modes():
    p = probability.ring(std=0.05).to(torch.float64)
    x = p.sample(10)
    torch.testing.assert_close(oracle("x, log-SNR", p).log_prob(x, steps=150), p.log_prob(x), rtol=0, atol=0.03)


def test_the_likelihood_is_that_of_data_with_the_noise_of_the_first_time():
    # x = x_t / alpha_t, so its density is p_t(alpha_t x) alpha_t^D
    p, clock = mixture(), partial(power_clock, low=0.2)
    arguments = {"schedule": Straight(), "prediction": VELOCITY}
    model, x = Diffusion(Exact(p, **arguments), (2,), **arguments, clock=clock).double(), p.sample(10)
    expected = p.noised(0.8, 0.2).log_prob(0.8 * x) + 2 * math.log(0.8)
    torch.testing.assert_close(model.log_prob(x, steps=100), expected, rtol=0, atol=2e-3)


def test_a_schedule_that_keeps_the_data_and_adds_more_and_more_noise_ends_in_wide_noise():
    # alpha = 1, sigma from 0 to 30: the data's own variance is lost in the end, 1.5 / 30^2
    p, clock = mixture().to(torch.float32), partial(power_clock, exponent=4.0, low=1e-4)
    arguments = {"schedule": lambda t: (torch.ones_like(t), 30 * t), "prediction": CLEAN, "clock": clock}
    model = Diffusion(Exact(p, **arguments), (2,), **arguments)
    x = p.sample(20)
    torch.testing.assert_close(model.log_prob(x, steps=150), p.log_prob(x), rtol=0, atol=0.1)
    x = model.sample(4000)
    torch.testing.assert_close(x.mean(0), p.mean, rtol=0, atol=0.08)
    torch.testing.assert_close(x.T.cov(), p.covariance, rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["eps, linear", "flow matching"])
def test_samples_have_the_moments_of_the_mixture(name):
    p = mixture().to(torch.float32)
    x = oracle(name, p).sample(4000)
    torch.testing.assert_close(x.mean(0), p.mean, rtol=0, atol=0.08)
    torch.testing.assert_close(x.T.cov(), p.covariance, rtol=0, atol=0.1)
    torch.testing.assert_close(p.responsibilities(x).mean(0), p.weights, rtol=0, atol=0.03)


def test_samples_are_those_of_heun_on_the_denoiser():
    model = oracle("eps, linear")
    torch.manual_seed(3)
    x = model.sample(10, steps=20)
    torch.manual_seed(3)
    noise = torch.randn(10, 2, dtype=torch.float64) * model.schedule(torch.tensor(1.0))[1]
    step = partial(heun, denoise=model.denoise, schedule=model.schedule)
    torch.testing.assert_close(simulate(step, noise, model.times(20)), x)
    assert len(model.times(20)) == 21 and model.times(20)[-1] == 0 and (model.times(20).diff() < 0).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_score_and_denoiser_are_exact_at_one_time_or_many(name):
    model, x = oracle(name), torch.randn(6, 2, dtype=torch.float64)
    t = torch.tensor(0.4, dtype=torch.float64)
    noisy = mixture().noised(*model.schedule(t))
    torch.testing.assert_close(model.score(x, t), noisy.score(x))
    torch.testing.assert_close(model.denoise(x, t), exact_denoiser(mixture(), model.schedule)(x, t))
    torch.testing.assert_close(model.score(x, t.expand(6)), model.score(x, t))


@pytest.mark.parametrize("prediction", [NOISE, CLEAN, V, VELOCITY], ids=repr)
def test_every_example_has_its_own_time(prediction):
    model = Diffusion(randomized(TimeMLP(2)), (2,), schedule=LinearBeta(), prediction=prediction)
    x, t = torch.randn(5, 2), torch.rand(5)
    for i in range(5):
        torch.testing.assert_close(model.denoise(x, t)[i], model.denoise(x[i : i + 1], t[i])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("low", [1e-3, 0.3])
def test_the_loss_of_the_best_network_is_the_variance_it_cannot_know(low):
    # x of variance s^2 in D dimensions: Var[eps given x_t] = alpha^2 s^2 / (alpha^2 s^2 + sigma^2) in each
    s, dim, clock = 0.5, 3, partial(power_clock, low=low, exponent=2.0)

    class Best(nn.Module):
        def forward(self, x, t, c=None):
            alpha_t, sigma_t = LinearBeta()(t[:, None])
            return sigma_t * x / (alpha_t**2 * s**2 + sigma_t**2)

    model = Diffusion(Best(), (dim,), schedule=LinearBeta(), prediction=NOISE, clock=clock)
    alpha_t, sigma_t = LinearBeta()(clock((torch.arange(10_000) + 0.5) / 10_000))
    expected = dim * (alpha_t**2 * s**2 / (alpha_t**2 * s**2 + sigma_t**2)).mean().item()
    assert model.loss(s * torch.randn(100_000, dim)).item() == pytest.approx(expected, rel=0.02)


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["eps, linear"])
def test_the_learned_noise_is_the_mean_noise_of_the_mixture(name, seed):
    torch.manual_seed(seed)
    p = probability.two_clusters(center=(1.5, 0.5), std=0.5)
    model = Diffusion(TimeMLP(2, hidden=[32, 32]), (2,), **SETTINGS[name])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=300)
    fit(minimize(model.loss, optimizer, schedule=schedule), Draws(p.sample, batch_size=128, seed=seed), 300)
    gaps = []
    with torch.no_grad():
        for t in torch.tensor([0.2, 0.4, 0.6, 0.8]):
            alpha_t, sigma_t = model.schedule(t)
            x_t = p.noised(alpha_t, sigma_t).sample(2000)
            exact = (x_t - alpha_t * p.posterior_mean(x_t, alpha_t=alpha_t, sigma_t=sigma_t)) / sigma_t
            gaps.append((model.split(x_t, t)[1] - exact).square().mean().sqrt().item())
    assert max(gaps) < 0.25, gaps  # measured over ten seeds: 0.09 to 0.18


def test_classes_are_hidden_as_often_as_said_and_otherwise_passed_on():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, t, c=None):
            seen.append(c)
            return 0 * x

    model = Diffusion(Spy(), (1,), schedule=LinearBeta(), prediction=NOISE, class_dropout=0.3)
    c = torch.arange(20_000) % 7
    model.loss(torch.zeros(20_000, 1), c)
    hidden = seen[-1] == -1
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.02) and torch.equal(seen[-1][~hidden], c[~hidden])
    assert torch.equal(c, torch.arange(20_000) % 7)
    model.loss(torch.zeros(4, 1))
    assert seen[-1] is None
    model.sample(3, c[:3], steps=2)
    assert torch.equal(seen[-1], c[:3])
    model.log_prob(torch.zeros(3, 1), c[:3], steps=2)
    assert torch.equal(seen[-1], c[:3])


@pytest.mark.parametrize("seed", range(5))
def test_a_conditional_model_puts_classes_where_they_belong_and_guidance_pulls_them_apart(seed):
    torch.manual_seed(seed)
    p = probability.two_clusters(center=(1.0, 0.0), std=0.7)
    model = Diffusion(TimeMLP(2, classes=2, hidden=[32, 32]), (2,), **SETTINGS["flow matching"])

    def sample(n):
        c = torch.randint(2, (n,))
        return p.means[c] + 0.7 * torch.randn(n, 2), c

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=250)
    fit(minimize(model.loss, optimizer, schedule=schedule), Draws(sample, batch_size=128, seed=seed), 250)
    c = torch.zeros(1000, dtype=torch.long)
    conditional = model.sample(1000, c, steps=20)
    assert conditional[:, 0].mean().item() == pytest.approx(1.0, abs=0.2)
    assert model.sample(1000, steps=20)[:, 0].mean().abs() < 0.3
    means = []
    for scale in (0.0, 1.0, 3.0):
        step = partial(ddim, denoise=guided(model.denoise, c, scale=scale), schedule=model.schedule)
        x = simulate(step, torch.randn(1000, 2), model.times(20))
        means.append(x[:, 0].mean().item())
    assert abs(means[0]) < 0.3 and abs(means[1] - 1) < 0.2 and means[2] > means[1] + 0.2


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    stop = int(torch.randint(8, 29, ()))  # a random step, after the first save at 7

    def run(path, steps):
        torch.manual_seed(0)
        model = Diffusion(TimeMLP(2, classes=2, hidden=[8]), (2,), schedule=Cosine(), prediction=V)
        ema = EMA(model)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        checkpoint = Checkpoint(path, every=7, model=model, ema=ema, optimizer=optimizer)
        batches = Draws(lambda n: (torch.randn(n, 2), torch.randint(2, (n,))), batch_size=16)
        step = minimize(model.loss, optimizer, clip=1.0, ema=ema)
        history = fit(step, batches, steps, history=checkpoint.restore(), hooks=[checkpoint])
        return {**ema.state_dict(), **model.state_dict(), "loss": history["loss"]}

    run(tmp_path / "a.pt", stop)
    torch.randn(3)
    resumed, straight = run(tmp_path / "a.pt", 30), run(tmp_path / "b.pt", 30)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


# ------------------------------------------------------------------------------------------------------------ networks


def test_the_time_embedding_is_that_of_transformers_at_step_1000_t():
    t = torch.rand(20, dtype=torch.float64)
    features, position = 10, 1000 * t.numpy()
    found = time_embedding(t, features)
    for j in range(5):
        omega = math.exp(-math.log(10_000) * j / 4)
        for column, wave in ((j, math.sin), (5 + j, math.cos)):
            expected = torch.tensor([wave(omega * i) for i in position], dtype=torch.float64)
            torch.testing.assert_close(found[:, column], expected, rtol=0, atol=1e-9)


NETWORKS = {
    "dense": (lambda **k: TimeMLP(3, hidden=[16, 16], **k), (3,)),
    "dense, with waves": (lambda **k: TimeMLP(3, hidden=[16, 16], waves=2, **k), (3,)),
    "U-Net of 8x8": (lambda **k: UNet((1, 8, 8), channels=(8, 12), **k), (1, 8, 8)),
    "U-Net of 28x28": (lambda **k: UNet((1, 28, 28), channels=(4, 8, 8), **k), (1, 28, 28)),
    "U-Net of 32x16, colour": (lambda **k: UNet((3, 32, 16), channels=(4, 6, 8), **k), (3, 32, 16)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_uses_all_it_is_told_and_keeps_examples_apart(name):
    make, shape = NETWORKS[name]
    network = randomized(make(classes=5)).double()
    x = torch.randn(4, *shape, dtype=torch.float64, requires_grad=True)
    t, c = torch.rand(4, dtype=torch.float64), torch.tensor([0, 3, -1, 4])
    y = network(x, t, c)
    assert y.shape == x.shape and y.dtype == torch.float64
    y.square().sum().backward()
    unused = [key for key, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert not unused and (network.embed.label.weight.grad.abs().sum(1) > 0).tolist() == [
        True,
        False,
        False,
        *[True] * 3,
    ]
    (gradient,) = torch.autograd.grad(network(x, t, c)[1].sum(), x)
    assert (gradient.flatten(1).abs().sum(1) > 0).tolist() == [False, True, False, False]
    with torch.no_grad():
        assert not torch.allclose(network(x, t.flip(0), c), y) and not torch.allclose(network(x, t, c.flip(0)), y)
        told_nothing = network(x, t)
        torch.testing.assert_close(told_nothing[2], y[2])
        assert not torch.allclose(told_nothing[1], y[1])


def test_a_pixel_of_the_unet_sees_the_whole_small_image():
    network = randomized(UNet((1, 8, 8), channels=(8, 8))).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x, torch.rand(1).double())[0, 0, 0, 0], x)
    assert (gradient != 0).all()


def test_a_bridge_carries_detail_past_the_coarse_layers():
    network, x, t = randomized(UNet((1, 8, 8), channels=(8, 8))), torch.randn(2, 1, 8, 8), torch.full((2,), 0.5)
    with torch.no_grad():
        network.halve[0].weight.zero_()  # now the coarse layers see nothing of the image
        assert not torch.allclose(*network(x, t))


def test_waves_are_what_they_are_said_to_be():
    network = TimeMLP(2, waves=3)
    network.body = nn.Identity()
    x, t = torch.randn(4, 2), torch.rand(4)
    angles = torch.stack([x[:, d] * math.pi / 4 * 2**k for d in (0, 1) for k in (0, 1, 2)], dim=1)
    expected = torch.cat([x, angles.sin(), (angles + math.pi / 2).sin(), network.embed(t, None)], dim=1)
    torch.testing.assert_close(network(x, t), expected)


def test_images_can_be_sampled_and_have_a_likelihood():
    model = Diffusion(UNet((1, 4, 4), channels=(4, 4), classes=3), (1, 4, 4), schedule=Cosine(), prediction=V)
    model = Diffusion(randomized(model.network, std=0.1), (1, 4, 4), schedule=Cosine(), prediction=V)
    x = model.sample(3, torch.arange(3), steps=5)
    assert x.shape == (3, 1, 4, 4) and x.isfinite().all() and not x.requires_grad
    # each divergence is a trace over 16 dimensions; by central differences instead
    flat, t = x.double(), torch.tensor(0.5, dtype=torch.float64)
    model = model.double()
    state = torch.cat([flat.flatten(1), torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    found = torch.stack(model._split_and_divergences(state, t, None))[:, :, -1]
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for i in range(16):
        push = 1e-5 * torch.eye(16, dtype=torch.float64)[i].view(1, 4, 4)
        with torch.no_grad():
            ahead, behind = (torch.stack(model.split(flat + sign * push, t)).flatten(2) for sign in (1, -1))
        expected += (ahead - behind)[:, :, i] / 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------- behaviour


def small(**arguments):
    return Diffusion(TimeMLP(2, hidden=[8]), (2,), **{"schedule": Straight(), "prediction": VELOCITY, **arguments})


def test_it_is_what_it_says():
    model = small()
    assert isinstance(model, Samples) and isinstance(model, HasLogProb) and isinstance(model, HasLoss)
    assert model.sample(0).shape == (0, 2) and model.log_prob(torch.zeros(0, 2), steps=2).shape == (0,)
    assert model.sample(2, steps=1).shape == (2, 2) and not model.sample(2).requires_grad
    assert model.double().sample(2).dtype == torch.float64
    assert model.loss(torch.zeros(3, 2).double()).shape == ()
    x = torch.zeros(3, 2).double()
    x[1, 0] = math.nan
    assert model.log_prob(x, steps=3).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small().loss(torch.zeros(0, 2)), r"at least one example, got shape \(0, 2\)"),
        (lambda: small().loss(torch.zeros(5, 3)), r"x of shape \(B, 2\), got \(5, 3\)"),
        (lambda: small().log_prob(torch.zeros(2)), r"got \(2,\)"),
        (lambda: small().loss(torch.zeros(5, 2).double()), "x of torch.float32 on cpu .* got torch.float64 on cpu"),
        (lambda: small().denoise(torch.zeros(5, 2), torch.tensor(1.5)), r"t in \[0, 1\] .* got 1.5"),
        (lambda: small().denoise(torch.zeros(5, 2), torch.rand(4)), r"each of 5 examples, got shape \(4,\)"),
        (lambda: small().score(torch.zeros(5, 2), torch.tensor(0.0)), "without noise the score"),
        (lambda: small(class_dropout=1.5), "a probability, got 1.5"),
        (lambda: small(prediction=NOISE), "at t = 1 no signal is left, and a prediction of noise cannot find it"),
        (lambda: small().sample(2, steps=0), "steps must be at least 1, got 0"),
        (lambda: small().loss(torch.zeros(5, 2), torch.zeros(5).long()), r"without classes \(classes=0\)"),
        (
            lambda: TimeMLP(2, classes=3)(torch.zeros(2, 2), torch.rand(2), torch.tensor([0, 3])),
            r"0 to 2.* got \[0, 3\]",
        ),
        (
            lambda: TimeMLP(2, classes=3)(torch.zeros(2, 2), torch.rand(2), torch.tensor([0])),
            r"classes of shape \(2,\), got torch.int64 of shape \(1,\)",
        ),
        (
            lambda: TimeMLP(2, classes=3)(torch.zeros(2, 2), torch.rand(2), torch.rand(2)),
            "integer classes .* got torch.float32",
        ),
        (lambda: UNet((1, 10, 8)), r"multiples of 4, got \(10, 8\)"),
        (lambda: UNet((1, 8, 8))(torch.zeros(2, 1, 8, 12), torch.rand(2)), r"\(B, 1, 8, 8\), got \(2, 1, 8, 12\)"),
        (lambda: time_embedding(torch.rand(3), 5), "even and at least 4, got 5"),
        (lambda: time_embedding(torch.rand(3, 1), 8), r"shape \(B,\), got \(3, 1\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
