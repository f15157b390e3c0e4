"""Losses of two players and of a critic: against scipy, autograd, and answers known on paper."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.stats import bernoulli
from torch import nn
from torch.nn import functional as F

from course_lib import losses
from course_lib.nn import MLP


def pull(loss, a):
    """The slope of a loss in one logit."""
    a = torch.tensor([a], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(loss(a), a)[0].item()


# ------------------------------------------------------------------------------------------------------- two players


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_discriminator_loss_is_torchs_cross_entropy_with_soft_labels_for_real_data_only(smoothing):
    real, fake = torch.randn(40, dtype=torch.float64), 3 * torch.randn(30, dtype=torch.float64)
    expected = F.binary_cross_entropy(real.sigmoid(), torch.full_like(real, 1 - smoothing))
    expected = expected + F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake))
    torch.testing.assert_close(losses.discriminator_loss(real, fake, smoothing=smoothing), expected)


@pytest.mark.parametrize(("p", "q", "smoothing"), [(0.7, 0.2, 0.0), (0.3, 0.9, 0.1), (0.5, 0.5, 0.25)])
def test_the_best_logit_is_the_log_ratio_of_densities_also_with_smooth_labels(p, q, smoothing):
    # two places: real data are at the first with probability p, samples with probability q
    n = 1000
    real, fake = (torch.arange(n) < round(share * n) for share in (p, q))

    def at_first(a):
        logits = torch.tensor([0.0, a], dtype=torch.float64)  # the logit at the second place plays no part
        return losses.discriminator_loss(logits[real.long()], logits[fake.long()], smoothing=smoothing).item()

    best = minimize_scalar(at_first, bounds=(-10, 10), method="bounded", options={"xatol": 1e-9}).x
    belief = (1 - smoothing) * p / (p + q)  # Salimans et al.: smoothing scales the optimal belief where q is small
    assert best == pytest.approx(np.log(belief / (1 - belief)), abs=1e-5)


def test_at_the_optimum_the_value_is_that_of_jensen_and_shannon():
    p, q = (bernoulli(share) for share in (0.8, 0.3))
    middle = bernoulli(0.55)
    jsd = sum(0.5 * law.pmf(k) * np.log(law.pmf(k) / middle.pmf(k)) for law in (p, q) for k in (0, 1))
    a = torch.tensor([np.log(p.pmf(k) / q.pmf(k)) for k in (0, 1)])
    real, fake = (torch.arange(1000) < share for share in (800, 300))
    loss = losses.discriminator_loss(a[real.long()], a[fake.long()])
    assert loss.item() == pytest.approx(2 * np.log(2) - 2 * jsd, rel=1e-9)


def test_generators_objectives_and_where_they_pull():
    a = torch.randn(50, dtype=torch.float64)
    probability = a.sigmoid()
    torch.testing.assert_close(losses.saturating_loss(a), (1 - probability).log().mean())
    torch.testing.assert_close(losses.non_saturating_loss(a), -probability.log().mean())
    assert pull(losses.saturating_loss, -12.0) == pytest.approx(-np.exp(-12), rel=1e-4)
    assert pull(losses.non_saturating_loss, -12.0) == pytest.approx(-1, abs=1e-4)
    # where the discriminator knows nothing, the two pull alike: same fixed point
    assert pull(losses.saturating_loss, 0.0) == pytest.approx(pull(losses.non_saturating_loss, 0.0))
    for loss in (losses.saturating_loss, losses.non_saturating_loss, losses.wasserstein_generator_loss):
        assert pull(loss, 0.3) < 0  # every one of them raises the logit
    assert pull(losses.least_squares_generator_loss, 0.3) == pytest.approx(0.3 - 1)


def test_losses_stay_finite_where_probabilities_round_to_0_or_1():
    far = torch.tensor([-200.0, 200.0])
    for value in (losses.discriminator_loss(far, far), losses.saturating_loss(far), losses.non_saturating_loss(far)):
        assert value.isfinite()
    assert losses.non_saturating_loss(far[:1]).item() == pytest.approx(200)


def test_least_squares_finds_the_posterior_and_pearsons_divergence():
    # real data at the first of two places with probability 0.8, samples with 0.3
    real, fake = (torch.arange(1000) < share for share in (800, 300))
    a = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([a], line_search_fn="strong_wolfe", max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = losses.least_squares_discriminator_loss(a[real.long()], a[fake.long()])
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(a.detach(), a.new_tensor([0.2 / 0.9, 0.8 / 1.1]), rtol=1e-5, atol=0)
    expected = sum(0.5 * p * q / (p + q) for p, q in ((0.2, 0.7), (0.8, 0.3)))
    assert closure().item() == pytest.approx(expected)


def test_hinge_is_torchs_and_stops_at_the_margin():
    real, fake = torch.randn(40), torch.randn(40)
    ones = torch.ones(40)
    expected = F.hinge_embedding_loss(real, -ones, margin=1.0) + F.hinge_embedding_loss(-fake, -ones, margin=1.0)
    torch.testing.assert_close(losses.hinge_discriminator_loss(real, fake), expected)
    assert losses.hinge_discriminator_loss(torch.tensor([1.5]), torch.tensor([-1.5])).item() == 0
    assert losses.hinge_discriminator_loss(torch.tensor([-1.0]), torch.tensor([-1.0])).item() == 2


@pytest.mark.parametrize(
    ("pair", "single"),
    [
        (losses.discriminator_loss, losses.saturating_loss),
        (losses.least_squares_discriminator_loss, losses.non_saturating_loss),
        (losses.hinge_discriminator_loss, losses.least_squares_generator_loss),
        (losses.critic_loss, losses.wasserstein_generator_loss),
    ],
)
def test_losses_are_means_and_do_not_care_for_the_shape(pair, single):
    real, fake = torch.randn(12), torch.randn(8)
    torch.testing.assert_close(pair(real.repeat(3), fake.repeat(3)), pair(real, fake))
    torch.testing.assert_close(pair(real[:, None], fake[:, None]), pair(real, fake))
    torch.testing.assert_close(single(fake.repeat(3)), single(fake))
    with pytest.raises(ValueError, match=r"fake is empty, shape \(0,\)"):
        pair(real, fake[:0])
    with pytest.raises(ValueError, match="real is empty"):
        pair(real[:0], fake)
    with pytest.raises(ValueError, match="fake is empty"):
        single(fake[:0])


# ---------------------------------------------------------------------------------------------------------- a critic


def test_a_perfect_critic_reports_the_exact_distance():
    # samples are the data moved by v: the best critic is linear with slope v/|v|, and W1 is |v|
    v = torch.tensor([0.6, -0.8], dtype=torch.float64) * 1.7
    x = torch.randn(60, 2, dtype=torch.float64)
    y = x - v
    rows, columns = linear_sum_assignment(torch.cdist(x, y).numpy())
    exact = torch.cdist(x, y).numpy()[rows, columns].mean()
    d = v / v.norm()
    assert -losses.critic_loss(x @ d, y @ d).item() == pytest.approx(exact, rel=1e-9)
    assert losses.wasserstein_generator_loss(y @ d).item() == pytest.approx(-(y @ d).mean().item())


def test_penalty_of_a_linear_critic_on_images_is_that_of_its_slope_over_all_dimensions():
    w = torch.randn(3, 4, 5, dtype=torch.float64)
    x, y = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    penalty = losses.gradient_penalty(lambda x: (x * w).sum((1, 2, 3)), x, y)
    assert penalty.item() == pytest.approx((w.norm().item() - 1) ** 2)


def test_penalty_averages_over_examples_and_is_two_sided():
    # D(x) = s |x|^2 / 2 has slope s |x|: known at every point, different at each
    x = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 0.1]])
    penalty = losses.gradient_penalty(lambda x: x.square().sum(1) / 2, x, x)  # between a point and itself
    assert penalty.item() == pytest.approx(np.mean([4.0**2, 0.0, 0.9**2]), rel=1e-5)


def test_penalty_looks_at_points_uniform_on_lines_one_draw_an_example_and_at_nothing_else():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    n = 20_000
    real, fake = torch.ones(n, 2, 3), torch.zeros(n, 2, 3)
    real[:, 1], fake[:, 1] = 5.0, 4.0
    losses.gradient_penalty(critic, real, fake)
    (points,) = seen
    alpha = points[:, 0, 0]
    torch.testing.assert_close(points - fake, alpha[:, None, None].expand(n, 2, 3), atol=1e-5, rtol=0)  # one for all
    levels = torch.linspace(0.05, 0.95, 19)
    torch.testing.assert_close(torch.quantile(alpha, levels), levels, atol=0.015, rtol=0)  # 5 standard errors: 0.018
    assert alpha.min() >= 0 and alpha.max() <= 1


def test_penalty_repeats_with_a_generator():
    x, y = torch.randn(2, 8, 2)
    network = MLP(2, 1, hidden=[8])
    first, again, other = (
        losses.gradient_penalty(network, x, y, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_penalty_is_differentiable_in_the_critics_parameters():
    network = MLP(3, 1, hidden=[7], activation=nn.Tanh).double()
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    names = [name for name, _ in network.named_parameters()]

    def penalty(*parameters):
        def critic(x):
            return torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (x,))

        return losses.gradient_penalty(critic, x, y, generator=torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(penalty, tuple(p.detach().requires_grad_() for p in network.parameters()))


def test_penalty_has_a_finite_gradient_where_the_critic_is_flat_and_sends_none_to_the_data():
    w = torch.zeros(2, requires_grad=True)
    real, fake = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    penalty = losses.gradient_penalty(lambda x: x @ w, real, fake)
    penalty.backward()
    assert penalty.item() == 1 and w.grad.isfinite().all()
    bend = torch.ones((), requires_grad=True)
    losses.gradient_penalty(lambda x: bend * x.square().sum(1), real, fake).backward()  # its slope depends on the point
    assert bend.grad != 0 and real.grad is None and fake.grad is None


def test_zero_centered_penalty_is_the_mean_squared_slope_at_the_data():
    x = torch.randn(50, 2, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    penalty = losses.zero_centered_penalty(lambda x: scale * x.square().flatten(1).sum(1) / 2, x)  # slope: scale |x|
    mean_square = x.detach().square().flatten(1).sum(1).mean().item()
    assert penalty.item() == pytest.approx(1.7**2 * mean_square)
    penalty.backward()
    assert scale.grad.item() == pytest.approx(2 * 1.7 * mean_square)
    assert x.grad is None
    with pytest.raises(ValueError, match="x is empty"):
        losses.zero_centered_penalty(torch.sum, x[:0])
    with pytest.raises(ValueError, match="one score for each of 50"):
        losses.zero_centered_penalty(torch.sum, x)


def test_clipping_touches_only_what_lies_outside():
    network = MLP(2, 1, hidden=[16])
    before = [p.detach().clone() for p in network.parameters()]
    losses.clip_weights_(network.parameters(), bound=0.1)
    for old, new in zip(before, network.parameters(), strict=True):
        np.testing.assert_array_equal(new.detach().numpy(), np.clip(old.numpy(), np.float32(-0.1), np.float32(0.1)))
        assert new.requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.discriminator_loss(torch.ones(1), torch.ones(1), smoothing=1.0), r"\[0, 1\), got 1.0"),
        (lambda: losses.discriminator_loss(torch.ones(1), torch.ones(1), smoothing=-0.1), r"\[0, 1\), got -0.1"),
        (lambda: losses.gradient_penalty(torch.sum, torch.ones(2, 3), torch.ones(2, 2)), r"\(2, 3\) and \(2, 2\)"),
        (lambda: losses.gradient_penalty(torch.sum, torch.ones(2, 3), torch.ones(2, 3)), "one score for each of 2"),
        (lambda: losses.gradient_penalty(torch.sum, torch.ones(0, 3), torch.ones(0, 3)), "real is empty"),
        (lambda: losses.clip_weights_([torch.ones(2)], bound=0.0), "bound must be positive, got 0.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
