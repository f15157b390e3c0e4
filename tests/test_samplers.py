"""Samplers with the exact denoiser of a mixture: what error is left is theirs, and its order is known."""

import math
from functools import cache, partial

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from scipy.integrate import solve_ivp
from torch.distributions import Normal

from course_lib import probability
from course_lib.probability import GaussianMixture
from course_lib.samplers import (
    acceptance,
    ddim,
    ddpm,
    euler,
    exact_denoiser,
    guided,
    heun,
    langevin,
    reject,
    simulate,
    tempered,
    trajectory,
)
from course_lib.schedules import Cosine, FromBetas, LinearBeta, LinearLogSNR, Straight, linear_betas


def mixture():
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [-0.5, -1.5]], dtype=torch.float64)
    shapes = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, 0.0], [0.0, 0.6]], [[0.4, -0.1], [-0.1, 0.4]]]).double()
    return GaussianMixture(means, shapes, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


def clock(*ends):
    return torch.tensor(ends, dtype=torch.float64)


@cache
def solved(start, stop, beta_0=0.1, beta_1=20.0):
    """Points and where they go, by an adaptive solver on the equation as Song et al. write it."""
    p, x = mixture(), 1.5 * torch.randn(10, 2, dtype=torch.float64)
    means, shapes, weights = p.means.numpy(), p.covariances.numpy(), p.weights.numpy()

    def field(t, flat):
        alpha_2 = np.exp(-beta_0 * t - (beta_1 - beta_0) * t**2 / 2)
        inverses = np.linalg.inv(alpha_2 * shapes + (1 - alpha_2) * np.eye(2))  # (M, D, D)
        offsets = flat.reshape(-1, 1, 2) - np.sqrt(alpha_2) * means  # (B, M, D)
        pulls = np.einsum("mij,bmj->bmi", inverses, offsets)
        log_joint = np.log(weights) + np.log(np.linalg.det(inverses)) / 2 - (offsets * pulls).sum(2) / 2
        score = -np.einsum("bm,bmi->bi", scipy.special.softmax(log_joint, axis=1), pulls)
        return -0.5 * (beta_0 + (beta_1 - beta_0) * t) * (flat + score.ravel())

    end = solve_ivp(field, (start, stop), x.flatten().numpy(), rtol=1e-8, atol=1e-9, method="DOP853").y[:, -1]
    return x, torch.as_tensor(end).view(-1, 2)


# ------------------------------------------------------------------------------------------------- order of convergence


@pytest.mark.parametrize(("step", "order"), [(euler, 1), (ddim, 1), (heun, 2)])
@pytest.mark.parametrize("ends", [(1.0, 0.05), (0.05, 1.0)])
def test_samplers_converge_to_the_probability_flow_with_their_order(step, order, ends):
    if step is ddim and ends[0] < ends[1]:
        pytest.skip("ddim goes back in time only")
    x, exact = solved(*ends)
    take = partial(step, denoise=exact_denoiser(mixture(), LinearBeta()), schedule=LinearBeta())
    sizes = [50, 100, 200]
    errors = [(simulate(take, x, torch.linspace(*ends, n + 1).double()) - exact).norm().item() for n in sizes]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert errors[-1] < 0.2 and slope == pytest.approx(-order, abs=0.25)


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), LinearLogSNR(start=20.0, end=-20.0), Straight()])
@pytest.mark.parametrize(("step", "tolerance"), [(euler, 0.05), (heun, 0.003)])
def test_whatever_the_schedule_a_gaussian_is_scaled_to_its_size(step, tolerance, schedule):
    p = probability.gaussian([0.0], [[0.25]])
    x = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    take = partial(step, denoise=exact_denoiser(p.to(torch.float64), schedule), schedule=schedule)
    # straight lines to quantiles: the noise has variance 1, the data 0.25, and order is kept
    torch.testing.assert_close(simulate(take, x, torch.linspace(1, 0, 301).double()), x / 2, rtol=tolerance, atol=0)


def test_there_and_back_again():
    schedule, x = LinearBeta(), mixture().sample(20)
    take = partial(heun, denoise=exact_denoiser(mixture(), schedule), schedule=schedule)
    t = torch.linspace(0.02, 1, 201, dtype=torch.float64) ** 2
    torch.testing.assert_close(simulate(take, simulate(take, x, t), t.flip(0)), x, rtol=0, atol=5e-3)


def test_without_noise_at_its_end_heun_is_euler():
    t, s = clock(0.1, 0.0)
    arguments = {"denoise": exact_denoiser(mixture(), Cosine()), "schedule": Cosine()}
    x = mixture().sample(5)
    assert torch.equal(heun(x, t, s, **arguments), euler(x, t, s, **arguments))


# -------------------------------------------------------------------------------------------------------- random steps


