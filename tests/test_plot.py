"""Figures: what is drawn is what was given, named and labelled."""

import numpy as np
import pytest
import torch
from matplotlib import rcParams

from course_lib import plot


@pytest.fixture
def ax():
    _, (ax,) = plot.subplots()
    return ax


def drawn_image(ax):
    return np.asarray(ax.images[0].get_array().filled(np.nan))


def test_image_rows_puts_each_image_in_its_place(ax):
    x = torch.rand(3, 1, 8, 8)
    plot.image_rows(ax, {"first": x, "second": 1 - x}, title="Two rows")
    canvas = drawn_image(ax)
    np.testing.assert_allclose(canvas[:8, 9:17], x[1, 0])
    np.testing.assert_allclose(canvas[9:17, 18:26], 1 - x[2, 0])
    assert canvas.shape == (17, 26)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_title(loc="left") == "Two rows" or ax.get_title() == "Two rows"


def test_image_rows_refuses_rows_that_do_not_match(ax):
    with pytest.raises(ValueError, match="equally many images"):
        plot.image_rows(ax, {"a": np.zeros((3, 8, 8)), "b": np.zeros((2, 8, 8))})


@pytest.mark.parametrize("shape", [(8, 8), (3, 3, 8, 8), (3, 1, 1, 8, 8), (8,)])
def test_image_rows_refuses_what_is_no_row_of_grey_images(ax, shape):
    expected = r"expected images of shape \(N, H, W\) or \(N, 1, H, W\), got {'a': \(" + str(shape)[1:-1]
    with pytest.raises(ValueError, match=expected):
        plot.image_rows(ax, {"a": np.zeros(shape)})
    assert not ax.images


@pytest.mark.parametrize(
    "rows", [{}, {"a": np.zeros((0, 8, 8))}, {"a": np.zeros((2, 8, 8)), "b": np.zeros((2, 1, 8, 9))}]
)
def test_image_rows_refuses_rows_of_nothing_or_of_two_sizes(ax, rows):
    with pytest.raises(ValueError, match=r"equally many images of one size, got|there are no images: .*got"):
        plot.image_rows(ax, rows)


def test_a_title_stays_when_more_is_drawn(ax):
    plot.points(ax, {"data": np.zeros((2, 2))}, title="Where it goes")
    plot.arrows(ax, np.zeros((2, 2)), np.ones((2, 2)))
    assert "Where it goes" in (ax.get_title(), ax.get_title(loc="left"))


def test_curves_draw_the_mean_and_the_range_over_seeds(ax):
    y = np.array([[1.0, 2.0], [3.0, 6.0]])
    plot.curves(ax, {"over seeds": ([10, 20], y), "one": ([10, 20], [0, 1])}, xlabel="step", ylabel="loss", title="T")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2, 4])
    (band,) = ax.collections
    assert band.get_paths()[0].get_extents().bounds == (10, 1, 10, 5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["over seeds", "one"]


def test_histograms_are_densities_over_common_bins(ax):
    plot.histograms(ax, {"a": torch.randn(500), "b": 5 + torch.randn(300)}, xlabel="x", bins=20)
    bars = np.array([[p.get_x(), p.get_width(), p.get_height()] for p in ax.patches]).reshape(2, 20, 3)
    np.testing.assert_allclose((bars[..., 1] * bars[..., 2]).sum(1), 1)
    np.testing.assert_allclose(bars[0, :, 0], bars[1, :, 0])


def test_points_and_labels_stand_where_they_belong(ax):
    z = torch.tensor([[0.0, 0.0], [2.0, 2.0], [10.0, 0.0]])
    plot.label_map(ax, z, torch.tensor([4, 4, 7]), xlabel="$z_1$", ylabel="$z_2$")
    assert {t.get_text(): tuple(t.xy) for t in ax.texts} == {"4": (1.0, 1.0), "7": (10.0, 0.0)}
    plot.points(ax, {"data": z})
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), z)


def test_contours_and_arrows_use_the_same_coordinates(ax):
    extent = (-2, 2, 0, 1)
    grid = plot.grid_points(extent, n=5)
    assert grid.shape == (25, 2) and grid.min(0).values.tolist() == [-2, 0] and grid.max(0).values.tolist() == [2, 1]
    # a function that grows with x_2 only: the highest level must be drawn at the top, not on the right
    plot.contours(ax, grid[:, 1] ** 2, extent=extent)
    box = ax.collections[0].get_paths()[-1].get_extents()
    assert box.y1 == pytest.approx(1) and box.y0 > 0.5 and (box.x0, box.x1) == (-2, 2)
    plot.arrows(ax, grid, grid)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), grid)


def test_every_axes_has_labels(ax):
    plot.points(ax, {"data": np.zeros((2, 2))})
    assert ax.get_xlabel() and ax.get_ylabel()


def test_png_is_reproducible():
    def image():
        figure, (ax,) = plot.subplots()
        plot.curves(ax, {"a": ([0, 1], [0, 1])}, xlabel="x", ylabel="y")
        return plot.png(figure)

    assert image() == image()


def test_style_is_set_on_request_only():
    import matplotlib

    matplotlib.rcdefaults()
    grid_before = rcParams["axes.grid"]
    assert grid_before is False
    plot.use_style()
    assert rcParams["axes.grid"] is True
    colors = [entry["color"] for entry in rcParams["axes.prop_cycle"]]
    assert colors[:3] == ["#0072B2", "#D55E00", "#009E73"]
