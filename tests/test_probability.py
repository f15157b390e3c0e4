"""Exact densities against scipy, autograd, quadrature and brute force."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from course_lib import probability
from course_lib.probability import GaussianMixture


def random_mixture(seed=0, components=3, dim=2, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    factors = torch.randn(components, dim, dim, generator=g, dtype=dtype)
    covariances = factors @ factors.mT + 0.3 * torch.eye(dim, dtype=dtype)
    means = 2 * torch.randn(components, dim, generator=g, dtype=dtype)
    return GaussianMixture(means, covariances, torch.rand(components, generator=g, dtype=dtype) + 0.1)


def scipy_log_prob(p, x):
    densities = [
        w * scipy.stats.multivariate_normal(m, c).pdf(x.numpy())
        for w, m, c in zip(p.weights.tolist(), p.means.numpy(), p.covariances.numpy(), strict=True)
    ]
    return torch.tensor(np.log(np.sum(densities, axis=0)))


@pytest.mark.parametrize("seed", range(3))
def test_log_prob_agrees_with_scipy(seed):
    p = random_mixture(seed, dim=3)
    x = p.sample(200)
    torch.testing.assert_close(p.log_prob(x), scipy_log_prob(p, x))


def test_density_integrates_to_one_and_samples_follow_it():
    p = random_mixture()
    edge = torch.linspace(-15, 15, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(edge, edge)
    density = p.log_prob(grid).exp()
    cell = (edge[1] - edge[0]) ** 2
    assert abs((density.sum() * cell).item() - 1) < 1e-6
    samples = p.sample(200_000)
    standard_error = p.covariance.diagonal().sqrt() / math.sqrt(len(samples))
    assert ((samples.mean(0) - p.mean).abs() < 5 * standard_error).all()
    torch.testing.assert_close(torch.cov(samples.T), p.covariance, rtol=0.03, atol=0.03)
    # the exact moments, by quadrature
    torch.testing.assert_close((density[:, None] * grid).sum(0) * cell, p.mean, rtol=1e-6, atol=1e-6)
    centred = grid - p.mean
    torch.testing.assert_close((centred.T * density) @ centred * cell, p.covariance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_score_is_the_gradient_of_log_prob(seed):
    p = random_mixture(seed)
    x = p.sample(50).requires_grad_()
    (gradient,) = torch.autograd.grad(p.log_prob(x).sum(), x)
    torch.testing.assert_close(p.score(x.detach()), gradient)


def test_responsibilities_are_bayes_rule():
    p = random_mixture()
    x = p.sample(20)
    r = p.responsibilities(x)
    for k in range(3):
        alone = GaussianMixture(p.means[[k]], p.covariances[[k]])
        torch.testing.assert_close(r[:, k].log(), p.weights[k].log() + alone.log_prob(x) - p.log_prob(x))
    torch.testing.assert_close(r.sum(1), torch.ones(20, dtype=torch.float64))


@pytest.mark.parametrize(("alpha_t", "sigma_t"), [(1.0, 0.5), (0.6, 0.8), (0.1, 1.3)])
def test_noised_is_the_density_of_noisy_samples(alpha_t, sigma_t):
    p = random_mixture()
    noisy = alpha_t * p.sample(200_000) + sigma_t * torch.randn(200_000, 2, dtype=torch.float64)
    q = p.noised(alpha_t, sigma_t)
    torch.testing.assert_close(torch.cov(noisy.T), q.covariance, rtol=0.03, atol=0.02)
    # the mean of exp(i w.x) has a closed form for each; compare the empirical one
    w = torch.tensor([0.7, -0.4], dtype=torch.float64)
    exact = (q.weights * torch.exp(-0.5 * torch.einsum("i,kij,j->k", w, q.covariances, w)) * (q.means @ w).cos()).sum()
    assert abs((noisy @ w).cos().mean() - exact) < 5 / math.sqrt(len(noisy))


@pytest.mark.parametrize(("alpha_t", "sigma_t"), [(1.0, 0.5), (0.6, 0.8)])
def test_posterior_mean_agrees_with_brute_force_and_with_tweedie(alpha_t, sigma_t):
    p = random_mixture()
    x_t = p.noised(alpha_t, sigma_t).sample(5)
    exact = p.posterior_mean(x_t, alpha_t=alpha_t, sigma_t=sigma_t)
    # Bayes by quadrature over clean points
    edge = torch.linspace(-12, 12, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(edge, edge)
    log_joint = p.log_prob(grid) - ((x_t[:, None] - alpha_t * grid) ** 2).sum(2) / (2 * sigma_t**2)
    torch.testing.assert_close(log_joint.softmax(1) @ grid, exact, rtol=1e-6, atol=1e-6)
    # Tweedie: alpha_t E[x | x_t] = x_t + sigma_t^2 score(x_t)
    torch.testing.assert_close(alpha_t * exact, x_t + sigma_t**2 * p.noised(alpha_t, sigma_t).score(x_t))


def test_normal_log_prob_agrees_with_torch():
    x, mu, logvar = torch.randn(7, 3, 4), torch.randn(7, 3, 4), torch.randn(7, 3, 4)
    expected = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(x).sum((1, 2))
    torch.testing.assert_close(probability.normal_log_prob(x, mu, logvar), expected)
    torch.testing.assert_close(
        probability.normal_log_prob(x, mu[:1], logvar[0, 0, 0]),
        torch.distributions.Normal(mu[:1], (0.5 * logvar[0, 0, 0]).exp()).log_prob(x).sum((1, 2)),
    )


def test_a_normal_density_of_single_numbers_and_of_no_points():
    x = torch.randn(5, dtype=torch.float64)
    found = probability.normal_log_prob(x, torch.tensor(0.3), torch.tensor(0.8))
    torch.testing.assert_close(
        found, torch.as_tensor(scipy.stats.norm(0.3, math.exp(0.4)).logpdf(x)), rtol=1e-6, atol=0
    )
    assert probability.normal_log_prob(torch.zeros(0, 3), torch.zeros(3), torch.zeros(3)).shape == (0,)


def test_whole_numbers_make_a_gaussian_and_precision_is_kept():
    x = torch.tensor([[0.5, 3.0]])
    expected = scipy.stats.multivariate_normal([1, 2], [[2, 1], [1, 2]]).logpdf(x.numpy())
    assert probability.gaussian([1, 2], [[2, 1], [1, 2]]).log_prob(x).item() == pytest.approx(expected, rel=1e-5)
    assert probability.gaussian(torch.zeros(2).double(), torch.eye(2).double()).sample(3).dtype == torch.float64


def test_toys_have_the_moments_they_promise():
    angles = 2 * math.pi * np.arange(8) / 8
    ring = probability.ring()
    np.testing.assert_allclose(ring.means, 2 * np.stack([np.cos(angles), np.sin(angles)], 1), atol=1e-6)
    entropy, error = ring.entropy()
    assert abs(entropy - (math.log(8) + 1 + math.log(2 * math.pi) + 2 * math.log(0.02))) < 5 * error < 0.05
    tilted = probability.tilted_gaussian()
    a = np.array([[1, 2], [-0.1, 0.5]])
    z = np.random.default_rng(0).normal(size=(200_000, 2))
    np.testing.assert_allclose(np.cov((z @ a + [1, 2]).T), tilted.covariance, atol=0.05)
    clusters = probability.two_clusters(center=(2.0, -1.0), std=0.5)
    torch.testing.assert_close(clusters.mean, torch.zeros(2))
    torch.testing.assert_close(clusters.covariance, torch.tensor([[4.25, -2.0], [-2.0, 1.25]]))


def test_weights_are_normalized_and_devices_and_types_kept():
    p = GaussianMixture(torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(p.weights, torch.tensor([0.25, 0.75]))
    assert p.to(torch.float64).sample(2).dtype == torch.float64


def test_bits_per_dim():
    # a fair choice among 256 levels per pixel costs 8 bits; scaled to [0, 1] its density is 1
    assert probability.bits_per_dim(torch.tensor(0.0), dims=12, levels=256).item() == 8
    # the same data on its integers: log p = -12 log 256
    assert probability.bits_per_dim(torch.tensor(-12 * math.log(256.0)), dims=12).item() == pytest.approx(8)
    nats = torch.tensor([-3.0, 5.0])
    bits = probability.bits_per_dim(nats, dims=3, levels=17)
    torch.testing.assert_close(probability.nats_from_bits_per_dim(bits, dims=3, levels=17), nats)
    assert bits[0] > bits[1]


def test_dequantize_stays_in_its_own_interval_and_fills_it():
    levels = 5
    k = torch.arange(levels).repeat(20_000)
    y = probability.dequantize(k / (levels - 1), levels=levels)
    assert ((y * levels).floor() == k).all()
    offset = y * levels - k
    assert scipy.stats.kstest(offset.numpy(), "uniform").pvalue > 1e-3
    assert (probability.dequantize(torch.ones(1_000_000), levels=256) < 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_mixture().log_prob(torch.zeros(2, 500)), r"\(B, 2\), got \(2, 500\)"),
        (lambda: random_mixture().score(torch.zeros(2)), r"got \(2,\)"),
        (lambda: random_mixture().posterior_mean(torch.zeros(4, 3), alpha_t=1.0, sigma_t=1.0), r"\(4, 3\)"),
        (lambda: GaussianMixture(torch.zeros(2, 2), torch.eye(2)[None]), r"means \(M, D\)"),
        (lambda: GaussianMixture(torch.zeros(1, 2), torch.eye(2)[None], torch.tensor([0.0])), "positive"),
        (
            lambda: GaussianMixture(torch.zeros(2, 2), torch.stack([torch.eye(2), torch.ones(2, 2)])),
            r"covariance 1 is not symmetric positive definite: \[\[1.0, 1.0\], \[1.0, 1.0\]\]",
        ),
        (
            lambda: GaussianMixture(torch.zeros(1, 2), torch.tensor([[[2.0, 1.0], [0.0, 2.0]]])),
            r"covariance 0 is not symmetric positive definite: \[\[2.0, 1.0\], \[0.0, 2.0\]\]",
        ),
        (lambda: probability.gaussian([0.0], [[math.nan]]), "covariance 0 is not .*nan"),
        (lambda: probability.gaussian([0.0], [[-1.0]]), r"covariance 0 is not .*\[\[-1.0\]\]"),
        (lambda: random_mixture().log_prob(torch.zeros(0, 2)), r"no points: .* at least one row, got shape \(0, 2\)"),
        (lambda: random_mixture().score(torch.zeros(0, 2)), "no points"),
        (lambda: random_mixture().responsibilities(torch.zeros(0, 2)), "no points"),
        (lambda: random_mixture().posterior_mean(torch.zeros(0, 2), alpha_t=1.0, sigma_t=1.0), "no points"),
        (lambda: probability.ring(modes=0), "modes must be at least 1, got 0"),
        (lambda: probability.ring(modes=-3), "modes must be at least 1, got -3"),
        (lambda: probability.ring(std=0.0), "covariance 0 is not symmetric positive definite"),
        (lambda: probability.normal_log_prob(torch.zeros(3, 2), torch.zeros(3), torch.zeros(2)), "mu of shape"),
        (lambda: probability.normal_log_prob(torch.zeros(3, 2), torch.zeros(2), torch.zeros(9, 3, 2)), "logvar"),
        (lambda: probability.bits_per_dim(torch.zeros(1), dims=0), "dims must be at least 1, got 0"),
        (lambda: probability.dequantize(torch.tensor([255.0]), levels=256), r"\[0, 1\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
