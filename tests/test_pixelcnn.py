"""Receptive fields by gradients, probabilities by enumeration, fast sampler against plain one, NLL at the entropy."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from course_lib.data import Batches, images
from course_lib.models.pixelcnn import GatedPixelCNN, coarsen
from course_lib.nn import CategoricalLevels, LogisticLevels, MaskedConv2d, raster_mask
from course_lib.protocols import HasLogProb, HasLoss, Samples
from course_lib.train import Checkpoint, fit, minimize


def randomized(model, seed=0, gain=1.5):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 4
            p.copy_(gain * torch.randn(p.shape, generator=g) / fan_in**0.5)
    return model


def small(shape=(1, 3, 3), distribution=None, *, seed=0, gain=1.5, **options):
    options = {"channels": 6, "layers": 2, "kernel_size": 3} | options
    return randomized(GatedPixelCNN(shape, distribution or CategoricalLevels(3), **options), seed, gain)


def every_image(shape, levels):
    values = torch.tensor(list(itertools.product(range(levels), repeat=math.prod(shape)))) / (levels - 1)
    return values.view(-1, *shape)


# ------------------------------------------------------------------------------------------------ what a pixel sees


@pytest.mark.parametrize(("kernel_size", "layers"), [(3, 6), (5, 3), (7, 3)])
def test_a_pixel_sees_all_pixels_before_it_and_no_other(kernel_size, layers):
    model = small((1, 6, 6), kernel_size=kernel_size, layers=layers).double()
    for i, j in itertools.product(range(6), range(6)):
        x = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x)[0, :, i, j].abs().sum(), x, allow_unused=True)
        seen = (gradient[0, 0] != 0).flatten()
        assert not seen[6 * i + j :].any()  # exactly zero: itself and everything after it
        assert seen[: 6 * i + j].all()  # no blind spot


def test_raster_masked_convolutions_have_a_blind_spot():
    layers = [MaskedConv2d(1, 4, raster_mask(3, center=0))]
    layers += [layer for _ in range(9) for layer in (nn.Tanh(), MaskedConv2d(4, 4, raster_mask(3, center=1)))]
    net = randomized(nn.Sequential(*layers)).double()
    x = torch.rand(1, 1, 9, 9, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0, :, 6, 4].abs().sum(), x)
    seen = gradient[0, 0] != 0
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    before = (rows < 6) | ((rows == 6) & (columns < 4))
    blind = before & (columns - 4 > 6 - rows)  # a row up buys one column to the right, and no more
    assert blind.sum() == 6  # to the right: (3, 8), (4, 7), (4, 8), (5, 6), (5, 7), (5, 8)
    assert torch.equal(seen, before & ~blind)


def test_a_masked_convolution_uses_its_mask_and_keeps_the_size():
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    layer = MaskedConv2d(2, 3, mask)
    x = torch.randn(4, 2, 5, 6)
    left, right = layer.weight[:, :, 0, 0], layer.weight[:, :, 0, 2]
    padded = nn.functional.pad(x, (1, 1))
    expected = torch.einsum("oc,bchw->bohw", left, padded[..., :-2]) + torch.einsum(
        "oc,bchw->bohw", right, padded[..., 2:]
    )
    torch.testing.assert_close(layer(x), expected + layer.bias[:, None, None])
    with pytest.raises(ValueError, match=r"odd sides, got shape \(2, 3\)"):
        MaskedConv2d(1, 1, torch.ones(2, 3))


# --------------------------------------------------------------------------------------------- levels of one pixel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("distribution", [CategoricalLevels(17), LogisticLevels(17), LogisticLevels(256, components=3)])
def test_probabilities_of_the_levels_sum_to_one(distribution, spread, dtype):
    parameters = spread * torch.randn(50, distribution.channels, 1, 1, dtype=dtype)
    level = torch.arange(distribution.levels).expand(50, 1, -1)
    parameters = parameters.expand(-1, -1, 1, distribution.levels).clone().requires_grad_()
    log_prob = distribution.log_prob(parameters, level)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(50, 1, dtype=dtype), rtol=1e-4, atol=1e-4)
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and parameters.grad.isfinite().all()


def test_discretized_logistics_agree_with_scipy():
    levels, k = 8, 3
    parameters = torch.randn(1, 3 * k, 1, 1, dtype=torch.float64)
    logits, mu, log_scale = parameters.numpy().reshape(3, k)
    weights = np.exp(logits) / np.exp(logits).sum()
    edges = np.concatenate([[-np.inf], np.linspace(-1, 1, levels + 1)[1:-1], [np.inf]])
    cdf = sum(
        w * scipy.stats.logistic.cdf(edges, m, s) for w, m, s in zip(weights, mu, np.exp(log_scale) + 1e-3, strict=True)
    )
    level = torch.arange(levels).expand(1, 1, levels)
    mine = LogisticLevels(levels, components=k).log_prob(parameters.expand(-1, -1, 1, levels), level).exp()
    np.testing.assert_allclose(mine[0, 0], np.diff(cdf), rtol=1e-8)


# -------------------------------------------------------------------------------------- images, all of them at once


@pytest.mark.parametrize("distribution", [CategoricalLevels(3), LogisticLevels(3, components=2)])
@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 3, 2), (1, 1, 4)])
def test_probabilities_of_all_images_sum_to_one(shape, distribution):
    model = small(shape, distribution).double()
    with torch.no_grad():
        total = model.log_prob(every_image(shape, 3).double()).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_samples_and_completions_follow_the_probabilities(seed):
    shape, code = (1, 2, 2), torch.tensor([8.0, 4, 2, 1])
    model = small(shape, CategoricalLevels(2), seed=seed, gain=3.0)
    everything = every_image(shape, 2)
    with torch.no_grad():
        p = model.log_prob(everything).double().exp().numpy()
    torch.manual_seed(seed)
    counts = np.bincount((model.sample(5000).flatten(1) @ code).int().numpy(), minlength=16)
    assert scipy.stats.chisquare(counts, 5000 * p / p.sum()).pvalue > 1e-4
    given = torch.tensor([1.0, 0.0])
    x = torch.full((5000, 1, 2, 2), math.nan)
    x[:, 0, 0] = given
    completed = model.complete(x, rows=1)
    assert (completed[:, 0, 0] == given).all() and x[:, :, 1:].isnan().all()
    counts = np.bincount((completed[:, 0, 1] @ torch.tensor([2.0, 1.0])).int().numpy(), minlength=4)
    conditional = p[8:12]  # the images that begin with 1, 0
    assert scipy.stats.chisquare(counts, 5000 * conditional / conditional.sum()).pvalue > 1e-4


@pytest.mark.parametrize("distribution", [CategoricalLevels(5), LogisticLevels(5, components=2)])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, 3)])
def test_the_fast_sampler_draws_what_the_plain_one_draws(distribution, temperature, top_k):
    model = small((1, 5, 4), distribution, layers=3, kernel_size=5).double()
    start = torch.randint(5, (6, 1, 5, 4)).double() / 4
    torch.manual_seed(1)
    fast = model.complete(start, rows=2, temperature=temperature, top_k=top_k)
    torch.manual_seed(1)
    plain = start.clone()
    plain[:, :, 2:] = 0
    with torch.no_grad():
        for i, j in itertools.product(range(2, 5), range(4)):
            p = model(plain)[..., i, j][..., None, None]
            plain[:, 0, i, j] = model._draw(p, temperature, top_k or 5)
    assert torch.equal(fast, plain)
    assert torch.equal(model.complete(start, rows=5), start)


@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, None), (2.0, None), (1.0, 2), (0.7, 3)])
def test_temperature_and_top_k_of_a_single_pixel(temperature, top_k):
    model = small((1, 1, 1), CategoricalLevels(4), gain=3.0)
    with torch.no_grad():
        p = model.log_prob(every_image((1, 1, 1), 4)).double().exp().numpy()
    expected = p ** (1 / temperature)
    if top_k:
        expected[np.argsort(p)[:-top_k]] = 0
    x = model.sample(20_000, temperature=temperature, top_k=top_k)
    counts = np.bincount((3 * x).round().int().flatten().numpy(), minlength=4)
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    expected = 20_000 * expected[possible] / expected.sum()
    assert scipy.stats.chisquare(counts[possible], expected).pvalue > 1e-4


def test_one_likely_level_only():
    model = small((1, 3, 3), CategoricalLevels(6))
    assert torch.equal(model.sample(4, top_k=1), model.sample(4, top_k=1))
    torch.testing.assert_close(model.sample(4, temperature=1e-4), model.sample(4, top_k=1))


# ------------------------------------------------------------------------------------------------------- learning


def copied_from_the_upper_right(n, generator):
    """4 x 5 binary images: a pixel repeats the one a row up and two to the right, but for one time in ten.

    To layers of raster-masked 3 x 3 convolutions that pixel is in the blind spot.
    """
    x = (torch.rand(n, 1, 4, 5, generator=generator) < 0.5).float()
    flips = (torch.rand(n, 4, 5, generator=generator) < 0.1).float()
    for i in range(1, 4):
        x[:, 0, i, :3] = (x[:, 0, i - 1, 2:] - flips[:, i, :3]).abs()
    return x


@pytest.mark.parametrize("seed", range(5))
def test_negative_log_likelihood_reaches_the_entropy_across_the_blind_spot(seed):
    # 9 of 20 pixels repeat another, the rest are coins
    entropy = 11 * math.log(2) - 9 * (0.1 * math.log(0.1) + 0.9 * math.log(0.9))  # 10.55 nats; all coins: 13.86
    g = torch.Generator().manual_seed(seed)
    train, held_out = copied_from_the_upper_right(20_000, g), copied_from_the_upper_right(10_000, g)
    torch.manual_seed(seed)
    model = GatedPixelCNN((1, 4, 5), CategoricalLevels(2), channels=12, layers=2, kernel_size=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=250)
    fit(minimize(model.loss, optimizer, schedule=schedule), Batches(train, batch_size=128, seed=seed), 250)
    with torch.no_grad():
        reached = model.loss(held_out).item()
    assert abs(reached - entropy) < 0.1  # measured over five seeds: -0.020 to 0.009; standard error 0.02


# ------------------------------------------------------------------------------------------------------ behaviour


def test_it_is_what_it_says():
    model = small()
    assert isinstance(model, Samples) and isinstance(model, HasLogProb) and isinstance(model, HasLoss)
    x = model.sample(4)
    assert x.shape == (4, 1, 3, 3) and not x.requires_grad
    assert set((2 * x).flatten().tolist()) <= {0.0, 1.0, 2.0}
    assert model.log_prob(x[:0]).shape == (0,) and model.sample(0).shape == (0, 1, 3, 3)
    torch.testing.assert_close(model.loss(x), -sum(model.log_prob(row[None]) for row in x)[0] / 4)
    torch.testing.assert_close(model.double().log_prob(x.double()).float(), model.float().log_prob(x))


@pytest.mark.parametrize("levels", [2, 4, 17, 256])
def test_coarse_levels_take_equal_shares_and_are_accepted(levels):
    x = torch.linspace(0, 1, 256 * 40)
    y = coarsen(x, levels=levels)
    values, counts = y.unique(return_counts=True)
    np.testing.assert_allclose(values, np.arange(levels) / (levels - 1), rtol=1e-6)
    assert (counts - len(x) / levels).abs().max() <= 2
    assert torch.equal(coarsen(y, levels=levels), y)
    small((1, 2, 2), CategoricalLevels(levels)).log_prob(y[torch.randint(len(y), (9, 1, 2, 2))])


def test_digits_have_the_17_levels_they_are_said_to_have():
    x = images("digits").x[:20]
    assert small((1, 8, 8), LogisticLevels(17)).log_prob(x).isfinite().all()


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    def run(path, steps):
        torch.manual_seed(0)
        model = GatedPixelCNN((1, 3, 3), LogisticLevels(4, components=2), channels=4, layers=2, kernel_size=3)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        checkpoint = Checkpoint(path, every=7, model=model, optimizer=optimizer)
        x = torch.randint(4, (64, 1, 3, 3), generator=torch.Generator().manual_seed(0)) / 3
        fit(
            minimize(model.loss, optimizer),
            Batches(x, batch_size=16),
            steps,
            history=checkpoint.restore(),
            hooks=[checkpoint],
        )
        return model.state_dict()

    run(tmp_path / "a.pt", 17)
    torch.randn(3)
    resumed, straight = run(tmp_path / "a.pt", 30), run(tmp_path / "b.pt", 30)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small((3, 8, 8)), r"shape \(1, H, W\).* got \(3, 8, 8\)"),
        (lambda: small(kernel_size=4), "odd kernel size .* 4 and 3"),
        (lambda: small(distribution=CategoricalLevels(1)), "at least 2 levels"),
        (lambda: small().log_prob(torch.zeros(2, 1, 3, 4)), r"\(B, 1, 3, 3\), got \(2, 1, 3, 4\)"),
        (lambda: small().log_prob(torch.full((2, 1, 3, 3), 0.3)), r"3 levels \(see coarsen\), got 0.3"),
        (lambda: small().log_prob(torch.full((2, 1, 3, 3), 1.5)), "got 1.5"),
        (lambda: small().log_prob(torch.full((2, 1, 3, 3), -0.5)), "got -0.5"),
        (lambda: small().log_prob(torch.full((2, 1, 3, 3), math.nan)), "got nan"),
        (lambda: small().sample(2, temperature=0.0), "temperature > 0 .* 0.0"),
        (lambda: small().sample(2, top_k=0), "top_k >= 1; .* and 0"),
        (lambda: small().complete(torch.zeros(2, 1, 3, 3), rows=4), "rows from 0 to 3, .* 4"),
        (lambda: small().complete(torch.zeros(2, 1, 3, 2), rows=1), r"got \(2, 1, 3, 2\)"),
        (lambda: coarsen(torch.tensor([1.2]), levels=4), r"x in \[0, 1\], got 4 and 1.2 to 1.2"),
        (lambda: coarsen(torch.zeros(3), levels=1), "at least 2 levels .* got 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
