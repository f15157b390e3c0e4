"""Schedules against the chain they stand for, against their papers' formulas, and against derivatives."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from course_lib import probability
from course_lib.schedules import (
    Cosine,
    FromBetas,
    LinearBeta,
    LinearLogSNR,
    Straight,
    linear_betas,
    log_snr,
    power_clock,
)

SCHEDULES = {
    "linear": LinearBeta(),
    "cosine": Cosine(),
    "log-SNR": LinearLogSNR(),
    "DDPM": FromBetas(linear_betas(1000)),
    "straight": Straight(),
}


def times(n=1001, low=0.0):
    return torch.linspace(low, 1, n, dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_from_data_to_noise_and_keeps_shape_and_type(name):
    schedule = SCHEDULES[name]
    alpha_t, sigma_t = schedule(times())
    assert alpha_t[0] > 0.999 and sigma_t[0] < 0.001 and alpha_t[-1] < 0.01 and sigma_t[-1] > 0.999
    assert (alpha_t.diff() < 0).all() and (sigma_t.diff() > 0).all()
    if name != "straight":
        torch.testing.assert_close(alpha_t**2 + sigma_t**2, torch.ones_like(alpha_t))
    for t in (torch.rand(()), torch.rand(3, 2), torch.rand(5, dtype=torch.float64), torch.rand(0)):
        for value in schedule(t):
            assert value.shape == t.shape and value.dtype == t.dtype


@pytest.mark.parametrize("name", SCHEDULES)
def test_single_precision_keeps_its_digits_where_there_is_little_noise(name):
    t = torch.logspace(-6, 0, 200, dtype=torch.float64)[:-1].float()
    for single, double in zip(SCHEDULES[name](t), SCHEDULES[name](t.double()), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=2e-4, atol=1e-7)


def test_ddpm_s_schedule_leaves_what_the_papers_say():
    def left(betas):
        return FromBetas(betas)(torch.tensor(1.0, dtype=torch.float64))[0].item() ** 2

    assert left(linear_betas(1000)) == pytest.approx(4.0e-5, rel=0.02)
    torch.testing.assert_close(linear_betas(1000), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    meant_for_1000 = np.linspace(1e-4, 0.02, 1000)
    assert left(linear_betas(1000)) == pytest.approx(np.prod(1 - meant_for_1000), rel=1e-9)
    # the same range of betas in fewer steps keeps too much of the data; scaled to T, it does not
    assert left(torch.linspace(1e-4, 0.02, 100)) == pytest.approx(0.36, abs=0.01)
    assert left(torch.linspace(1e-4, 0.02, 50)) == pytest.approx(0.60, abs=0.01)
    assert all(left(linear_betas(steps)) < 5e-5 for steps in (21, 50, 100, 500, 10_000))
    stable_diffusion = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert left(stable_diffusion) == pytest.approx(0.0047, rel=0.02)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_the_schedule_of_betas_has_the_moments_of_the_chain(steps):
    betas = 0.001 + 0.3 * torch.rand(steps, dtype=torch.float64)
    share, variance = [1.0], [0.0]  # x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) eps, from x_0 = 1
    for beta in betas.tolist():
        share.append(math.sqrt(1 - beta) * share[-1])
        variance.append((1 - beta) * variance[-1] + beta)
    t = torch.arange(steps + 1) / steps  # in single precision, as a user would write it
    alpha_t, sigma_t = FromBetas(betas)(t.double())
    torch.testing.assert_close(alpha_t, torch.tensor(share, dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(sigma_t**2, torch.tensor(variance, dtype=torch.float64), rtol=1e-4, atol=1e-12)


def test_the_simulated_chain_has_the_moments_of_the_noised_mixture():
    p, betas = probability.two_clusters(center=(2.0, 1.0), std=0.5), linear_betas(40)
    schedule, n = FromBetas(betas), 40_000
    x = p.sample(n)
    for i, beta in enumerate(betas.tolist(), start=1):
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn_like(x)
        if i % 10 == 0:
            noisy = p.noised(*schedule(torch.tensor(i / 40)))
            error = (noisy.covariance.diagonal() / n).sqrt()
            assert ((x.mean(0) - noisy.mean).abs() < 5 * error).all()
            torch.testing.assert_close(x.T.cov(), noisy.covariance, rtol=0, atol=0.05)


def test_between_its_steps_the_noise_comes_at_a_constant_rate():
    alpha_t, _ = FromBetas(torch.tensor([0.2, 0.7]))(torch.tensor([0.25, 0.75], dtype=torch.float64))
    expected = torch.tensor([0.8**0.25, (0.8 * 0.3**0.5) ** 0.5], dtype=torch.float64)
    torch.testing.assert_close(alpha_t, expected, rtol=1e-6, atol=0)
    betas = np.array([0.1, 0.5, 0.2, 0.4])
    at = np.concatenate([[0], np.cumsum(np.log(1 - betas))]) / 2
    t = torch.rand(200, dtype=torch.float64)
    alpha_t, _ = FromBetas(torch.as_tensor(betas))(t)
    np.testing.assert_allclose(alpha_t.log(), np.interp(t, np.linspace(0, 1, 5), at), rtol=1e-9)


def test_linear_beta_loses_signal_at_the_rate_beta():
    t = times(50, low=0.01).requires_grad_()
    schedule = LinearBeta(beta_0=0.3, beta_1=7.0)
    (slope,) = torch.autograd.grad(schedule(t)[0].log().sum(), t)
    torch.testing.assert_close(-2 * slope, 0.3 + 6.7 * t.detach())


def test_linear_beta_is_the_limit_of_many_steps():
    gaps = []
    for steps in (100, 200, 400):
        t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        gaps.append((FromBetas(linear_betas(steps))(t)[0] - LinearBeta()(t)[0]).abs().max().item())
    assert gaps[0] < 0.03 and all(1.8 < a / b < 2.2 for a, b in pairwise(gaps))


@pytest.mark.parametrize("offset", [0.008, 0.1])
def test_cosine_is_the_formula_of_its_paper(offset):
    t = times(101)
    f = np.cos((t.numpy() + offset) / (1 + offset) * np.pi / 2) ** 2
    alpha_t, sigma_t = Cosine(offset=offset)(t)
    np.testing.assert_allclose(alpha_t**2, f / f[0], atol=1e-14)
    np.testing.assert_allclose(sigma_t**2, 1 - f / f[0], atol=1e-14)


def test_cosine_leaves_nothing_at_the_end_and_never_less_than_nothing():
    # the cosine of single precision's pi / 2 is below zero
    for offset in torch.linspace(0.001, 0.5, 200).tolist():
        alpha_t, _ = Cosine(offset=offset)(torch.tensor(1.0))
        assert 0 <= alpha_t < 1e-6 and not log_snr(Cosine(offset=offset), torch.tensor(1.0)).isnan()


def test_log_snr_falls_on_a_line_where_it_should():
    t = times(11)
    expected = torch.linspace(6, -3, 11, dtype=torch.float64)
    torch.testing.assert_close(log_snr(LinearLogSNR(start=6.0, end=-3.0), t), expected)
    torch.testing.assert_close(log_snr(Straight(), torch.tensor(0.25)), torch.tensor(2 * math.log(3)))


def test_straight_joins_data_and_noise():
    x, eps, t = torch.randn(5), torch.randn(5), torch.rand(5)
    alpha_t, sigma_t = Straight()(t)
    torch.testing.assert_close(alpha_t * x + sigma_t * eps, torch.lerp(x, eps, t))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 7.0])
def test_the_clock_runs_evenly_in_a_root_of_time(exponent):
    t = power_clock(times(101), exponent=exponent, low=0.01, high=0.5)
    root = t ** (1 / exponent)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(100))
    torch.testing.assert_close(t[[0, -1]], torch.tensor([0.01, 0.5], dtype=torch.float64))
    single = power_clock(torch.rand(10_000), exponent=exponent)
    assert single.min() >= 0.000999 and single.max() <= 1


def test_the_clock_s_last_time_is_one_that_schedules_accept():
    for exponent in (1.0, 2.0, 3.0, 7.0):
        for low in torch.logspace(-5, -0.1, 200).tolist():
            last = power_clock(torch.tensor(1.0), exponent=exponent, low=low)
            assert last <= 1 and Straight()(last)[1] == last


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearBeta()(torch.tensor([0.5, 1.5])), r"t in \[0, 1\] .* got 0.5 to 1.5"),
        (lambda: Cosine()(torch.tensor(-0.1)), "got -0.1 to -0.1"),
        (lambda: Straight()(torch.tensor(math.nan)), "got nan"),
        (lambda: LinearLogSNR()(torch.tensor([3])), "got a tensor of torch.int64"),
        (lambda: FromBetas(linear_betas(100))(torch.tensor(2.0)), "got 2 to 2"),
        (lambda: LinearBeta(beta_0=-1.0), "got -1.0 and 20.0"),
        (lambda: Cosine(offset=0.0), "positive, got 0.0"),
        (lambda: LinearLogSNR(start=-1.0, end=1.0), "must fall from start to end, got -1.0 and 1.0"),
        (lambda: FromBetas(torch.zeros(0)), r"shape \(T,\) between 0 and 1, got shape \(0,\)"),
        (lambda: FromBetas(torch.tensor([0.5, 1.0])), "values from 0.5 to 1"),
        (lambda: FromBetas(torch.tensor([[0.5]])), r"got shape \(1, 1\)"),
        (lambda: linear_betas(20), "more than 20 steps .* got 20"),
        (lambda: power_clock(torch.rand(3), low=0.0), "got low 0.0"),
        (lambda: power_clock(torch.rand(3), exponent=0.0), "exponent 0.0"),
        (lambda: power_clock(torch.rand(3), high=1.5), "high 1.5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
