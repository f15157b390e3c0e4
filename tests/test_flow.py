"""Log-determinants against autograd, inverses, densities against quadrature and closed forms, NLL at the entropy."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from course_lib import probability
from course_lib.data import Draws
from course_lib.models.flow import Coupling, Flow, Masked, StandardNormal
from course_lib.models.flow_layers import ActNorm, LinearLU, Permutation, Planar
from course_lib.nn import AffineBijection, SplineBijection
from course_lib.protocols import HasLogProb, HasLoss, Samples
from course_lib.train import EMA, Checkpoint, fit, minimize


def randomized(model, seed=0, std=0.5):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(std * torch.randn(p.shape, generator=g))
    return model.eval()


def reversal(dim):
    return Permutation(range(dim - 1, -1, -1))


def spline():
    return SplineBijection(bins=6, bound=2.0)


TRANSFORMS = {
    "affine coupling": lambda dim: Coupling(dim, AffineBijection(), hidden=[8]),
    "spline coupling": lambda dim: Coupling(dim, spline(), hidden=[8]),
    "masked affine": lambda dim: Masked(dim, AffineBijection(), hidden=[8]),
    "masked spline": lambda dim: Masked(dim, spline(), hidden=[8]),
    "planar": Planar,
    "actnorm": ActNorm,
    "LU": LinearLU,
    "permutation": reversal,
    "all together": lambda dim: Flow(
        [
            ActNorm(dim),
            Coupling(dim, spline(), hidden=[8]),
            reversal(dim),
            Masked(dim, AffineBijection(), hidden=[8]),
            LinearLU(dim),
            Planar(dim),
        ],
        StandardNormal(dim),
    ),
}
CASES = [
    (name, dim)
    for name in TRANSFORMS
    for dim in (1, 2, 3, 5)
    if dim > 1 or name not in ("affine coupling", "spline coupling", "all together")
]


# --------------------------------------------------------------------------------------------- every transform


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "dim"), CASES)
def test_log_det_is_that_of_the_autograd_jacobian_and_the_inverse_inverts(name, dim, seed):
    f = randomized(TRANSFORMS[name](dim), seed, std=0.5).double()
    torch.manual_seed(seed)
    x = 1.5 * torch.randn(20, dim, dtype=torch.float64)
    z, log_det = f(x)
    jacobians = torch.autograd.functional.jacobian(lambda x: f(x)[0].sum(0), x).movedim(1, 0)  # (B, D, D)
    exact = torch.stack([torch.linalg.slogdet(jacobian).logabsdet for jacobian in jacobians])
    assert z.shape == x.shape and log_det.shape == (20,)
    torch.testing.assert_close(log_det, exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(f.inverse(z), x, rtol=0, atol=1e-8)
    torch.testing.assert_close(f(f.inverse(x))[0], x, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "dim"), CASES)
def test_single_precision_inverts_to_1e_5(name, dim):
    f = randomized(TRANSFORMS[name](dim), 1, std=0.3)
    x = torch.randn(500, dim)
    torch.testing.assert_close(f.inverse(f(x)[0]), x, rtol=0, atol=1e-5)
    assert f(x)[1].dtype == torch.float32


@pytest.mark.parametrize("name", ["masked affine", "masked spline"])
def test_a_masked_transform_is_triangular_and_a_coupling_keeps_half(name):
    x = torch.rand(1, 5)
    f = randomized(TRANSFORMS[name](5))
    jacobian = torch.autograd.functional.jacobian(lambda x: f(x)[0], x)[0, :, 0]
    assert (jacobian.triu(1) == 0).all() and (jacobian.tril() != 0).sum() == 15
    g = randomized(Coupling(5, AffineBijection(), hidden=[8]))
    z, _ = g(x)
    assert torch.equal(z[:, :2], x[:, :2]) and (z[:, 2:] != x[:, 2:]).all()


# -------------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize(
    "name", ["affine coupling", "spline coupling", "masked affine", "masked spline", "planar", "LU", "all together"]
)
def test_density_integrates_to_one_in_the_plane_and_samples_follow_it(name):
    transforms = [TRANSFORMS[name](2)]
    if "coupling" in name:
        transforms += [reversal(2), TRANSFORMS[name](2)]
    flow = randomized(Flow(transforms, StandardNormal(2)), 2, std=0.3).double()
    edge = torch.linspace(-12, 12, 481, dtype=torch.float64)
    centres = (edge[:-1] + edge[1:]) / 2
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(centres, centres)).exp().view(480, 480) * 0.05**2
    assert mass.sum().item() == pytest.approx(1, abs=2e-3)
    cells = mass.view(60, 8, 60, 8).sum((1, 3)).flatten().numpy()
    torch.manual_seed(0)
    counts, _, _ = np.histogram2d(*flow.sample(20_000).numpy().T, bins=60, range=[[-12, 12]] * 2)
    often = 20_000 * cells > 10
    observed, expected = counts.ravel()[often], 20_000 * cells[often]
    assert scipy.stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), often.sum()) > 1e-4
    assert 20_000 - observed.sum() < 2 * (20_000 - expected.sum()) + 20


def test_linear_flows_are_gaussians():
    flow = randomized(Flow([ActNorm(3), LinearLU(3), reversal(3), LinearLU(3)], StandardNormal(3))).double()
    origin = flow.inverse(torch.zeros(1, 3, dtype=torch.float64))[0]
    back = flow.inverse(torch.eye(3, dtype=torch.float64)) - origin  # rows: images of the unit vectors
    x = torch.randn(50, 3, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), MultivariateNormal(origin, back.T @ back).log_prob(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_base_is_a_standard_normal(dtype):
    base = StandardNormal(3).to(dtype)
    x = torch.randn(5, 3, dtype=dtype)
    torch.testing.assert_close(
        base.log_prob(x), MultivariateNormal(torch.zeros(3).to(x), torch.eye(3).to(x)).log_prob(x)
    )
    z = base.sample(20_000)
    assert z.dtype == dtype and scipy.stats.kstest(z.flatten().double(), "norm").pvalue > 1e-4


def test_any_density_can_be_the_base():
    p = probability.two_clusters()
    flow = Flow([reversal(2)], p)
    x = torch.randn(6, 2)
    torch.testing.assert_close(flow.log_prob(x), p.log_prob(x.flip(1)))
    assert flow.sample(7).shape == (7, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("layer", [Coupling, Masked])
def test_affine_flows_reach_the_entropy_of_a_tilted_gaussian(layer, seed):
    # an affine flow holds this density exactly: z_1 = x_1, z_2 depends linearly on x_1
    p = probability.tilted_gaussian()
    entropy = 0.5 * math.log((2 * math.pi * math.e) ** 2 * torch.linalg.det(p.covariance).item())
    gap = trained(lambda: [ActNorm(2), layer(2, AffineBijection(), hidden=[16])], p, seed, steps=300)[0] - entropy
    assert abs(gap) < 0.03  # measured over five seeds: 0.0003 to 0.009


@pytest.mark.parametrize("seed", range(5))
def test_a_spline_flow_reaches_the_entropy_of_two_clusters(seed):
    p = probability.two_clusters(center=(2.0, 1.0), std=0.5)
    make = lambda: [ActNorm(2), Masked(2, SplineBijection(bins=12, bound=3.0), hidden=[24])]  # noqa: E731
    mine, x = trained(make, p, seed, steps=400)
    gap = mine + p.log_prob(x).mean().item()  # an estimate of KL(p, flow), in nats
    assert 0 < gap < 0.1  # measured over five seeds: 0.035 to 0.062


def trained(transforms, p, seed, *, steps):
    torch.manual_seed(seed)
    flow = Flow(transforms(), StandardNormal(2))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    fit(minimize(flow.loss, optimizer, schedule=schedule), Draws(p.sample, batch_size=256, seed=seed), steps)
    x = p.sample(50_000)
    with torch.no_grad():
        return flow.loss(x).item(), x


# -------------------------------------------------------------------------------------------------------- bijections


def curve(seed=0, bins=7, bound=2.5, std=2.0, n=4001):
    """A random spline, in float64, at evenly spaced points that reach beyond its bound."""
    g = torch.Generator().manual_seed(seed)
    spline = SplineBijection(bins=bins, bound=bound)
    parameters = std * torch.randn(spline.parameters_per_number, generator=g, dtype=torch.float64)
    x = torch.linspace(-2 * bound, 2 * bound, n, dtype=torch.float64)
    return spline, parameters, x


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [1, 2, 7])
def test_the_spline_rises_through_its_knots_and_is_the_identity_outside(bins, seed):
    spline, parameters, x = curve(seed, bins)
    z, log_slope = spline(x, parameters.expand(len(x), -1))
    outside = x.abs() >= 2.5
    assert torch.equal(z[outside], x[outside]) and (log_slope[outside] == 0).all()
    assert (z.diff() > 0).all() and z[~outside].abs().max() < 2.5
    knot_x, knot_y, knot_slope = spline.knots(parameters)
    for corner, width in ((knot_x, bins + 1), (knot_y, bins + 1), (knot_slope, bins + 1)):
        assert corner.shape == (width,)
    assert knot_x[[0, -1]].tolist() == knot_y[[0, -1]].tolist() == [-2.5, 2.5] and (knot_slope[[0, -1]] == 1).all()
    for step in (-1e-9, 1e-9):  # value and slope are continuous
        z, log_slope = spline(knot_x + step, parameters.expand(bins + 1, -1))
        torch.testing.assert_close(z, knot_y, rtol=0, atol=1e-6)
        torch.testing.assert_close(log_slope.exp(), knot_slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_spline_is_a_ratio_of_quadratics_with_the_derivative_autograd_finds(seed):
    spline, parameters, x = curve(seed)
    x.requires_grad_()
    z, log_slope = spline(x, parameters.expand(len(x), -1))
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(log_slope.exp(), slope, rtol=1e-9, atol=1e-12)
    # a ratio of quadratics: 6 unknowns up to a factor, so the 6 columns below are linearly dependent in each bin
    knots = spline.knots(parameters)[0]
    for left, right in pairwise(knots):
        t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
        z, _ = spline(left + t * (right - left), parameters.expand(9, -1))
        z = (z - z.mean()) / z.std()
        columns = torch.stack([t**0, t, t**2, z, z * t, z * t**2], dim=1)
        singular = torch.linalg.svdvals(columns)
        assert singular[-1] < 1e-9 * singular[0] < 1e-3 * singular[-3]


def test_the_spline_s_inverse_agrees_with_bisection():
    spline, parameters, z = curve(3, n=201)
    low, high = torch.full_like(z, -6), torch.full_like(z, 6)
    for _ in range(80):
        middle = (low + high) / 2
        below = spline(middle, parameters.expand(201, -1))[0] < z
        low, high = middle.where(below, low), high.where(below, middle)
    torch.testing.assert_close(spline.inverse(z, parameters.expand(201, -1)), low, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bins", [1, 4, 32])
def test_outputs_of_zero_give_the_identity(bins):
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    for g in (SplineBijection(bins=bins), AffineBijection()):
        z, log_slope = g(x, torch.zeros(101, g.parameters_per_number, dtype=torch.float64))
        torch.testing.assert_close(z, x, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)


def test_gradients_stay_finite_at_extreme_outputs_and_outside():
    for g in (SplineBijection(bins=5), AffineBijection()):
        parameters = (30 * torch.randn(200, g.parameters_per_number)).requires_grad_()
        x = (4 * torch.randn(200)).requires_grad_()
        z, log_slope = g(x, parameters)
        (z.sum() + log_slope.sum()).backward()
        assert z.isfinite().all() and log_slope.isfinite().all()
        assert x.grad.isfinite().all() and parameters.grad.isfinite().all()


# ------------------------------------------------------------------------------------------------------------ layers


def test_the_first_batch_in_training_sets_the_scale_and_only_that():
    x = torch.randn(500, 3) * torch.tensor([1.0, 5.0, 0.1]) + 7
    layer = ActNorm(3)
    untouched, log_det = layer.eval()(x)
    assert torch.equal(untouched, x) and (log_det == 0).all()
    z, _ = layer.train()(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(0), torch.ones(3))
    again, _ = layer(2 * x)
    assert (again.mean(0) > 1).all()
    assert all(p.requires_grad for p in layer.parameters())


def test_a_bad_first_batch_is_refused_and_a_good_one_still_counts():
    layer = ActNorm(2)
    for bad in (torch.zeros(0, 2), torch.zeros(1, 2), torch.full((4, 2), math.nan)):
        with pytest.raises(ValueError, match=rf"2 or more finite rows, got \({len(bad)}, 2\)"):
            layer(bad)
    torch.testing.assert_close(layer(5 + 3 * torch.randn(100, 2))[0].std(0), torch.ones(2))
    assert layer(torch.full((4, 1), 2.0).expand(4, 2))[0].shape == (4, 2)


def test_a_restored_actnorm_keeps_its_scale():
    trained = ActNorm(2)
    trained(5 + 3 * torch.randn(100, 2))
    for restored in (ActNorm(2), EMA(ActNorm(2)).model):
        restored.load_state_dict(trained.state_dict())
        x = torch.randn(100, 2)
        assert torch.equal(restored.train()(x)[0], trained(x)[0])


def test_a_constant_dimension_does_not_blow_up():
    z, log_det = ActNorm(2)(torch.cat([torch.randn(50, 1), torch.full((50, 1), 3.0)], dim=1))
    assert z.isfinite().all() and log_det.isfinite().all()


@pytest.mark.parametrize("direction", [-1.0, 1.0])
@pytest.mark.parametrize("size", [0.1, 5.0])
def test_planar_is_invertible_whatever_its_parameters(direction, size):
    layer = Planar(3).double()
    with torch.no_grad():
        layer.u.copy_(direction * size * layer.w)  # against w, an unconstrained u folds space
    x = 3 * torch.randn(300, 3, dtype=torch.float64)
    z, log_det = layer(x)
    assert log_det.isfinite().all()
    torch.testing.assert_close(layer.inverse(z), x, rtol=0, atol=1e-6)


def test_a_permutation_permutes_and_returns():
    layer = Permutation([2, 0, 3, 1])
    x = torch.tensor([[10.0, 11.0, 12.0, 13.0]])
    assert layer(x)[0].tolist() == [[12.0, 10.0, 13.0, 11.0]]
    assert torch.equal(layer.inverse(layer(x)[0]), x)


def test_the_LU_layer_starts_as_the_identity():
    x = torch.randn(4, 3)
    assert torch.equal(LinearLU(3)(x)[0], x)


# ------------------------------------------------------------------------------------------------------- behaviour


def make_flow(dim=2):
    return Flow([ActNorm(dim), Coupling(dim, spline(), hidden=[8]), reversal(dim)], StandardNormal(dim))


def test_it_is_what_it_says():
    flow = randomized(make_flow()).double()
    assert isinstance(flow, Samples) and isinstance(flow, HasLogProb) and isinstance(flow, HasLoss)
    assert flow.log_prob(torch.zeros(0, 2).double()).shape == (0,) and flow.sample(0).shape == (0, 2)
    assert not flow.sample(3).requires_grad
    x = torch.randn(8, 2, dtype=torch.float64)
    torch.testing.assert_close(flow.loss(x), -sum(flow.log_prob(row[None]) for row in x)[0] / 8)
    x[1, 0] = math.nan
    assert flow.log_prob(x).isnan().tolist() == [False, True] + [False] * 6
    assert flow.sample(2).dtype == torch.float64 and flow.float().sample(2).dtype == torch.float32


def test_temperature_scales_the_latents():
    flow = randomized(make_flow())
    torch.manual_seed(1)
    z, _ = flow(flow.sample(10_000, temperature=0.5))
    assert z.std().item() == pytest.approx(0.5, rel=0.02)
    torch.testing.assert_close(flow.sample(3, temperature=0.0), flow.inverse(torch.zeros(3, 2)))


def test_an_average_of_a_flow_that_saw_data_starts_at_its_scale():
    flow = make_flow()
    flow(5 + torch.randn(100, 2))
    ema = EMA(flow)
    ema.update()
    x = 5 + torch.randn(10, 2)
    torch.testing.assert_close(ema.model.log_prob(x), flow.log_prob(x))


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    def run(path, steps):
        torch.manual_seed(0)
        flow = make_flow()
        optimizer = torch.optim.Adam(flow.parameters(), fused=True)
        checkpoint = Checkpoint(path, every=7, model=flow, optimizer=optimizer)
        batches = Draws(probability.two_clusters().sample, batch_size=16)
        fit(minimize(flow.loss, optimizer), batches, steps, history=checkpoint.restore(), hooks=[checkpoint])
        return flow.state_dict()

    run(tmp_path / "a.pt", 17)
    torch.randn(3)
    resumed, straight = run(tmp_path / "a.pt", 30), run(tmp_path / "b.pt", 30)
    assert resumed["transforms.0.seen"] and resumed["transforms.0.m"].abs().max() > 0
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Coupling(1, AffineBijection()), "needs dim >= 2, got dim 1"),
        (lambda: make_flow().log_prob(torch.zeros(5, 3)), r"shape \(B, 2\), got \(5, 3\)"),
        (lambda: make_flow().inverse(torch.zeros(2)), r"shape \(B, 2\), got \(2,\)"),
        (lambda: make_flow().loss(torch.zeros(0, 2)), r"finite rows, got \(0, 2\)"),
        (lambda: Permutation([0, 2]), r"each of 0 to 1 once, got \[0, 2\]"),
        (lambda: Permutation([0, 0]), "once"),
        (lambda: SplineBijection(bins=0), "got 0 bins"),
        (lambda: SplineBijection(bound=-1.0), "positive bound .* got 8 bins, bound -1.0"),
        (lambda: SplineBijection(bins=1000), r"bins \* smallest < 1, got 1000 bins, bound 3.0 and smallest 0.001"),
        (lambda: SplineBijection(smallest=0.0), "smallest 0.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_flow_without_transforms_is_its_base():
    flow = Flow([], StandardNormal(2))
    x = torch.randn(4, 2)
    assert torch.equal(flow(x)[0], x) and isinstance(flow.transforms, nn.ModuleList)
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x))