@pytest.mark.parametrize("schedule", [LinearBeta(), Straight(), Cosine()])
def test_one_ancestral_step_is_the_conditional_of_a_joint_normal(schedule):
    # given x, the pair (x_s, x_t) is jointly normal: x_t = (alpha_t / alpha_s) x_s + independent noise
    t, s, x_clean, x_t = clock(0.7, 0.4, 1.3, -0.8)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    across = alpha_t / alpha_s * sigma_s**2
    joint = torch.stack([torch.stack([sigma_s**2, across]), torch.stack([across, sigma_t**2])])
    mean = alpha_s * x_clean + across / sigma_t**2 * (x_t - alpha_t * x_clean)
    std = (1 / torch.linalg.inv(joint)[0, 0]).sqrt()
    arguments = {"denoise": lambda x, t: torch.full_like(x, x_clean), "schedule": schedule}
    for e in (0.0, 1.0, -2.0):
        found = ddpm(x_t.view(1, 1), t, s, **arguments, noise=partial(torch.full_like, fill_value=e))
        torch.testing.assert_close(found, (mean + e * std).view(1, 1))


@pytest.mark.parametrize("schedule", [LinearBeta(), Straight(), FromBetas(linear_betas(100))])
@pytest.mark.parametrize("ends", [(1.0, 0.9), (0.5, 0.2), (0.1, 0.0)])
def test_ddim_with_eta_1_is_ddpm_and_with_eta_0_euler(schedule, ends):
    t, s = clock(*ends)
    x, e = mixture().sample(6), torch.randn(6, 2, dtype=torch.float64)
    arguments = {"denoise": exact_denoiser(mixture(), schedule), "schedule": schedule}
    fixed = {**arguments, "noise": lambda x: e}
    torch.testing.assert_close(ddim(x, t, s, **fixed, eta=1.0), ddpm(x, t, s, **fixed))
    torch.testing.assert_close(ddim(x, t, s, **fixed, eta=0.0), euler(x, t, s, **arguments))
    # between, the mean of what the noise is replaced by keeps its variance: kept^2 + fresh^2 = sigma_s^2
    zero, one = (ddim(x, t, s, **arguments, eta=0.6, noise=lambda x, k=k: k * torch.ones_like(x)) for k in (0.0, 1.0))
    eps = (x - schedule(t)[0] * arguments["denoise"](x, t)) / schedule(t)[1]
    kept = (zero - schedule(s)[0] * arguments["denoise"](x, t)) / eps
    torch.testing.assert_close(kept**2 + (one - zero) ** 2, (schedule(s)[1] ** 2).expand(6, 2), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", [LinearBeta(), Straight(), Cosine(), LinearLogSNR()])
def test_the_shortest_step_is_a_number(schedule):
    # the step to the next number of single precision: a variance rounded to less than none would give NaN
    x, e = torch.tensor([[0.3, -0.7]]), torch.tensor([[1.0, -1.0]])
    arguments = {"denoise": lambda x, t: 0.5 * x, "schedule": schedule, "noise": lambda x: e}
    for t in 0.01 + 0.98 * torch.rand(100):
        s = torch.nextafter(t, torch.tensor(0.0))
        for step in (ddpm, partial(ddim, eta=1.0), partial(ddim, eta=0.3)):
            torch.testing.assert_close(step(x, t, s, **arguments), x, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("step", "schedule"),
    [
        (ddpm, FromBetas(linear_betas(100))),
        (partial(ddim, eta=0.5), LinearBeta()),
        (ddpm, Straight()),
        (heun, Cosine()),
    ],
)
def test_with_the_exact_score_samples_reach_the_mixture_s_moments(step, schedule):
    p, n = mixture().to(torch.float32), 8000
    take = partial(step, denoise=exact_denoiser(p, schedule), schedule=schedule)
    x = simulate(take, torch.randn(n, 2), torch.linspace(1, 0, 101))
    torch.testing.assert_close(x.mean(0), p.mean, rtol=0, atol=0.08)  # measured over 5 seeds: up to 0.033
    torch.testing.assert_close(x.T.cov(), p.covariance, rtol=0, atol=0.15)  # up to 0.09, for ddpm in 100 steps
    torch.testing.assert_close(p.responsibilities(x).mean(0), p.weights, rtol=0, atol=0.04)  # up to 0.014


def test_too_much_signal_left_at_the_start_is_a_wrong_start():
    p = probability.two_clusters(center=(4.0, 4.0), std=0.5)
    spread = {}
    for name, betas in (("scaled", linear_betas(50)), ("unscaled", torch.linspace(1e-4, 0.02, 50))):
        schedule = FromBetas(betas)
        take = partial(ddpm, denoise=exact_denoiser(p, schedule), schedule=schedule)
        x = simulate(take, torch.randn(2000, 2), torch.linspace(1, 0, 51))
        spread[name] = x.T.cov().trace().item() / p.covariance.trace().item()
    assert abs(spread["scaled"] - 1) < 0.05 and spread["unscaled"] < 0.9


# ------------------------------------------------------------------------------------------------------------ langevin


@pytest.mark.parametrize(("temperature", "h"), [(1.0, 0.2), (0.25, 0.4), (2.0, 0.1)])
def test_langevin_settles_where_the_step_size_says(temperature, h):
    v = 0.5
    x = torch.zeros(20_000, 1)
    for _ in range(60):
        x = langevin(x, score=lambda x: -x / v, step_size=h, temperature=temperature)
    # x' = (1 - h/v) x + sqrt(2 h T) eps keeps the variance 2 h T / (1 - (1 - h/v)^2), which tends to T v
    expected = 2 * h * temperature / (1 - (1 - h / v) ** 2)
    assert x.var().item() == pytest.approx(expected, rel=0.05) and abs(x.mean().item()) < 0.03


def test_langevin_with_the_exact_score_samples_a_mixture():
    p = probability.two_clusters(center=(1.0, 0.0), std=0.7)
    x = torch.randn(10_000, 2)
    for _ in range(200):
        x = langevin(x, score=p.score, step_size=0.02)
    torch.testing.assert_close(x.T.cov(), p.covariance, rtol=0, atol=0.08)
    assert scipy.stats.kstest(x[:, 1].numpy(), "norm", args=(0, 0.7)).pvalue > 1e-4


# ------------------------------------------------------------------------------------------------------ around a step


def test_a_trajectory_visits_every_time_in_order():
    seen = []

    def step(x, t, s):
        seen.append((t.item(), s.item()))
        return x + 1

    points = list(trajectory(step, torch.zeros(1), clock(1.0, 0.5, 0.25, 0.0)))
    assert seen == [(1.0, 0.5), (0.5, 0.25), (0.25, 0.0)] and [x.item() for x in points] == [0, 1, 2, 3]
    weight = torch.ones(1, requires_grad=True)
    assert not simulate(lambda x, t, s: weight * x, torch.zeros(1), clock(1.0, 0.0)).requires_grad


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_is_the_score_of_the_tilted_density(scale):
    # class 0 is the first component; log p_w = log p + w (log p(.|c) - log p), at every noise level
    p, schedule = mixture(), Cosine()
    of_class = GaussianMixture(p.means[:1], p.covariances[:1])

    def denoise(x, t, c):
        return exact_denoiser(p if c is None else of_class, schedule)(x, t)

    x, t = mixture().sample(8).requires_grad_(), clock(0.3)[0]
    alpha_t, sigma_t = schedule(t)
    whole, part = p.noised(alpha_t, sigma_t).log_prob(x), of_class.noised(alpha_t, sigma_t).log_prob(x)
    (score,) = torch.autograd.grad((whole + scale * (part - whole)).sum(), x)
    x = x.detach()
    x_hat = guided(denoise, torch.zeros(8, dtype=torch.long), scale=scale)(x, t)
    torch.testing.assert_close((alpha_t * x_hat - x) / sigma_t**2, score)
    ends = {0.0: denoise(x, t, None), 1.0: denoise(x, t, 0)}
    if scale in ends:
        torch.testing.assert_close(x_hat, ends[scale])


def test_colder_noise_makes_narrower_samples():
    p, schedule = probability.gaussian([0.0], [[1.0]]), LinearBeta()
    std = []
    for temperature in (0.5, 0.8, 1.0, 1.2):
        noise = tempered(temperature)
        take = partial(ddpm, denoise=exact_denoiser(p, schedule), schedule=schedule, noise=noise)
        std.append(simulate(take, noise(torch.zeros(5000, 1)), torch.linspace(1, 0, 101)).std().item())
    # every step is linear here, so samples scale with the noise exactly
    np.testing.assert_allclose(np.array(std) / std[2], [0.5, 0.8, 1.0, 1.2], rtol=0.05)
    assert std[2] == pytest.approx(1, abs=0.05)
    assert tempered(0.5)(torch.zeros(10_000, dtype=torch.float64)).std().item() == pytest.approx(0.5, rel=0.03)


# ----------------------------------------------------------------------------------------------------------- rejection


def test_accepted_shares_are_those_of_the_right_density():
    p, q = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    logits = (p / q).log()
    kept = q * acceptance(logits, highest=logits.max())
    torch.testing.assert_close(kept / kept.sum(), p)
    torch.testing.assert_close(kept.sum(), q[3] / p[3])  # e^{-M} of all are kept
    chances = torch.stack([acceptance(logits, highest=4.0, shift=shift) for shift in (-5.0, 0.0, 5.0)])
    assert (chances.diff(dim=0) < 0).all() and (chances.diff(dim=1) > 0).all()
    odds = torch.special.logit(chances.double())  # a shift subtracts from the log-odds
    torch.testing.assert_close(odds[0] - odds[1], torch.full((4,), 5.0).double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_rejection_turns_samples_of_q_into_samples_of_p(seed):
    torch.manual_seed(seed)
    p, q, proposed = Normal(0.5, 1.0), Normal(0.0, 2.0), []

    def sample(n):
        proposed.append(n)
        return q.sample((n, 1))

    def logit(x):
        return (p.log_prob(x) - q.log_prob(x))[:, 0]

    highest = logit(torch.linspace(-5, 5, 10_001)[:, None]).max().item()
    x = reject(sample, logit, 5000, highest=highest)
    assert x.shape == (5000, 1)
    assert scipy.stats.kstest(x[:, 0].numpy(), "norm", args=(0.5, 1.0)).pvalue > 1e-4
    assert scipy.stats.kstest(sample(5000)[:, 0].numpy(), "norm", args=(0.5, 1.0)).pvalue < 1e-4
    many = q.sample((100_000, 1))
    rate = acceptance(logit(many), highest=highest).mean().item()
    assert rate == pytest.approx(math.exp(-highest), rel=0.02)


def test_rejecting_to_no_sample_keeps_the_shape():
    assert reject(lambda n: torch.zeros(n, 2), lambda x: x[:, 0], 0, highest=0.0).shape == (0, 2)


def test_rejected_samples_keep_no_graph():
    weight = torch.ones(1, requires_grad=True)
    x = reject(lambda n: weight * torch.rand(n, 1), lambda x: (weight * x)[:, 0], 20, highest=1.0)
    assert x.shape == (20, 1) and not x.requires_grad


# ---------------------------------------------------------------------------------------------------------- bad input


def stand_in(x, t):
    return torch.zeros_like(x)


def call(step, x=None, t=0.5, s=0.25, denoise=stand_in, **arguments):
    x = torch.zeros(3, 2) if x is None else x
    return step(x, torch.as_tensor(t), torch.as_tensor(s), denoise=denoise, schedule=Straight(), **arguments)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: call(ddim, eta=1.5), r"eta must lie in \[0, 1\] .* got 1.5"),
        (lambda: call(ddim, eta=-0.1), "got -0.1"),
        (lambda: call(ddpm, t=0.5, s=0.5), "expected s < t, got t = 0.5 and s = 0.5"),
        (lambda: call(ddim, t=0.2, s=0.5), "got t = 0.2 and s = 0.5"),
        (lambda: call(euler, t=0.0, s=0.5), "no noise at t = 0"),
        (lambda: call(heun, t=1.5), r"expected t in \[0, 1\] .* got 1.5"),
        (lambda: call(euler, s=-0.5), "got -0.5"),
        (lambda: call(heun, x=torch.zeros(0, 2)), r"at least one row, got shape \(0, 2\)"),
        (lambda: call(euler, t=torch.ones(3)), r"a single time, of shape \(\), got shape \(3,\)"),
        (lambda: call(euler, denoise=lambda x, t: x[:, 0]), r"of shape \(3, 2\), but the denoiser gave .* \(3,\)"),
        (lambda: call(ddpm, denoise=lambda x, t: x.double()), "x is torch.float32 .* gave torch.float64"),
        (lambda: langevin(torch.zeros(3), score=stand_in, step_size=0.0), "positive step_size .* got 0.0"),
        (lambda: langevin(torch.zeros(3), score=lambda x: x, step_size=1.0, temperature=-1.0), "and -1.0"),
        (lambda: langevin(torch.zeros(3, 2), score=lambda x: x[:, 0], step_size=1.0), r"\(3, 2\), got \(3,\)"),
        (lambda: simulate(stand_in, torch.zeros(3), torch.tensor([1.0])), r"two or more times .* got \[1.0\]"),
        (lambda: simulate(stand_in, torch.zeros(3), torch.tensor([2.0, 0.0])), r"in \[0, 1\].* got \[2.0, 0.0\]"),
        (lambda: guided(stand_in, torch.zeros(3), scale=-1.0), "at least 0 .* got -1.0"),
        (lambda: tempered(-1.0), "got -1.0"),
        (lambda: acceptance(torch.zeros(3, 1), highest=0.0), r"shape \(B,\), got \(3, 1\)"),
    ],
)
def test_bad_input_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


def test_rejection_gives_up_when_nothing_is_accepted():
    with pytest.raises(RuntimeError, match=r"only 0 of \d+ proposals were accepted, 10 are needed"):
        reject(lambda n: torch.zeros(n, 1), lambda x: x[:, 0], 10, highest=100.0, most=50)
