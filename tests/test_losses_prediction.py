"""What a network may predict: each kind against its definition by autograd, all against an exact mixture."""

import pytest
import torch
from torch.distributions import Normal
from torch.nn import functional as F

from course_lib import probability
from course_lib.losses import CLEAN, NOISE, SCORE, VELOCITY, V, convert, prediction_error
from course_lib.schedules import Straight

KINDS = [NOISE, CLEAN, V, VELOCITY, SCORE]


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def mixed(shape=(6, 3)):
    x, eps = numbers(*shape), numbers(*shape)
    alpha_t, sigma_t = 0.2 + torch.rand(2, shape[0], *[1] * (len(shape) - 1), dtype=torch.float64)
    return x, eps, alpha_t, sigma_t, alpha_t * x + sigma_t * eps


def test_v_is_the_velocity_on_the_circle():
    x, eps, phi = numbers(5), numbers(5), torch.rand(5, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad((phi.cos() * x + phi.sin() * eps).sum(), phi)
    torch.testing.assert_close(V.target(x, eps, alpha_t=phi.cos(), sigma_t=phi.sin()), slope)


def test_velocity_is_that_of_the_straight_path():
    x, eps, t = numbers(5), numbers(5), torch.rand(5, dtype=torch.float64).requires_grad_()
    alpha_t, sigma_t = Straight()(t)
    (slope,) = torch.autograd.grad((alpha_t * x + sigma_t * eps).sum(), t)
    torch.testing.assert_close(VELOCITY.target(x, eps, alpha_t=alpha_t, sigma_t=sigma_t), slope)


def test_score_is_the_gradient_of_the_log_density_given_the_data():
    x, eps, alpha_t, sigma_t, x_t = mixed()
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(Normal(alpha_t * x, sigma_t).log_prob(x_t).sum(), x_t)
    torch.testing.assert_close(SCORE.target(x, eps, alpha_t=alpha_t, sigma_t=sigma_t), gradient)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 3, 3)])
def test_a_prediction_and_noisy_data_give_data_and_noise_back(kind, shape):
    x, eps, alpha_t, sigma_t, x_t = mixed(shape)
    y = kind.target(x, eps, alpha_t=alpha_t, sigma_t=sigma_t)
    for found, true in zip(kind.split(y, x_t, alpha_t=alpha_t, sigma_t=sigma_t), (x, eps), strict=True):
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize("target", KINDS, ids=repr)
@pytest.mark.parametrize("source", KINDS, ids=repr)
def test_conversions_hold_for_the_exact_means_of_a_mixture(source, target):
    p = probability.GaussianMixture(numbers(3, 2), torch.eye(2).double() * torch.rand(3, 1, 1), torch.rand(3).double())
    alpha_t, sigma_t = torch.tensor([0.6, 0.9], dtype=torch.float64)
    x_t = numbers(20, 2)
    x_hat = p.posterior_mean(x_t, alpha_t=alpha_t, sigma_t=sigma_t)
    score = p.noised(alpha_t, sigma_t).score(x_t)  # of the noisy density, not by way of the denoiser
    exact = {CLEAN: x_hat, SCORE: score, NOISE: -sigma_t * score, VELOCITY: -sigma_t * score - x_hat}
    exact[V] = -alpha_t * sigma_t * score - sigma_t * x_hat
    found = convert(exact[source], x_t, source=source, target=target, alpha_t=alpha_t, sigma_t=sigma_t)
    torch.testing.assert_close(found, exact[target])


def test_the_ends_where_a_prediction_is_enough():
    zero, one = torch.zeros(()), torch.ones(())
    for kind, at_data, at_noise in [(NOISE, 1, 0), (CLEAN, 0, -1), (V, 1, 1), (VELOCITY, 1, 1)]:
        assert abs(kind.determinant(one, zero)) == abs(at_data)
        assert abs(kind.determinant(zero, one)) == abs(at_noise)


@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 3, 3)])
def test_the_error_is_a_sum_over_an_example(shape):
    x, eps, alpha_t, sigma_t, _ = mixed(shape)
    y_hat = numbers(*shape)
    found = prediction_error(y_hat, x, eps, prediction=NOISE, alpha_t=alpha_t, sigma_t=sigma_t)
    assert found.shape == shape[:1]
    for i in range(shape[0]):
        torch.testing.assert_close(found[i], F.mse_loss(y_hat[i], eps[i], reduction="sum"))


def test_errors_of_noise_and_data_differ_by_the_signal_to_noise_ratio():
    x, eps, alpha_t, sigma_t, x_t = mixed()
    scales = {"alpha_t": alpha_t, "sigma_t": sigma_t}
    x_hat = numbers(6, 3)
    eps_hat = convert(x_hat, x_t, source=CLEAN, target=NOISE, **scales)
    of_noise = prediction_error(eps_hat, x, eps, prediction=NOISE, **scales)
    of_data = prediction_error(x_hat, x, eps, prediction=CLEAN, **scales)
    torch.testing.assert_close(of_noise, (alpha_t / sigma_t)[:, 0] ** 2 * of_data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda one: prediction_error(
                torch.zeros(3), torch.zeros(3, 2), torch.zeros(3, 2), prediction=NOISE, alpha_t=one, sigma_t=one
            ),
            r"the prediction has shape \(3,\), the data \(3, 2\)",
        ),
        (
            lambda one: prediction_error(
                torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(1, 2), prediction=NOISE, alpha_t=one, sigma_t=one
            ),
            r"the noise has shape \(1, 2\), the data \(3, 2\)",
        ),
        (
            lambda one: convert(torch.zeros(3, 1), torch.zeros(3, 2), source=V, target=NOISE, alpha_t=one, sigma_t=one),
            r"the prediction has shape \(3, 1\), the noisy data \(3, 2\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.tensor(0.5))
