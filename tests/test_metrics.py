"""Metrics against independent libraries, closed forms, and samplers that are wrong in a known way."""

import math
import warnings

import numpy as np
import ot
import prdc
import pytest
import scipy.linalg
import scipy.stats
import torch
from sklearn.metrics.pairwise import rbf_kernel
from torch import nn
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from course_lib import probability
from course_lib.evaluation import blocks, features, frechet
from course_lib.evaluation.intervals import spread_interval
from course_lib.evaluation.metrics import (
    PRDC,
    bootstrap,
    c2st,
    c2st_network,
    fid,
    fid_infinity,
    frechet_distance,
    held_out_likelihood,
    inception_score,
    kid,
    ks_per_dim,
    mean_interval,
    median_bandwidth,
    memorization,
    mmd,
    mmd_linear,
    mode_coverage,
    precision_recall_density_coverage,
    real_floor,
    share_interval,
    sliced_wasserstein,
    train_on_synthetic,
    wasserstein,
)
from course_lib.train import CheckpointError


def two_samples(seed, n=60, m=80, dim=5):
    """Two samples that differ in mean, scale and correlation, far enough from the origin for cancellation to show."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    x = torch.randn(n, dim, generator=g, dtype=torch.float64) @ mix + 3
    y = 1.5 * torch.randn(m, dim, generator=g, dtype=torch.float64) + 2.5
    return x, y


# ------------------------------------------------------------------------------------------- independent libraries


@pytest.mark.parametrize("seed", range(3))
def test_ks_and_wasserstein_agree_with_scipy_and_pot(seed):
    x, y = two_samples(seed)
    expected = [scipy.stats.ks_2samp(x[:, d], y[:, d]).statistic for d in range(5)]
    np.testing.assert_allclose(ks_per_dim(x, y), expected, rtol=1e-12)
    for p in (1, 2, 3):
        cost = torch.cdist(x, y[:60]).numpy() ** p
        uniform = np.full(60, 1 / 60)
        assert wasserstein(x, y[:60], p=p) == pytest.approx(ot.emd2(uniform, uniform, cost) ** (1 / p), rel=1e-9)
        one = ot.wasserstein_1d(x[:, 0].numpy(), y[:, 0].numpy(), p=p) ** (1 / p)  # of 60 and 80 points
        assert sliced_wasserstein(x[:, :1], y[:, :1], p=p, projections=3) == pytest.approx(one, rel=1e-9)
    g = torch.Generator().manual_seed(seed)
    many = sliced_wasserstein(x[:, :2], y[:, :2], projections=3000, generator=g)
    angles = torch.linspace(0, 2 * math.pi, 400)[:-1].double()
    directions = torch.stack([angles.cos(), angles.sin()])
    quadrature = ot.sliced_wasserstein_distance(x[:, :2].numpy(), y[:, :2].numpy(), projections=directions.numpy())
    assert many == pytest.approx(quadrature, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_ties_do_not_confuse_ks(seed):
    x, y = (z.round() for z in two_samples(seed))
    expected = [scipy.stats.ks_2samp(x[:, d], y[:, d]).statistic for d in range(5)]
    np.testing.assert_allclose(ks_per_dim(x, y), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_kernel_distances_agree_with_scikit_learn_and_torch_fidelity(seed):
    x, y = two_samples(seed)
    k = [rbf_kernel(a, b, gamma=1 / (2 * 1.7**2)) for a, b in ((x, x), (y, y), (x, y))]
    within = [(matrix.sum() - np.trace(matrix)) / (len(matrix) * (len(matrix) - 1)) for matrix in k[:2]]
    assert mmd(x, y, bandwidth=1.7) == pytest.approx(sum(within) - 2 * k[2].mean(), rel=1e-9)
    pairs = scipy.spatial.distance.pdist(torch.cat([x, y]))
    assert median_bandwidth(x, y) == pytest.approx(np.sort(pairs)[(len(pairs) - 1) // 2], rel=1e-12)
    assert mmd(x, y) == mmd(x, y, bandwidth=median_bandwidth(x, y))
    options = {"kid_subsets": 1, "kid_subset_size": 60, "verbose": False}
    expected = metric_kid.kid_features_to_metric(x, y[:60], **options)["kernel_inception_distance_mean"]
    assert kid(x, y[:60]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_fid_and_inception_score_agree_with_scipy_and_torch_fidelity(seed):
    x, y = two_samples(seed)
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    parts = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert fid(x, y) == pytest.approx(parts.item(), rel=1e-9)
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-9)
    moments = [{"mu": z.mean(0).numpy(), "sigma": np.cov(z.T)} for z in (x, y)]
    expected = metric_fid.fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"]
    assert fid(x, y) == pytest.approx(expected, rel=1e-9)
    assert fid(x.float(), y.float()) == pytest.approx(expected, rel=1e-5)
    expected = metric_isc.isc_features_to_metric(x, splits=1)["inception_score_mean"]
    assert inception_score(x) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("seed", range(3))
def test_precision_and_recall_agree_with_prdc_and_torch_fidelity(seed, k):
    fake, real = two_samples(seed, n=150, m=100, dim=2)
    expected = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    got = precision_recall_density_coverage(fake, real, k=k)
    assert got == pytest.approx(PRDC(*(expected[name] for name in PRDC._fields)), rel=1e-9)
    expected = metric_prc.prc_features_to_metric(fake, real, prc_neighborhood=k, prc_batch_size=64, verbose=False)
    assert got.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert got.recall == pytest.approx(expected["recall"], rel=1e-6)


@pytest.mark.parametrize(("right", "n"), [(0, 7), (3, 10), (99, 100), (50, 50)])
def test_the_interval_of_a_share_agrees_with_scipy(right, n):
    for level in (0.8, 0.95):
        low, high = scipy.stats.binomtest(right, n).proportion_ci(level, method="wilson")
        assert share_interval(right, n, level=level) == pytest.approx((right / n, low, high), abs=1e-9)


def test_the_interval_of_a_share_stays_within_its_bounds():
    for n in range(1, 60):
        assert share_interval(0, n).low == 0 == share_interval(0, n).value
        assert share_interval(n, n).high == 1 == share_interval(n, n).value


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_are_the_whole_matrix_whatever_their_size(rows, monkeypatch):
    x, y = two_samples(0, n=23, m=17)
    monkeypatch.setattr(blocks, "_ENTRIES", 17 * rows)
    assert [len(b) for b in blocks.squared_distances(x, y)][:-1] == [rows] * (math.ceil(23 / rows) - 1)
    torch.testing.assert_close(torch.cat(list(blocks.squared_distances(x, y))), torch.cdist(x, y) ** 2)
    torch.testing.assert_close(torch.cat(list(blocks.inner_products(x, y))), x @ y.T)
    torch.testing.assert_close(blocks.kth_neighbour(x, y, k=3), torch.cdist(x, y).sort().values[:, 2])
    a = [mmd(x, y), kid(x, y), *precision_recall_density_coverage(x, y)]
    monkeypatch.undo()
    assert a == pytest.approx([mmd(x, y), kid(x, y), *precision_recall_density_coverage(x, y)], rel=1e-12)


def test_no_block_of_a_large_matrix_is_large():
    x = torch.zeros(20_000, 1)
    for block in (blocks.squared_distances(x, x), blocks.inner_products(x, x)):
        assert 8 * next(block).numel() <= 64e6


def test_a_point_is_at_no_distance_from_itself():
    x, _ = two_samples(0)
    assert (torch.cat(list(blocks.squared_distances(x, x))) >= 0).all()
    assert blocks.kth_neighbour(x, x, k=1).max() < 1e-6


def test_near_points_far_from_the_origin_keep_their_distance():
    x = 1000 + torch.tensor([[0.0], [1e-3]])
    gap = (x[1] - x[0]).item()
    assert blocks.kth_neighbour(x[:1], x[1:], k=1).item() == pytest.approx(gap, rel=1e-5)


# --------------------------------------------------------------------------------------------------- closed forms


def test_the_distance_of_gaussians_has_its_closed_forms():
    g = torch.Generator().manual_seed(1)
    mu, (a, b) = torch.randn(2, 6, generator=g).double(), torch.rand(2, 6, generator=g).double() + 0.1
    commuting = frechet_distance(mu[0], a.diag(), mu[1], b.diag())
    assert commuting == pytest.approx(((mu[0] - mu[1]) ** 2 + (a.sqrt() - b.sqrt()) ** 2).sum().item(), rel=1e-9)
    # of N(0, S) pushed through the symmetric positive T, the optimal map, it is E |T x - x|^2 = tr (T - 1) S (T - 1)
    t, s = (z @ z.T + 0.1 * torch.eye(6).double() for z in torch.randn(2, 6, 6, generator=g).double())
    excess = t - torch.eye(6).double()
    assert frechet_distance(mu[0], s, mu[0], t @ s @ t) == pytest.approx((excess @ s @ excess).trace().item(), rel=1e-8)
    thin = torch.randn(6, 2, generator=g).double()
    singular = thin @ thin.T
    assert frechet_distance(mu[0], singular, mu[0], singular) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(mu[0], singular, mu[0], 4 * singular) == pytest.approx(singular.trace().item(), rel=1e-6)
    for _ in range(20):  # where rounding may leave less than nothing
        root = torch.randn(6, 6, generator=g).double()
        assert 0 <= frechet_distance(mu[0], root @ root.T, mu[0], root @ root.T) < 1e-9
    single = [z.float() for z in (mu[0], s, mu[1], t @ s @ t)]
    assert frechet_distance(*single) == frechet_distance(*(z.double() for z in single))


@pytest.mark.parametrize("dim", [1, 3])
def test_mmd_of_gaussians_has_its_closed_form(dim):
    s, shift = 1.3, 0.8
    x, y = torch.randn(2, 3000, dim)
    y[:, 0] += shift
    alike = (s**2 / (s**2 + 2)) ** (dim / 2)
    expected = 2 * alike * (1 - math.exp(-(shift**2) / (2 * (s**2 + 2))))
    assert mmd(x, y, bandwidth=s) == pytest.approx(expected, rel=0.15)
    x, y = torch.randn(2, 400_000, dim)
    y[:, 0] += shift
    assert mmd_linear(x, y, bandwidth=s) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    "metric", [lambda x, y: mmd(x, y, bandwidth=1.0), kid, lambda x, y: mmd_linear(x, y, bandwidth=1.0)]
)
def test_unbiased_estimates_have_mean_zero_for_equal_distributions(metric):
    g = torch.Generator().manual_seed(0)
    values = torch.tensor([metric(*torch.randn(2, 30, 2, generator=g)) for _ in range(400)])
    assert values.mean().abs() < 3.5 * values.std() / 20
    assert values.min() < 0 < values.max()


def test_the_linear_estimate_uses_every_point_once():
    x, y = (nn.functional.pad(torch.tensor([z]).T, (0, 1)) for z in ([0.0, 1.0, 9.0, 7.0, 8.0, 6.0], [3.0, 5, 2, 8, 7]))
    alike, apart = (sum(math.exp(-(gap**2) / 8) for gap in gaps) for gaps in ((1, 2, 2, 6), (5, 2, 1, 5)))
    expected = (alike - apart) / 2  # of the pairs x 0 1 and 9 7, y 3 5 and 2 8; the rest has no partner
    assert mmd_linear(x, y, bandwidth=2.0) == pytest.approx(expected, rel=1e-6)
    assert mmd_linear(y, x, bandwidth=2.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("test", [c2st, lambda x, y: c2st_network(x, y, hidden=(16,), steps=150, folds=2)])
def test_no_classifier_beats_the_total_variation_distance_and_good_ones_come_near(test, shift):
    x, y = torch.randn(2, 1500, 2)
    y[:, 1] += shift
    best = scipy.stats.norm.cdf(shift / 2)  # 1/2 + TV / 2
    accuracy, low, high = test(x, y)
    assert best - 0.04 < accuracy < best + 0.025
    binomial = 1.96 * math.sqrt(best * (1 - best) / 3000)
    assert low < accuracy < high and 1.3 * binomial < (high - low) / 2 < 2 * binomial


def test_the_interval_of_c2st_holds_chance_as_often_as_it_says():
    held = 0
    for _ in range(100):
        _, low, high = c2st(*torch.randn(2, 120, 2), neighbours=5)
        held += low <= 0.5 <= high
    assert held >= 93  # with independent verdicts assumed, 87 of 100


def test_neighbours_see_fine_structure_and_a_small_network_does_not():
    x = torch.rand(2000, 1)
    comb = (torch.randint(40, (2000, 1)) + 0.5 * torch.rand(2000, 1)) / 40  # forty teeth
    assert c2st(x, comb, neighbours=5).accuracy > 0.65
    assert c2st_network(x, comb, hidden=(8,), steps=100, folds=2).accuracy < 0.55


def test_figures_with_a_generator_are_repeatable_and_leave_the_global_state_alone():
    x, y = torch.randn(2, 100, 2)
    before = torch.get_rng_state()
    for figure in (
        lambda g: c2st(x, y, generator=g),
        lambda g: c2st_network(x, y, steps=10, folds=2, generator=g),
        lambda g: sliced_wasserstein(x, y, projections=5, generator=g),
        lambda g: fid_infinity(x, y, generator=g),
        lambda g: bootstrap(fid, x, y, resamples=3, generator=g),
        lambda g: real_floor(fid, x, splits=3, generator=g),
    ):
        first, *others = (figure(torch.Generator().manual_seed(seed)) for seed in (4, 4, 5, 6, 7))
        assert others[0] == first and set(others) != {first}
    assert torch.equal(before, torch.get_rng_state())


def test_the_extrapolated_distance_is_the_same_to_the_bit_wherever_memory_was_free():
    x, y = torch.randn(2, 100, 2)
    g = torch.Generator()
    elsewhere = []
    figures = set()
    for size in range(100):
        elsewhere.append(bytearray(100 + 37 * size))  # the next tensors lie in another place
        figures.add(fid_infinity(x, y, generator=g.manual_seed(4)))
    assert len(figures) == 1


def test_inception_score_knows_its_bounds_and_a_case_between():
    sure = 50 * nn.functional.one_hot(torch.arange(12) % 4).double()
    assert inception_score(sure) == pytest.approx(4)
    assert inception_score(sure[::4]) == pytest.approx(1)  # one class only
    assert inception_score(torch.zeros(5, 4)) == pytest.approx(1)
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double()  # marginal 1/2: log 2 minus the entropy of 0.9, 0.1
    assert inception_score(p.log() + 7) == pytest.approx(2 * 0.9**0.9 * 0.1**0.1)


def test_likelihood_is_the_entropy_plus_the_divergence_and_bits_follow():
    p = probability.gaussian([0.0, 0.0, 0.0], torch.eye(3))
    q = probability.gaussian([1.0, 0.0, 0.0], torch.eye(3))
    x = p.sample(50_000)
    entropy = 1.5 * math.log(2 * math.pi * math.e)
    own, other = (held_out_likelihood(d.log_prob, x, batch_size=777) for d in (p, q))
    assert own.nll.low < entropy < own.nll.high
    assert other.nll.value == pytest.approx(entropy + 0.5, abs=0.02)
    assert own.nll.high - own.nll.low == pytest.approx(2 * 1.96 * math.sqrt(1.5 / 50_000), rel=0.05)
    for got, nats in zip(held_out_likelihood(p.log_prob, x, levels=256).bits, own.nll, strict=True):
        assert got == pytest.approx(nats / 3 / math.log(2) + 8)
    pictures = held_out_likelihood(lambda x: -x.flatten(1).sum(1), torch.ones(4, 1, 2, 2))
    assert pictures.nll.value == 4 and pictures.bits.value == pytest.approx(1 / math.log(2))


# ------------------------------------------------------------------------------------------------------ intervals


def test_half_samples_give_the_error_that_theory_gives():
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(900, 1, generator=g), 2 * torch.randn(400, 1, generator=g)
    for level, z in ((0.95, 1.96), (0.68, 0.9945)):
        value, low, high = bootstrap(
            lambda a, b: (a.mean() - b.mean()).item(), x, y, resamples=2000, level=level, generator=g
        )
        assert (high - value) == pytest.approx(z * math.sqrt(x.var() / 900 + y.var() / 400), rel=0.07)
        assert (value - low) == pytest.approx(high - value)
    assert value == pytest.approx((x.mean() - y.mean()).item())
    _, low, high = bootstrap(lambda a: a.std().item(), x, resamples=2000, generator=g)
    assert (high - low) / 2 == pytest.approx(1.96 * 1 / math.sqrt(2 * 900), rel=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say():
    g = torch.Generator().manual_seed(5)
    truth, held = 1.0, 0  # the Fréchet distance of N(0, 1) and N(1, 1), in samples so large that the bias is small
    for _ in range(100):
        x, y = torch.randn(2, 400, 1, generator=g)
        _, low, high = bootstrap(fid, x, y + 1, resamples=30, generator=g)
        held += low <= truth <= high
    assert 87 <= held <= 100


def test_drawing_with_replacement_would_mislead_where_halves_do_not():
    x, y = torch.randn(2, 300, 2)

    def accuracy(a, b):
        return c2st(a, b, neighbours=1, folds=2).accuracy

    repeated = [accuracy(x[torch.randint(300, (300,))], y[torch.randint(300, (300,))]) for _ in range(5)]
    assert min(repeated) > 0.6  # a point recognises its own copy
    value, low, high = bootstrap(accuracy, x, y, resamples=10)
    assert value < 0.56 and low < 0.5 < high


def test_the_floor_is_where_new_real_samples_fall():
    p = probability.two_clusters(center=(2.0, 0.0), std=0.5)
    g = torch.Generator().manual_seed(0)

    def distance(a, b):
        return sliced_wasserstein(a, b, projections=30, generator=g)

    fresh = torch.tensor([distance(*p.sample(1000).split(500)) for _ in range(40)])
    # the spread of one pair of halves depends on how many points of this one sample lie in each mode: average over some
    floors = [real_floor(distance, p.sample(1000), splits=30, generator=g) for _ in range(6)]
    assert np.mean([f.value for f in floors]) == pytest.approx(fresh.mean().item(), rel=0.25)
    inside = [(floors[0].low <= fresh) & (fresh <= floors[0].high)]
    assert torch.cat(inside).float().mean() > 0.85
    assert floors[0].low < floors[0].value < floors[0].high


def test_the_mean_has_the_usual_interval():
    x = torch.tensor([1.0, 2.0, 3.0, 6.0])
    error = scipy.stats.sem(x)
    assert mean_interval(x, level=0.9) == pytest.approx((3, 3 - 1.6449 * error, 3 + 1.6449 * error), rel=1e-4)


# --------------------------------------------------------------------------------------------- FID and sample size


def test_the_bias_of_fid_is_removed_by_extrapolation():
    """True distance 0.25 * 48 / 3 = 4; at 600 samples of 48 features the figure is about 2 too large."""
    g = torch.Generator().manual_seed(2)
    plain, extrapolated, held = [], [], 0
    for _ in range(8):
        x, y = torch.randn(2, 600, 48, generator=g)
        y[:, ::3] += 0.5
        plain.append(fid(x, y))
        extrapolated.append(fid_infinity(x, y, generator=g))
        _, low, high = bootstrap(lambda a, b: fid_infinity(a, b, generator=g), x, y, resamples=10, generator=g)
        held += low <= 4 <= high
    assert min(plain) > 5
    assert np.mean(extrapolated) == pytest.approx(4, abs=0.35)
    assert held >= 6


def test_the_line_in_one_over_n_is_followed_to_its_end(monkeypatch):
    monkeypatch.setattr(frechet, "_average_over_subsets", lambda x, y, size: 7 + 3000 / size)
    x, y = torch.randn(2, 500, 3)
    assert fid_infinity(x, y) == pytest.approx(7, rel=1e-9)


def test_fid_says_what_too_few_samples_do_to_it():
    x, y = torch.randn(2, 20, 64)
    with pytest.warns(UserWarning, match=r"20 samples have a covariance of rank 19 .* in 64 dimensions") as caught:
        assert fid(x, y) > 20  # the true distance is 0
    quoted = float(str(caught[0].message).split("already ")[1].split(" apart")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert quoted == pytest.approx(fid(y[::2], y[1::2]), rel=0.01) and quoted > 40
    with pytest.warns(UserWarning, match="3 samples have a covariance of rank 2 .* far too large. Use more"):
        fid(x, y[:3])  # too few to be cut in two
    with pytest.warns(UserWarning, match="rank 7 at most in 8 dimensions"):
        fid(x[:8, :8], y[:, :8])


def test_fid_says_which_features_are_dead():
    x, y = torch.randn(2, 50, 4)
    x[:, 1:3], y[:, 1] = 0, 0
    with pytest.warns(UserWarning, match="1 of 4 features are constant in both"):
        fid(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fid(x[:, [0, 3]], y[:, [0, 3]])


# ------------------------------------------------------------------------------------ samplers that are known wrong


RING = probability.ring()


def without_modes(p, n, dropped):
    keep = torch.tensor([k not in dropped for k in range(len(p.means))])
    return probability.GaussianMixture(p.means[keep], p.covariances[keep]).sample(n)


def test_the_right_argument_is_the_real_one():
    """What is missing from the fakes lowers recall and coverage; what is missing from the real, precision, density."""
    p = probability.two_clusters(center=(2.0, 0.0), std=0.5)
    whole, half = p.sample(1000), without_modes(p, 1000, {1})
    good_not_diverse = precision_recall_density_coverage(half, whole)
    assert good_not_diverse.precision > 0.95 and good_not_diverse.density > 0.9
    assert good_not_diverse.recall < 0.6 and good_not_diverse.coverage < 0.6
    diverse_not_good = precision_recall_density_coverage(whole, half)
    assert diverse_not_good.precision < 0.6 and diverse_not_good.density < 0.6
    assert diverse_not_good.recall > 0.95 and diverse_not_good.coverage > 0.8


def test_equal_distributions_have_density_one_and_the_coverage_that_theory_gives():
    results = [precision_recall_density_coverage(*torch.randn(2, 400, 2), k=3) for _ in range(20)]
    assert np.mean([r.density for r in results]) == pytest.approx(1, abs=0.03)
    assert np.mean([r.coverage for r in results]) == pytest.approx(1 - 0.5**3, abs=0.02)


def test_dropped_modes_are_counted_and_weighed():
    whole = mode_coverage(RING.sample(4000), RING)
    assert whole.covered == whole.modes == 8 and whole.kl < 0.01
    assert whole.near == pytest.approx(scipy.stats.chi2.cdf(9, 2), abs=0.007)
    assert whole.spread == pytest.approx(1, abs=0.03)
    half = mode_coverage(without_modes(RING, 4000, {0, 2, 4, 6}), RING)
    assert half.covered == 4 and half.kl == pytest.approx(math.log(2), abs=0.01) and half.near > 0.98
    # unequal weights: the KL of the histogram, by scipy
    p = probability.GaussianMixture(RING.means, RING.covariances, torch.arange(1.0, 9.0))
    assert mode_coverage(p.sample(20_000), RING).kl == pytest.approx(
        scipy.stats.entropy(np.arange(1, 9) / 36, np.full(8, 1 / 8)), abs=0.01
    )
    assert mode_coverage(RING.sample(20_000), p).kl == pytest.approx(
        scipy.stats.entropy(np.full(8, 1 / 8), np.arange(1, 9) / 36), abs=0.02
    )


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_quality_and_spread_are_exact_for_correlated_modes(dim):
    g = torch.Generator().manual_seed(dim)
    root = torch.randn(2, dim, dim, generator=g)
    p = probability.GaussianMixture(
        100 * torch.randn(2, dim, generator=g), root @ root.mT + 0.1 * torch.eye(dim), torch.tensor([0.3, 0.7])
    )
    result = mode_coverage(p.sample(20_000), p)
    assert result.near == pytest.approx(scipy.stats.chi2.cdf(9, dim), abs=0.005)
    assert result.spread == pytest.approx(1, abs=0.02) and result.covered == 2
    narrow = probability.GaussianMixture(p.means, 0.25 * p.covariances, p.weights)
    assert mode_coverage(narrow.sample(20_000), p).spread < 0.56


def test_few_samples_cover_few_modes_in_either_precision():
    ring = probability.ring()
    x = ring.means[:1] + 0.01 * torch.randn(3, 2)
    for samples in (x, x.double()):
        found = mode_coverage(samples, ring)
        assert (found.covered, found.near) == (1, 1.0)


def test_a_network_brings_dimensions_to_one_scale_and_cuts_at_even_odds():
    x, y = torch.randn(2, 4000, 2)
    y[:, 0] += 1.0
    scale = torch.tensor([1e-3, 1e3])
    best = torch.special.ndtr(torch.tensor(0.5)).item()  # of any classifier, for two normals 1 apart
    assert c2st_network(scale * x, scale * y, hidden=(), steps=500, folds=2).accuracy == pytest.approx(best, abs=0.012)


def test_a_uniform_circle_does_not_pass_for_a_ring():
    angle = 2 * math.pi * torch.rand(4000)
    circle = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    result = mode_coverage(circle, RING)
    assert result.near == pytest.approx(8 * 2 * 3 * 0.02 / (2 * math.pi * 2), abs=0.02)
    assert result.covered == 0 or result.near < 0.1
    assert mode_coverage(circle, RING, stds=25.0).near > 0.6  # what a radius of 25 would say
    assert c2st(circle[:1500], RING.sample(1500)).accuracy > 0.9


def test_copies_of_the_means_are_near_but_have_no_spread():
    means = RING.means[torch.randint(8, (1000,))]
    result = mode_coverage(means, RING)
    assert result.covered == 8 and result.near == 1 and result.spread < 1e-3
    assert math.isnan(mode_coverage(RING.means[:2] + 1, RING).spread)


def test_a_sampler_that_diverged_has_no_histogram_over_modes():
    result = mode_coverage(torch.full((10, 2), 1e25), RING)
    assert result.covered == result.near == 0 and math.isnan(result.kl)


@pytest.mark.parametrize("std", [0.05, 0.2])
def test_added_noise_is_seen(std):
    real, good = RING.sample(1000), RING.sample(1000)
    noisy = good + std * torch.randn_like(good)
    assert mode_coverage(noisy, RING).near < 0.6 and mode_coverage(noisy, RING).spread > 1.2
    assert c2st(noisy, real).accuracy > 0.7 > 0.55 > c2st(good, real).accuracy
    assert precision_recall_density_coverage(noisy, real).density < 0.5
    assert mmd(noisy, real, bandwidth=0.05) > 10 * abs(mmd(good, real, bandwidth=0.05))


def test_modes_on_the_wrong_diagonal_pass_ks_and_nothing_else():
    """Marginals are the same, so KS is at its floor; everything that looks at both dimensions sees it."""
    real, wrong = (probability.two_clusters(center=c, std=0.5).sample(1000) for c in ((2.0, 2.0), (2.0, -2.0)))
    assert ks_per_dim(wrong, real).max() < 0.09
    assert c2st(wrong, real).accuracy > 0.95
    assert c2st_network(wrong, real, steps=200, folds=2).accuracy > 0.95
    assert sliced_wasserstein(wrong, real) > 1 and wasserstein(wrong[:300], real[:300]) > 1.5
    assert fid(wrong, real) > 3 and mmd(wrong, real) > 0.1
    assert max(precision_recall_density_coverage(wrong, real)) < 0.1


def test_one_mode_instead_of_two_moves_ks():
    p = probability.two_clusters(center=(2.0, 2.0), std=0.5)
    assert ks_per_dim(without_modes(p, 2000, {1}), p.sample(2000)).min() == pytest.approx(0.5, abs=0.04)


def test_copied_training_data_is_caught_and_new_data_is_not():
    train, held_out, new = RING.sample(800), RING.sample(600), RING.sample(700)
    honest = memorization(new, train, held_out)
    assert honest.ratio == pytest.approx(1, abs=0.2) and honest.copies < 0.03
    assert memorization(train[torch.randint(800, (700,))], train, held_out) == (0, 1)
    jittered = train[torch.randint(800, (700,))] + 1e-4 * torch.randn(700, 2)
    assert memorization(jittered, train, held_out).ratio < 0.2
    tenth = torch.cat([new[:630], train[:70]])
    planted = memorization(tenth, train, held_out)
    assert planted.ratio > 0.7 and planted.copies == pytest.approx(0.1, abs=0.03)
    # figures that only compare distributions cannot see it
    assert (
        c2st(train[:600], held_out).accuracy < 0.55 and precision_recall_density_coverage(train, held_out).recall > 0.9
    )


def test_copies_are_told_from_neighbours_whatever_the_origin_of_the_data():
    train, held_out, new = 1e-3 * torch.randn(3, 300, 2).double()
    far = torch.tensor([0.0, 1000.0]).double()
    here, there = memorization(new, train, held_out), memorization(new + far, train + far, held_out + far)
    assert there == pytest.approx(here, rel=1e-3) and here.copies < 0.03 and 0.7 < here.ratio < 1.4
    assert memorization(train[:50] + far, train + far, held_out + far) == (0, 1)
    wide, others = torch.randn(2, 200, 3000)
    assert memorization(wide[:20], wide, others) == (0, 1)


def test_images_far_away_from_the_training_data_have_a_ratio_above_one():
    train, held_out = torch.randn(2, 300, 2)
    assert memorization(5 + torch.randn(300, 2), train, held_out).ratio > 3


def test_synthetic_training_data_is_worth_what_it_teaches():
    x, y = torch.randn(600, 3), torch.arange(600) % 3
    x[torch.arange(600), y] += 3
    test_x, test_y, half = x[300:], y[300:], slice(0, 300)
    good = train_on_synthetic(x[half], y[half], test_x, test_y)
    assert good.value > 0.9 and good.low < good.value < good.high
    swapped = train_on_synthetic(x[half], (y[half] + 1) % 3, test_x, test_y)
    assert swapped.value < 0.1
    one_class_missing = y[half] != 2
    partial = train_on_synthetic(x[half][one_class_missing], y[half][one_class_missing], test_x, test_y)
    assert partial.value < 0.7
    scaled = train_on_synthetic(1e3 * x[half], y[half], 1e3 * test_x, test_y)
    assert scaled.value == pytest.approx(good.value, abs=0.02)


# ------------------------------------------------------------------------------------------------------- features


@pytest.fixture(scope="module")
def digits():
    from course_lib.data import images

    return images("digits"), images("digits", split="test")


def test_the_classifier_is_trained_once_and_then_loaded(digits, tmp_path):
    train, test = digits
    state = torch.get_rng_state()
    first = features.train_classifier(train, path=tmp_path / "digits.pt", steps=120)
    assert torch.equal(state, torch.get_rng_state())
    right = (first(test.x).argmax(1) == test.y).float().mean()
    assert right > 0.9 and not first.training and not any(p.requires_grad for p in first.parameters())
    modified = (tmp_path / "digits.pt").stat().st_mtime_ns
    torch.randn(5)
    again = features.train_classifier(train, path=tmp_path / "digits.pt", steps=120)
    fresh = features.train_classifier(train, steps=120)
    assert (tmp_path / "digits.pt").stat().st_mtime_ns == modified
    for other in (again, fresh):
        assert torch.equal(other.features(test.x), first.features(test.x))
    assert not torch.equal(features.train_classifier(train, steps=120, seed=1).features(test.x), first.features(test.x))
    with pytest.raises(CheckpointError, match=r"does not fit"):
        features.train_classifier(train._replace(y=train.y % 5), path=tmp_path / "digits.pt", steps=120)

    # features see what a pixel average does not: a digit's class
    embed = features.in_batches(first.features, test.x, batch_size=7)
    torch.testing.assert_close(embed, first.features(test.x))
    ones, twos = embed[test.y == 1], embed[test.y == 2]
    assert fid_infinity_free_ratio(ones, twos) > 3


def fid_infinity_free_ratio(a, b):
    """Distance of two classes over the distance of two halves of one, in KID, which has no bias."""
    return kid(a, b) / max(abs(kid(a[::2], a[1::2])), 1e-9)


def test_inception_is_loaded_from_the_disk_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"the weights of Inception are not at .*inception_v3.*pth"):
        features.inception()


# ------------------------------------------------------------------------------------------------------ bad input


X = torch.randn(10, 2)
BAD = torch.tensor([[0.0, 0.0], [math.nan, 0.0]])
PAIRED = [ks_per_dim, wasserstein, sliced_wasserstein, mmd, mmd_linear, kid, fid, fid_infinity, c2st, c2st_network]
PAIRED += [median_bandwidth, precision_recall_density_coverage]


@pytest.mark.parametrize("metric", PAIRED, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, X[:, :1], r"differ in dimension: \w+ has shape \(10, 2\), \w+ \(10, 1\)"),
        (X, X[0], r"expected \w+ of shape \(N, D\), got \(2,\)"),
        (X[:, :0], X, r"expected \w+ of shape \(N, D\), got \(10, 0\)"),
        (X[:, None, None], X, r"compare features or x.flatten\(1\)"),
        (X, X.long(), r"floating-point type, got torch.int64"),
        (BAD.repeat(6, 1), X, r"NaN or infinity: 6 of 12 rows, the first is 1"),
        (X, BAD.nan_to_num(math.inf).repeat(6, 1), r"NaN or infinity: 6 of 12 rows, the first is 1"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


@pytest.mark.parametrize("metric", PAIRED, ids=lambda f: f.__name__)
def test_samples_of_two_precisions_can_be_compared(metric):
    x, y = torch.randn(2, 60, 2)
    if metric is c2st_network:
        metric = lambda x, y: c2st_network(x, y, steps=5, folds=2)  # noqa: E731
    for figure in (metric(x.double(), y), metric(x, y.double())):
        assert torch.as_tensor(figure).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mmd(X[:1], X), "x has 1 row, this figure needs at least 2"),
        (lambda: precision_recall_density_coverage(X[:5], X), "fake has 5 rows, this figure needs at least 6"),
        (lambda: precision_recall_density_coverage(X, X, k=0), "k must be at least 1, got 0"),
        (lambda: mmd(X * 0, X * 0), "at least half of all pairs coincide"),
        (lambda: mmd(X, X, bandwidth=0.0), "bandwidth must be positive, got 0.0"),
        (lambda: wasserstein(X, X[:5]), "one size and a finite p >= 1, got 10 and 5 rows"),
        (lambda: wasserstein(X, X, p=0.5), "p 0.5"),
        (lambda: wasserstein(X, X, p=math.inf), "p inf"),
        (lambda: sliced_wasserstein(X, X, p=0.5), "p 0.5"),
        (lambda: sliced_wasserstein(X, X, p=math.inf), "p inf"),
        (lambda: sliced_wasserstein(X, X, projections=0), "projections 0"),
        (lambda: fid_infinity(X, X, points=1), "got 1 points"),
        (lambda: fid_infinity(X, X, smallest=0.99), "several sizes, got 10 of 10 samples only: lower smallest"),
        (lambda: fid_infinity(X, X, smallest=0.1), r"larger than the 2 features, .* from 1 to 10"),
        (lambda: frechet_distance(X[0], torch.eye(3), X[0], torch.eye(2)), r"got \(2,\), \(3, 3\), \(2,\), \(2, 2\)"),
        (lambda: frechet_distance(X[0, 0], torch.eye(1), X[0, :1], torch.eye(1)), r"got \(\), \(1, 1\), \(1,\)"),
        (lambda: frechet_distance(BAD[1], torch.eye(2), BAD[0], torch.eye(2)), "mu_1 holds NaN or infinity"),
        (
            lambda: frechet_distance(BAD[0], math.inf * torch.ones(2, 2), BAD[0], BAD),
            "cov_1 and cov_2 hold NaN or infinity",
        ),
        (lambda: c2st(X, X, neighbours=99), "99 neighbours cannot be found"),
        (lambda: c2st(X, X, neighbours=1, folds=11), "folds must lie between 2 and the 10 rows"),
        (lambda: inception_score(torch.zeros(3)), r"logits of shape \(N, D\)"),
        (lambda: memorization(X, X, X), "they were not held out"),
        (lambda: memorization(X, X, X[:, :1]), r"samples has shape \(10, 2\), held_out \(10, 1\)"),
        (lambda: memorization(X, X, X + 1, quantile=1.0), "quantile must lie between 0 and 1"),
        (lambda: train_on_synthetic(X, torch.zeros(9).long(), X, torch.zeros(10).long()), r"10 rows of fake, .*\(9,\)"),
        (lambda: train_on_synthetic(X, torch.arange(10), X, X[:, 0]), "rows of real, .*float32"),
        (lambda: train_on_synthetic(X, torch.ones(10).long(), X, torch.arange(10)), r"only one class, \[1\]"),
        (lambda: held_out_likelihood(lambda x: x, X), r"each of 10 rows, got shape \(10, 2\)"),
        (lambda: mean_interval(torch.zeros(1)), r"at least 2, got \(1,\)"),
        (lambda: share_interval(5, 4), "right 5 of n 4"),
        (lambda: bootstrap(fid, X, X[:3]), r"got \[10, 3\] rows"),
        (lambda: bootstrap(fid, X, X, resamples=1), "1 resamples"),
        (lambda: bootstrap(fid, X, X, resamples=2, level=1.0), "level must lie between 0 and 1, got 1.0"),
        (lambda: mean_interval(X[:, 0], level=-0.5), "got -0.5"),
        (lambda: share_interval(1, 2, level=95), "got 95"),
        (lambda: spread_interval(0.0, [1.0]), "1 draw is unknown"),
        (lambda: real_floor(fid, X[:3]), "got 3 rows"),
        (lambda: real_floor(fid, X, splits=1), "1 splits"),
        (lambda: mode_coverage(torch.zeros(5, 3), RING), r"shape \(N, 2\) .*, got \(5, 3\)"),
        (lambda: features.train_classifier((torch.zeros(8, 1, 8, 8), None)), "each of 8 images, got none"),
        (lambda: features.train_classifier((torch.zeros(8, 1, 8, 8), torch.zeros(7).long())), r"got shape \(7,\)"),
        (lambda: blocks.kth_neighbour(X, X, k=11), "neighbour number 11 among 10"),
        (lambda: blocks.kth_neighbour(X, X, k=0), "neighbour number 0 among 10"),
        (lambda: bootstrap(lambda: 0.0), r"got \[\] rows"),
        (lambda: mean_interval(torch.zeros(3, 1)), r"shape \(N,\), at least 2, got \(3, 1\)"),
        (lambda: c2st(X, X, neighbours=17), "17 neighbours cannot be found"),
        (lambda: c2st(X, X, neighbours=1, folds=0), "folds must lie between 2 and the 10 rows"),
        (lambda: c2st(X, torch.randn(40, 2), neighbours=1, folds=11), "the 10 rows of the smaller sample, got 11"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_impossible_row_is_named_and_not_averaged_away():
    p = probability.gaussian([0.0], [[1e-4]])
    with pytest.raises(FloatingPointError, match=r"of 1 of 3 rows is not finite; row 2 has -inf"):
        held_out_likelihood(lambda x: p.log_prob(x).where(x[:, 0] < 1, -math.inf), torch.tensor([[0.0], [0.1], [1.0]]))
