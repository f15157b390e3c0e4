"""VAEs against probabilistic PCA, quadrature over the code, torch.distributions, and the order of the bounds."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from course_lib import losses
from course_lib.data import Batches
from course_lib.models.vae import VAE, LinearVAE, make_vae
from course_lib.nn import (
    BernoulliPixels,
    ClassInput,
    Constant,
    GaussianPixels,
    conv_networks,
    dense_networks,
)
from course_lib.probability import reparameterize
from course_lib.train import Checkpoint, NonFiniteError, Ramp, fit, minimize


def correlated(seed, n=2000, dim=6):
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(dim, dim, generator=g)).Q
    scales = torch.tensor([3.0, 2.0] + [0.5] * (dim - 2))
    return torch.randn(n, dim, generator=g) * scales @ axes.T + torch.randn(dim, generator=g)


def trained_linear_vae(x, seed):
    torch.manual_seed(seed)
    model = LinearVAE(x.shape[1], 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=1500, pct_start=0.1)
    fit(minimize(model.loss, optimizer, schedule=schedule), Batches(x, batch_size=500, seed=seed), 1500)
    return model


@pytest.mark.parametrize("seed", range(5))
def test_the_linear_vae_reaches_probabilistic_pca_and_its_bound_closes(seed):
    # scikit-learn's score is the maximum of the likelihood over W, b and sigma. Measured over ten seeds: sigma within
    # 1.5 %; the bound, from a quarter of the draws taken here, within 0.008 of the exact value
    x = correlated(seed)
    model = trained_linear_vae(x, seed)
    best = PCA(2).fit(x.double().numpy()).score(x.double().numpy())
    with torch.no_grad():
        exact = model.log_prob(x).mean().item()
        elbo = torch.stack([model.elbo(x) for _ in range(200)]).mean().item()  # standard error 0.002
    assert best - 0.02 < exact < best + 1e-4
    assert exact - 0.02 < elbo < exact + 0.01
    assert model.likelihood.sigma == pytest.approx(0.5, rel=0.05)


@torch.no_grad()
def test_elbo_below_iwae_below_exact_and_rising_in_k():
    torch.manual_seed(1)
    model = LinearVAE(5, 2, sigma=0.7)
    model.decoder.weight.normal_()
    model.encoder.logvar.value.copy_(torch.tensor([-1.0, 0.3]))  # a posterior that is wrong: the bounds stay apart
    x = torch.randn(400, 5)
    exact = model.log_prob(x).mean()
    bounds = [torch.stack([model.log_prob_iw(x, k) for _ in range(400 // k)]).mean() for k in (1, 5, 50, 400)]
    elbo = torch.stack([model.elbo(x) for _ in range(400)]).mean()
    assert bounds[0] == pytest.approx(elbo.item(), abs=0.15)  # two estimates of one number
    assert bounds[0] + 0.3 < bounds[1] and bounds[1] + 0.1 < bounds[2] < bounds[3] < exact + 0.02
    assert exact - bounds[3] < 0.5 * (exact - bounds[2])


@torch.no_grad()
def test_the_gap_of_the_elbo_is_the_divergence_to_the_true_posterior():
    torch.manual_seed(2)
    model = LinearVAE(4, 2, sigma=0.8)
    x = torch.randn(30, 4)
    mu, logvar = model.encode(x)
    q = torch.distributions.MultivariateNormal(mu, torch.diag_embed(logvar.exp()))
    gap = kl_divergence(q, model.posterior(x)).mean()
    elbo = torch.stack([model.elbo(x) for _ in range(4000)]).mean()
    assert (model.log_prob(x).mean() - elbo).item() == pytest.approx(gap.item(), abs=0.03)


def test_the_exact_likelihood_is_that_of_scipy_and_of_its_own_samples():
    torch.manual_seed(3)
    model = LinearVAE(3, 2, sigma=0.4)
    w, b = model.decoder.weight.detach().numpy(), model.decoder.bias.detach().numpy()
    truth = multivariate_normal(b, w @ w.T + 0.16 * np.eye(3))
    x = torch.randn(20, 3)
    np.testing.assert_allclose(model.log_prob(x).detach().numpy(), truth.logpdf(x.numpy()), rtol=1e-4)
    samples = model.sample(200_000)
    assert torch.cov(samples.T).numpy() == pytest.approx(truth.cov, abs=0.02)
    assert samples.mean(0).numpy() == pytest.approx(b, abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("likelihood", [GaussianPixels(sigma=0.6), BernoulliPixels()])
def test_a_nonlinear_model_meets_quadrature_over_its_code(likelihood):
    torch.manual_seed(4)
    model = make_vae(dense_networks, (3,), 1, likelihood, hidden=[8])
    for p in model.decoder.parameters():
        p.normal_(std=1.0)
    x = torch.bernoulli(torch.full((6, 3), 0.5))
    z = torch.linspace(-8, 8, 4001)
    outputs = model.decoder(z[:, None])  # (Z, 3)
    if isinstance(likelihood, BernoulliPixels):
        conditional = Bernoulli(logits=outputs[:, None]).log_prob(x).sum(-1)  # (Z, 6)
    else:
        conditional = Normal(outputs[:, None], 0.6).log_prob(x).sum(-1)
    exact = torch.trapezoid((conditional + Normal(0.0, 1.0).log_prob(z)[:, None]).exp(), z, dim=0).log()
    torch.testing.assert_close(model.log_prob_iw(x, 4000), exact, atol=0.05, rtol=0.01)
    assert (torch.stack([model.elbo(x) for _ in range(200)]).mean(0) < exact).all()


def test_the_divergence_is_that_of_torch_distributions_and_of_its_draws():
    torch.manual_seed(5)
    mu, logvar = torch.randn(2, 7, 3)
    q, prior = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros(3), torch.ones(3))
    kl = losses.kl_to_standard_normal(mu, logvar)
    torch.testing.assert_close(kl, kl_divergence(q, prior), atol=1e-6, rtol=1e-5)
    z = reparameterize(mu.expand(100_000, 7, 3), logvar.expand(100_000, 7, 3))
    torch.testing.assert_close((q.log_prob(z) - prior.log_prob(z)).mean(0), kl, atol=0.03, rtol=0.03)
    # the digits of a small divergence survive: to second order it is (mu^2 + logvar^2 / 2) / 2
    small = losses.kl_to_standard_normal(torch.tensor([[0.0]]), torch.tensor([[1e-3]]))
    assert small.item() == pytest.approx(0.25e-6, rel=0.01)


def test_the_gradient_passes_through_the_draw():
    mu, logvar = torch.zeros(100_000, 1, requires_grad=True), torch.zeros(100_000, 1, requires_grad=True)
    z = reparameterize(mu, logvar)
    by_mu, by_logvar = torch.autograd.grad(z.square().sum() / len(z), (mu, logvar))
    # E z^2 = mu^2 + exp(logvar): its slopes at 0 are 2 mu = 0 and exp(logvar) = 1
    assert by_mu.sum().item() == pytest.approx(0, abs=0.03)
    assert by_logvar.sum().item() == pytest.approx(1, abs=0.03)


def test_free_bits_charge_each_dimension_at_least_the_floor():
    kl = torch.tensor([[0.0, 2.0, 0.3], [0.2, 4.0, 0.9]], requires_grad=True)
    assert losses.free_bits(kl, floor=0.5).item() == pytest.approx(0.5 + 3.0 + 0.6)
    (gradient,) = torch.autograd.grad(losses.free_bits(kl, floor=0.5), kl)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]))
    assert losses.free_bits(kl, floor=0.0).item() == pytest.approx(kl.sum().item() / 2)


def test_the_loss_is_the_mean_of_sums():
    torch.manual_seed(6)
    model = make_vae(dense_networks, (1, 4, 4), 3, BernoulliPixels(), hidden=[8])
    x = torch.rand(5, 1, 4, 4).round()
    with torch.random.fork_rng():
        loss = model.loss(x, beta=0.3)
    mu, logvar = model.encode(x)
    p = Independent(Bernoulli(logits=model.decoder(reparameterize(mu, logvar))), 3)
    kl = kl_divergence(Independent(Normal(mu, (0.5 * logvar).exp()), 1), Independent(Normal(mu * 0, mu * 0 + 1), 1))
    torch.testing.assert_close(loss, (0.3 * kl - p.log_prob(x)).mean())


def test_the_loss_passes_free_bits_on_and_a_reconstruction_comes_from_the_mean_code():
    torch.manual_seed(10)
    model = make_vae(dense_networks, (4,), 2, GaussianPixels(), hidden=[8])
    x = torch.randn(6, 4)
    kl = model.terms(x)[1].mean(0)
    torch.manual_seed(1)
    plain = model.loss(x)
    torch.manual_seed(1)
    free = model.loss(x, free_bits=100.0)
    torch.testing.assert_close(free - plain, 200 - kl.sum())
    nn.init.constant_(model.encoder[1][-1].bias[2:], -40.0)  # no spread: every draw is the mean
    torch.testing.assert_close(model(x), model.decoder(reparameterize(*model.encode(x))))


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_gaussian_pixels_are_a_normal_density_and_learn_the_error(sigma):
    torch.manual_seed(7)
    pixels = GaussianPixels(sigma=sigma)
    x, x_hat = torch.randn(2, 4, 1, 3, 3)
    expected = norm(x_hat.numpy(), sigma).logpdf(x.numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(pixels.log_prob(x, x_hat).detach().numpy(), expected, rtol=1e-4)
    draws = pixels.sample(torch.full((100_000, 1), 3.0))
    assert draws.mean().item() == pytest.approx(3, abs=0.03) and draws.std().item() == pytest.approx(sigma, rel=0.02)
    best = GaussianPixels(sigma=(x - x_hat).square().mean().sqrt().item())  # the likelihood is flat at the mean error
    best.log_prob(x, x_hat).mean().backward()
    assert best.log_sigma.value.grad.item() == pytest.approx(0, abs=1e-4)


def test_a_fixed_sigma_stays_and_bernoulli_draws_follow_the_logits():
    fixed = GaussianPixels(sigma=0.3, fixed=True)
    assert not any(p.requires_grad for p in fixed.parameters()) and fixed.sigma == pytest.approx(0.3)
    logits = torch.tensor([[-1.0, 2.0]]).expand(100_000, 2)
    draws = BernoulliPixels().sample(logits)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0), 1 / (1 + (-logits[0]).exp()), atol=0.01, rtol=0)
    torch.testing.assert_close(BernoulliPixels().mean(logits), Bernoulli(logits=logits).mean)


def test_the_sampler_adds_the_noise_that_decode_leaves_out():
    torch.manual_seed(8)
    model = VAE(nn.Linear(2, 2), nn.Linear(1, 2), GaussianPixels(sigma=0.5), latent=1)
    nn.init.constant_(model.decoder.weight, 1.0)
    nn.init.zeros_(model.decoder.bias)
    x = model.sample(100_000)  # both dimensions are z plus their own noise: variance 1 + 0.25, covariance 1
    torch.testing.assert_close(torch.cov(x.T), torch.tensor([[1.25, 1.0], [1.0, 1.25]]), atol=0.03, rtol=0)
    torch.testing.assert_close(model.decode(torch.tensor([[2.0]])), torch.tensor([[2.0, 2.0]]))


@pytest.mark.parametrize("networks", [dense_networks, conv_networks])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 8)])
def test_a_conditional_model_uses_its_labels(networks, shape):
    torch.manual_seed(9)
    model = make_vae(networks, shape, 4, BernoulliPixels(), classes=3)
    x, c = torch.rand(6, *shape).round(), torch.tensor([0, 1, 2, 0, 1, 2])
    assert model.elbo(x, c).shape == model.log_prob_iw(x, 2, c).shape == (6,)
    assert model.sample(6, c).shape == x.shape and model(x, c).shape == x.shape
    z = torch.randn(1, 4).expand(3, 4)
    decoded = model.decode(z, torch.arange(3))
    assert (decoded[0] - decoded[1]).abs().max() > 1e-4 and (decoded[1] - decoded[2]).abs().max() > 1e-4
    mu, _ = model.encode(x[:1].expand(3, *shape), torch.arange(3))
    assert (mu[0] - mu[1]).abs().max() > 1e-5


@pytest.mark.parametrize("seed", range(5))
def test_a_conditional_model_learns_what_the_label_says(seed):
    # measured over ten seeds: means within 0.10, standard deviations within 0.03
    torch.manual_seed(seed)
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    c = torch.arange(2).repeat(2000)
    x = means[c] + 0.5 * torch.randn(4000, 2)
    model = make_vae(dense_networks, (2,), 2, GaussianPixels(), classes=2, hidden=[32])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    fit(minimize(model.loss, optimizer), Batches(x, c, batch_size=200, seed=seed), 400)
    for label in range(2):
        samples = model.sample(5000, torch.full((5000,), label))
        assert (samples.mean(0) - means[label]).abs().max() < 0.2
        assert (samples.std(0) - 0.5).abs().max() < 0.08


def test_labels_become_features_or_channels():
    features = ClassInput(nn.Identity(), classes=2)(torch.tensor([[5.0]]), torch.tensor([1]))
    assert features.tolist() == [[5.0, 0.0, 1.0]]
    planes = ClassInput(nn.Identity(), classes=2)(torch.zeros(1, 1, 2, 3), torch.tensor([0]))
    assert planes.shape == (1, 3, 2, 3) and planes[0, 1].eq(1).all() and planes[0, 2].eq(0).all()


def test_a_constant_does_not_look_at_its_input():
    constant = Constant(torch.tensor([1.0, 2.0]))
    assert constant(torch.randn(3, 9)).tolist() == [[1.0, 2.0]] * 3
    assert constant(torch.randn(3, 9)).sum().backward() is None and constant.value.grad.tolist() == [3.0, 3.0]


def test_a_ramp_grows_to_its_final_value_and_goes_on_after_a_restart():
    ramp = Ramp(4, final=2.0)
    assert [ramp() for _ in range(6)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    first, second = Ramp(4), Ramp(4)
    first(), first()
    second.load_state_dict(first.state_dict())
    assert second() == first() == 0.5


@pytest.mark.parametrize("stop", [3, 11, 17])
def test_resumed_training_equals_uninterrupted_training(tmp_path, stop):
    def run(path, steps):
        torch.manual_seed(0)
        model = make_vae(conv_networks, (1, 8, 8), 3, GaussianPixels(), channels=(4, 8))
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        beta = Ramp(20)
        checkpoint = Checkpoint(path, every=1, model=model, optimizer=optimizer, beta=beta)
        batches = Batches(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), batch_size=16)
        step = minimize(lambda x: model.loss(x, beta=beta(), free_bits=0.1), optimizer, clip=5.0)
        history = fit(step, batches, steps, history=checkpoint.restore(), hooks=[checkpoint])
        return model.state_dict() | {"loss": history["loss"]}

    run(tmp_path / "a.pt", stop)
    torch.randn(3)
    resumed, straight = run(tmp_path / "a.pt", 24), run(tmp_path / "b.pt", 24)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_a_vae_has_a_bound_and_no_likelihood():
    model = make_vae(dense_networks, (4,), 2, GaussianPixels(), hidden=[8])
    assert not hasattr(model, "log_prob") and hasattr(LinearVAE(4, 2), "log_prob")


def small(**options):
    return make_vae(dense_networks, (4,), 2, GaussianPixels(), hidden=[8], **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small().elbo(torch.zeros(0, 4)), "B > 0; B = 0"),
        (
            lambda: VAE(nn.Linear(4, 3), nn.Linear(2, 4), GaussianPixels(), latent=2).elbo(torch.zeros(5, 4)),
            r"\(B, 4\)",
        ),
        (
            lambda: VAE(nn.Linear(4, 4), nn.Linear(2, 1), GaussianPixels(), latent=2).elbo(torch.zeros(5, 4)),
            r"gives shape \(5, 1\), the data has \(5, 4\)",
        ),
        (lambda: BernoulliPixels().log_prob(torch.zeros(5, 4), torch.zeros(5, 1)), r"\(5, 1\), the data has \(5, 4\)"),
        (lambda: small().log_prob_iw(torch.zeros(5, 4), 0), "k must be at least 1 draw, got 0"),
        (
            lambda: small(classes=3).elbo(torch.zeros(5, 4), torch.zeros(4, dtype=torch.long)),
            r"expected 5 labels, shape \(5,\)",
        ),
        (lambda: small(classes=3).elbo(torch.zeros(5, 4), torch.zeros(5)), "torch.float32"),
        (lambda: small(classes=3).elbo(torch.zeros(2, 4), torch.tensor([0, 3])), r"must lie in 0 ... 2, got 0 to 3"),
        (lambda: GaussianPixels(sigma=0.0), "sigma must be positive, got 0.0"),
        (lambda: LinearVAE(3, 4), "1 <= latent <= dim, got latent 4 and dim 3"),
        (lambda: losses.kl_to_standard_normal(torch.zeros(5, 2), torch.zeros(2)), r"\(5, 2\), logvar \(2,\)"),
        (lambda: losses.free_bits(torch.zeros(5, 2), floor=-1.0), "at least 0 nats, got -1.0"),
        (lambda: Ramp(0), "steps must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nan_in_data_stops_training_at_its_step():
    model = small()
    step = minimize(model.loss, torch.optim.Adam(model.parameters()))
    bad = torch.zeros(5, 4)
    bad[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="loss is nan at step 2"):
        fit(step, [torch.zeros(5, 4), torch.zeros(5, 4), bad], 3)
