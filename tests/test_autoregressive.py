"""Masks by gradients, densities against scipy and quadrature, samplers against densities, NLL at the entropy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from course_lib import probability
from course_lib.data import Batches, Draws
from course_lib.models.autoregressive import bernoulli, binary_made, logistic_mixture, mixture_made
from course_lib.nn import LogisticMixture, MaskedLinear, MaskedMLP
from course_lib.protocols import HasLogProb, HasLoss, Samples
from course_lib.train import Checkpoint, fit, minimize


def randomized(model, seed=0, std=0.7):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(std * torch.randn(p.shape, generator=g))
    return model


def all_binary(dim):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * dim)


def chi_square_p_value(counts, probabilities):
    """Of the counts in cells with these probabilities; rare cells are pooled, as the test asks."""
    n = counts.sum()
    rare = n * probabilities < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = n * np.append(probabilities[~rare], 1 - probabilities[~rare].sum())
    keep = expected > 1
    return scipy.stats.chi2.sf(((observed - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1)


# ---------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("dim", "hidden"), [(1, [4]), (2, [5]), (3, []), (3, [2, 7]), (6, [16, 8]), (7, [6, 6, 6])])
def test_output_i_sees_every_earlier_input_and_no_other(dim, hidden, dtype):
    network = randomized(MaskedMLP(dim, 3, hidden=hidden)).to(dtype)
    x = torch.randn(1, dim, dtype=dtype)
    jacobian = torch.autograd.functional.jacobian(network, x)[0, :, :, 0]  # (D, P, D)
    earlier = torch.ones(dim, dim).tril(-1).bool()
    assert (jacobian[~earlier[:, None].expand_as(jacobian)] == 0).all()
    assert (jacobian[earlier[:, None].expand_as(jacobian)] != 0).all()


def test_a_masked_layer_is_a_linear_layer_with_the_masked_weights():
    mask = (torch.rand(4, 3) < 0.5).float()
    layer = MaskedLinear(mask)
    x = torch.randn(5, 3)
    expected = torch.tensor((layer.weight * mask).detach().numpy() @ x.numpy().T + layer.bias.detach().numpy()[:, None])
    torch.testing.assert_close(layer(x), expected.T)
    layer(x).sum().backward()
    assert (layer.weight.grad[mask == 0] == 0).all()


# ------------------------------------------------------------------------------------------ mixture of logistics


def scipy_mixture(weights, mu, scale):
    parts = [scipy.stats.logistic(m, s) for m, s in zip(mu, scale, strict=True)]
    return (
        lambda x: sum(w * part.pdf(x) for w, part in zip(weights, parts, strict=True)),
        lambda x: sum(w * part.cdf(x) for w, part in zip(weights, parts, strict=True)),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.0])
def test_density_and_distribution_function_agree_with_scipy(temperature):
    parameters = torch.randn(12, dtype=torch.float64)
    logits, mu, log_scale = parameters.numpy().reshape(3, 4)
    weights = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    pdf, cdf = scipy_mixture(weights, mu, temperature * (np.exp(log_scale) + 1e-3))
    x = torch.linspace(-20, 20, 101, dtype=torch.float64)
    p = logistic_mixture(parameters.expand(101, 12), temperature)
    np.testing.assert_allclose(p.log_prob(x).exp(), pdf(x.numpy()), rtol=1e-9)
    np.testing.assert_allclose(p.cdf(x), cdf(x.numpy()), rtol=1e-9)


def test_mass_between_bounds_agrees_with_scipy_far_into_the_tails():
    lower = torch.tensor([-60.0, -3.0, 0.0, 0.5, 30.0, 5.0], dtype=torch.float64)
    upper = lower + torch.tensor([1.0, 2.0, 1e-9, 8.0, 0.5, math.inf], dtype=torch.float64)
    p = LogisticMixture(torch.zeros(6, 1), torch.zeros(6, 1, dtype=torch.float64), torch.ones(6, 1))
    flip = lower.numpy() > 0  # scipy keeps its precision below the median only
    a, b = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    exact = np.diff(scipy.stats.logistic.cdf([a, b]), axis=0)[0]
    exact[2] = 1e-9 * scipy.stats.logistic.pdf(0)  # there the difference rounds
    np.testing.assert_allclose(p.log_mass(lower, upper).exp(), exact, rtol=1e-7)


def test_float32_stays_finite_where_the_naive_formula_overflows():
    p = LogisticMixture(torch.zeros(4, 2), torch.zeros(4, 2), torch.full((4, 2), 1e-3))
    x = torch.tensor([-50.0, -1.0, 1.0, 50.0], requires_grad=True)
    p.log_prob(x).sum().backward()
    assert x.grad.tolist() == pytest.approx([1e3, 1e3, -1e3, -1e3], rel=0.01)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_density_that_is_reported(seed, temperature):
    # p-values of 10 runs: 0.05 to 0.94. With Gaussian noise, or the scale's floor forgotten, they are below 1e-30.
    model = randomized(mixture_made(2, components=3, hidden=[8]), seed).double()
    with torch.no_grad():
        model.network[-2].bias.view(2, 3, 3)[:, 2] -= 2  # scales from 0.02 to 1, means of about 1
    torch.manual_seed(seed)
    x = model.sample(20_000, temperature=temperature)
    p = model.conditionals(x, temperature=temperature)
    uniform = p.cdf(x).detach().numpy()  # the probability integral transform: uniform on the square if all is well
    counts, _, _ = np.histogram2d(*uniform.T, bins=20, range=[[0, 1], [0, 1]])
    assert chi_square_p_value(counts.ravel(), np.full(400, 1 / 400)) > 1e-4
    # and the density is the slope of that transform
    x = x[:1000].requires_grad_()
    slopes = torch.autograd.grad(model.conditionals(x, temperature=temperature).cdf(x).sum(0)[1], x)[0][:, 1]
    mine = model.conditionals(x, temperature=temperature).log_prob(x)[:, 1]
    torch.testing.assert_close(mine, slopes.log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_density_integrates_to_one_in_the_plane(temperature):
    model = randomized(mixture_made(2, components=4, hidden=[8]), 3, std=0.2).double()
    edge = torch.linspace(-35, 35, 501, dtype=torch.float64)
    with torch.no_grad():
        total = model.log_prob(torch.cartesian_prod(edge, edge), temperature=temperature).exp().sum() * 0.14**2
    assert total.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_negative_log_likelihood_reaches_the_entropy(seed):
    p = probability.two_clusters(center=(2.0, 1.0), std=0.5)
    torch.manual_seed(seed)
    model = mixture_made(2, components=6, hidden=[32], spread=3.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, total_steps=500)
    fit(minimize(model.loss, optimizer, schedule=schedule), Draws(p.sample, batch_size=256, seed=seed), 500)
    x = p.sample(50_000)
    with torch.no_grad():
        gap = (p.log_prob(x) - model.log_prob(x)).mean().item()  # an estimate of KL(p, model), in nats
    assert 0 < gap < 0.025  # measured over five seeds: 0.010 to 0.016


# ------------------------------------------------------------------------------------------------------- binary


@pytest.mark.parametrize("seed", range(3))
def test_binary_probabilities_sum_to_one_and_samples_follow_them(seed):
    model = randomized(binary_made(5, hidden=[16]), seed)
    everything = all_binary(5)
    with torch.no_grad():
        probabilities = model.log_prob(everything).double().exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    x = model.sample(20_000)
    counts = np.bincount((x @ torch.tensor([16.0, 8, 4, 2, 1])).int().numpy(), minlength=32)
    assert chi_square_p_value(counts, probabilities.numpy() / probabilities.sum().item()) > 1e-4


def test_completions_follow_the_conditional_density():
    model = randomized(binary_made(4, hidden=[16]))
    given = torch.tensor([1.0, 0.0])
    with torch.no_grad():
        joint = model.log_prob(torch.cat([given.expand(4, 2), all_binary(2)], dim=1)).double().exp()
    x = torch.cat([given.expand(20_000, 2), torch.full((20_000, 2), math.nan)], dim=1)
    completed = model.complete(x, known=2)
    assert (completed[:, :2] == given).all() and x.isnan().sum() == 40_000
    counts = np.bincount((completed[:, 2:] @ torch.tensor([2.0, 1.0])).int().numpy(), minlength=4)
    assert chi_square_p_value(counts, (joint / joint.sum()).numpy()) > 1e-4
    assert torch.equal(model.complete(completed, known=4), completed)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_of_a_single_bit_is_a_power_of_its_probability(temperature):
    logit = torch.tensor([[1.3]])
    p = torch.stack([bernoulli(logit).log_prob(torch.tensor([v])) for v in (0.0, 1.0)]).exp()
    expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    tempered = torch.stack([bernoulli(logit, temperature).log_prob(torch.tensor([v])) for v in (0.0, 1.0)]).exp()
    torch.testing.assert_close(tempered, expected)


def test_a_binary_model_learns_a_table():
    # a parity: the last bit is the exclusive or of the others, flipped with probability 0.1
    torch.manual_seed(0)
    bits = (torch.rand(4000, 3) < 0.5).float()
    x = torch.cat([bits, ((bits.sum(1) % 2) - (torch.rand(4000) < 0.1).float()).abs()[:, None]], dim=1)
    entropy = 3 * math.log(2) - 0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    model = binary_made(4, hidden=[32, 32])
    fit(
        minimize(model.loss, torch.optim.Adam(model.parameters(), lr=2e-2, fused=True)), Batches(x, batch_size=500), 300
    )
    with torch.no_grad():
        probabilities = model.log_prob(all_binary(4)).exp()
    odd = all_binary(4).sum(1) % 2 == 1
    cross_entropy = -(torch.where(odd, 0.1, 0.9) / 8 * probabilities.log()).sum().item()
    assert entropy < cross_entropy < entropy + 0.02  # measured: 0.002


# ---------------------------------------------------------------------------------------------------- behaviour


def test_it_is_what_it_says():
    model = mixture_made(3)
    assert isinstance(model, Samples) and isinstance(model, HasLogProb) and isinstance(model, HasLoss)
    assert model.log_prob(torch.zeros(0, 3)).shape == (0,) and model.sample(0).shape == (0, 3)
    assert not model.sample(4).requires_grad
    x = torch.randn(8, 3)
    torch.testing.assert_close(model.loss(x), -sum(model.log_prob(row[None]) for row in x)[0] / 8)


def test_one_dimension_is_a_plain_mixture():
    model = randomized(mixture_made(1, components=3, hidden=[4]))
    x = torch.randn(6, 1)
    logits, mu, log_scale = model.network(torch.zeros(1, 1)).detach().view(3, 3).numpy().astype(float)
    pdf, _ = scipy_mixture(np.exp(logits) / np.exp(logits).sum(), mu, np.exp(log_scale) + 1e-3)
    np.testing.assert_allclose(model.log_prob(x).detach().exp(), pdf(x[:, 0].numpy()), rtol=1e-4)


def test_double_precision_agrees_and_not_a_number_stays_one():
    model = randomized(mixture_made(3, components=4))
    x = torch.randn(9, 3)
    single = model.log_prob(x)
    double = model.double().log_prob(x.double())
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)
    assert model.sample(2).dtype == torch.float64
    x[0, 1] = math.nan
    assert model.log_prob(x.double()).isnan().tolist() == [True] + [False] * 8


def test_means_start_apart():
    model = mixture_made(2, components=5, spread=4.0)
    _, mu, _ = model.network(torch.zeros(1, 2)).view(2, 3, 5).unbind(1)
    assert (mu.diff(dim=1) > 1).all() and mu.min() < -3 and mu.max() > 3


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    def run(path, steps):
        torch.manual_seed(0)
        model = mixture_made(2, components=3, hidden=[8])
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        checkpoint = Checkpoint(path, every=7, model=model, optimizer=optimizer)
        batches = Draws(probability.ring().sample, batch_size=16)
        fit(minimize(model.loss, optimizer), batches, steps, history=checkpoint.restore(), hooks=[checkpoint])
        return model.state_dict()

    run(tmp_path / "a.pt", 17)
    torch.randn(3)
    resumed, straight = run(tmp_path / "a.pt", 30), run(tmp_path / "b.pt", 30)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixture_made(2).log_prob(torch.zeros(5, 3)), r"shape \(B, 2\), got \(5, 3\)"),
        (lambda: mixture_made(2).log_prob(torch.zeros(2)), r"shape \(B, 2\), got \(2,\)"),
        (lambda: mixture_made(2).complete(torch.zeros(5, 2), known=3), "known from 0 to 2, got .* and 3"),
        (lambda: mixture_made(2).complete(torch.zeros(5, 1), known=0), r"got \(5, 1\)"),
        (lambda: mixture_made(2).sample(5, temperature=0.0), "temperature must be positive, got 0.0"),
        (lambda: binary_made(2).sample(5, temperature=-1.0), "temperature must be positive, got -1.0"),
        (lambda: binary_made(2).log_prob(torch.full((1, 2), 0.5)), "support"),
        (lambda: MaskedMLP(8, 1, hidden=[6]), r"at least dim - 1 units, got 8 and \[6\]"),
        (lambda: MaskedMLP(0, 1), "dim >= 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_activations_and_sizes_are_as_asked():
    network = MaskedMLP(3, 2, hidden=[4, 5], activation=nn.Tanh)
    assert [m.weight.shape for m in network if isinstance(m, MaskedLinear)] == [(4, 3), (5, 4), (6, 5)]
    assert sum(isinstance(m, nn.Tanh) for m in network) == 2


def test_a_bounded_network_does_not_run_away_from_the_data():
    """Weights of a size that makes an unbounded network overflow within a hundred draws."""

    def largest(activation):
        torch.manual_seed(0)
        model = mixture_made(100, components=2, hidden=(128,), activation=activation)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        return model.sample(50).abs().max().item()

    assert largest(nn.Tanh) < 1e4  # measured over six seeds: 180 to 450; the other overflows on each
    with pytest.raises(RuntimeError, match="inf"):
        largest(nn.SiLU)
