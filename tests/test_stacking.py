"""Several models as one against the same models one by one: outputs, gradients, whole trainings."""

import pytest
import torch
from torch import nn

from course_lib.data import Draws, toy
from course_lib.losses import critic_loss, gradient_penalty, wasserstein_generator_loss
from course_lib.models.autoencoder import Autoencoder
from course_lib.models.vae import make_vae
from course_lib.models.wgan import WGAN
from course_lib.nn import MLP, Constant, GaussianPixels, MaskedLinear, dense_networks
from course_lib.stacking import StackedLinear, Together, stack, unstack
from course_lib.train import alternate, fit, minimize


def several(make, n=3):
    models = []
    for seed in range(n):
        torch.manual_seed(seed)
        models.append(make())
    return models


def same(a, b, tolerance=1e-5):
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(x, y, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
def test_a_stacked_layer_is_its_layers_and_has_their_gradients(bias):
    layers = several(lambda: nn.Linear(3, 2, bias=bias))
    together = StackedLinear(layers)
    x = torch.randn(3, 5, 3)
    torch.testing.assert_close(
        together(x.flatten(0, 1)), torch.cat([f(part) for f, part in zip(layers, x, strict=True)])
    )
    together(x.flatten(0, 1)).square().sum().backward()
    for s, layer in enumerate(layers):
        layer(x[s]).square().sum().backward()
        torch.testing.assert_close(together.weight.grad[s].T, layer.weight.grad)
        if bias:
            torch.testing.assert_close(together.bias.grad[s, 0], layer.bias.grad)


def test_training_together_is_training_one_by_one():
    models = several(lambda: Autoencoder(MLP(2, 1, hidden=[8]), MLP(1, 2, hidden=[8])))
    each = [Draws(toy("two-clusters-flat").sample, batch_size=32, seed=seed) for seed in range(3)]
    together = stack(models)
    optimizer = torch.optim.Adam(together.parameters(), lr=1e-2)
    fit(minimize(lambda x: 3 * together.loss(x), optimizer), Together(each), 40)
    for s, (model, batches) in enumerate(zip(models, each, strict=True)):
        fit(minimize(model.loss, torch.optim.Adam(model.parameters(), lr=1e-2)), batches, 40)
        same(unstack(together, s), model, tolerance=1e-4)


def test_two_players_together_are_two_players_one_by_one_with_a_gradient_penalty():
    # without any draw inside the losses, so that both ways see the same numbers
    def make():
        return nn.ModuleDict({"generator": MLP(2, 2, hidden=[8]), "critic": MLP(2, 1, hidden=[8])})

    def train(model, batches, seeds):
        generator, critic = model["generator"], model["critic"]

        def loss_of_critic(x):
            fake = generator(x.flip(1)).detach()
            penalty = gradient_penalty(critic, fake, fake)  # real = fake: the point between does not depend on alpha
            return seeds * (critic_loss(critic(x), critic(fake)) + penalty)

        step = alternate(
            loss_of_critic,
            lambda x: seeds * wasserstein_generator_loss(critic(generator(x.flip(1)))),
            critic_optimizer=torch.optim.SGD(critic.parameters(), lr=0.01),
            generator_optimizer=torch.optim.SGD(generator.parameters(), lr=0.01),
            n_critic=2,
        )
        fit(step, batches, 15)

    models = several(make)
    each = [Draws(toy("two-clusters-flat").sample, batch_size=16, seed=seed) for seed in range(3)]
    together = stack(models)
    train(together, Together(each, parts=2), 3)
    for s, (model, batches) in enumerate(zip(models, each, strict=True)):
        train(model, batches, 1)
        same(unstack(together, s), model, tolerance=1e-4)


def test_a_stacked_critic_scores_data_and_samples_of_its_own_model():
    def make():
        return WGAN(nn.Sequential(Constant(5 * torch.randn(2))), MLP(2, 1, hidden=[8]), latent=1)

    models = several(make)  # what a generator makes depends on the model alone, so that no draw has to be repeated
    x = torch.randn(3, 4, 2)
    together, rows = stack(models), x.flatten(0, 1)
    for loss in ("critic_loss", "generator_loss", "value"):
        alone = [getattr(model, loss)(x[s]) for s, model in enumerate(models)]
        torch.testing.assert_close(getattr(together, loss)(rows), torch.stack(alone).mean())


def test_a_vae_with_a_learned_sigma_is_stacked_and_taken_apart():
    models = several(lambda: make_vae(dense_networks, (2,), 2, GaussianPixels(sigma=0.5), hidden=[8]))
    together = stack(models)
    x = torch.randn(3, 4, 2)
    assert together.elbo(x.flatten(0, 1)).shape == (12,) and together.sample(12).shape == (12, 2)
    torch.testing.assert_close(together(x.flatten(0, 1))[4:8], models[1](x[1]))
    for s in range(3):
        same(unstack(together, s), models[s], tolerance=0)
        assert type(unstack(together, s)) is type(models[s])
    fixed = stack(several(lambda: GaussianPixels(sigma=0.5, fixed=True)))
    assert not any(p.requires_grad for p in fixed.parameters())


def test_constants_keep_their_own_values_and_whether_they_learn():
    for learns in (True, False):
        constants = [Constant(torch.tensor([s, -s])).requires_grad_(learns) for s in (1.0, 2.0, 3.0)]
        together = stack([nn.Sequential(constant) for constant in constants])
        expected = torch.tensor([[1.0, -1.0], [1.0, -1.0], [2.0, -2.0], [2.0, -2.0], [3.0, -3.0], [3.0, -3.0]])
        assert torch.equal(together(torch.zeros(6, 1)), expected)
        for s in range(3):
            alone = unstack(together, s)
            assert torch.equal(alone(torch.zeros(4, 1)), constants[s](torch.zeros(4, 1)))
            assert all(p.requires_grad == learns for m in (together, alone) for p in m.parameters())


def test_double_precision_survives_both_ways():
    models = several(lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double())
    together, x = stack(models), torch.randn(3, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(together(x.flatten(0, 1))[4:8], models[1](x[1]))
    torch.testing.assert_close(unstack(together, 2)(x[2]), models[2](x[2]), rtol=0, atol=0)


def test_stacking_copies():
    models = several(lambda: nn.Sequential(nn.Linear(2, 2)))
    together = stack(models)
    before = models[0][0].weight.clone()
    with torch.no_grad():
        for p in together.parameters():
            p.add_(1.0)
    assert torch.equal(models[0][0].weight, before)
    alone = unstack(together, 0)
    with torch.no_grad():
        alone[0].weight.add_(1.0)
    assert torch.equal(together[0].weight[0].T, before + 1.0)


def test_together_keeps_the_rows_of_each_model_in_one_block():
    a, b = torch.arange(4), torch.arange(10, 14)
    assert Together([[a], [b]])[0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert Together([[a], [b]], parts=2)[0].tolist() == [0, 1, 10, 11, 2, 3, 12, 13]
    x, c = Together([[(a, -a)], [(b, -b)]])[0]
    assert torch.equal(x, -c)
    x, c = Together([[(a, -a)], [(b, -b)]], parts=2)[0]
    assert x.tolist() == [0, 1, 10, 11, 2, 3, 12, 13] and torch.equal(x, -c)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stack([]), ValueError, "at least one model"),
        (lambda: stack([nn.Linear(2, 1), nn.Linear(3, 1)]), ValueError, "one architecture"),
        (lambda: stack([nn.Linear(2, 1), nn.ReLU()]), ValueError, "one architecture.*Linear.*ReLU"),
        (lambda: stack([nn.ReLU(), nn.Tanh()]), ValueError, r"one architecture, got ReLU\(\) .*, and Tanh\(\)"),
        (lambda: stack([nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)]), ValueError, "slope=0.1.*slope=0.2"),
        (
            lambda: stack([nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Linear(1, 1), nn.ReLU())]),
            ValueError,
            r"(?s)one architecture, got .*, and .*\(1\): ReLU",
        ),
        (lambda: stack([Constant(torch.ones(1)), Constant(torch.ones(2))]), ValueError, r"\[\(1,\)\].*\[\(2,\)\]"),
        (lambda: stack([nn.Sequential(nn.BatchNorm1d(2))] * 2), TypeError, "BatchNorm1d holds"),
        (lambda: stack([nn.BatchNorm1d(2, affine=False)] * 2), TypeError, "BatchNorm1d holds .*running_mean"),
        (lambda: stack([nn.Sequential(nn.PReLU())] * 2), TypeError, r"PReLU holds \['weight'\]"),
        (lambda: stack([MaskedLinear(torch.ones(1, 1))] * 2), TypeError, "MaskedLinear holds"),
        (lambda: stack([nn.Linear(2, 1)] * 3)(torch.zeros(4, 2)), ValueError, "4 rows cannot be divided among 3"),
        (lambda: stack([Constant(torch.ones(1))] * 3)(torch.zeros(4, 2)), ValueError, "4 rows"),
        (lambda: Together([]), ValueError, "at least one model"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
