r"""Figures: arrays in, Axes out. The only module that imports matplotlib.

Colours are those of Okabe and Ito, which readers with any colour vision can tell apart; where there are more classes
than colours, classes carry a direct label as well. Call :func:`use_style` once (``notebook.setup`` does).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = [
    "COLORS",
    "arrows",
    "contours",
    "curves",
    "grid_points",
    "histograms",
    "image_rows",
    "label_map",
    "png",
    "points",
    "subplots",
    "use_style",
]

Array = np.ndarray | Tensor | Sequence[float]

COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "amber": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#6B6B6B",
    "black": "#000000",
}
"""The palette of Okabe and Ito (2008), by name, in the order in which curves use it."""


def use_style() -> None:
    """Set the course's figure style for this session: sizes, colours, white background, room for labels.

    Example:
        >>> use_style()
        >>> rcParams["figure.facecolor"]
        'white'
    """
    rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=list(COLORS.values())),
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.labelsize": 10,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 10,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "image.cmap": "gray_r",
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.facecolor": "white",
        }
    )


def subplots(rows: int = 1, columns: int = 1, *, width: float = 7.2, height: float = 3.0) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of axes.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        width: Width of the figure in inches; 7.2 fills the page.
        height: Height of the figure in inches.

    Returns:
        The figure and its axes in reading order, shape (rows * columns,).

    Example:
        >>> figure, axes = subplots(2, 3)
        >>> axes.shape
        (6,)
    """
    # A Figure of its own, unknown to pyplot: nothing is shown twice, and nothing has to be closed.
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def png(figure: Figure, *, dpi: int = 144) -> bytes:
    """Render a figure; the same figure gives the same bytes.

    Args:
        figure: The figure.
        dpi: Dots per inch.

    Returns:
        A PNG image.

    Example:
        >>> png(Figure())[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def image_rows(ax: Axes, rows: Mapping[str, Array], *, title: str = "", limits: tuple[float, float] = (0, 1)) -> Axes:
    """Draw rows of images, one named row below the other.

    Args:
        ax: Where to draw.
        rows: Images by the name of their row, each of shape (N, H, W) or (N, 1, H, W), with equal N.
        title: Title of the axes.
        limits: Values drawn as white and as black.

    Returns:
        The axes.

    Raises:
        ValueError: If the rows hold different numbers or sizes of images, none, or something of another shape.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = image_rows(ax, {"data": np.zeros((5, 8, 8)), "copy": np.ones((5, 1, 8, 8))})
    """
    tiles = {name: _array(x) for name, x in rows.items()}
    shapes = {name: x.shape for name, x in tiles.items()}
    if any(len(shape) != 3 and shape[1:-2] != (1,) for shape in shapes.values()):
        raise ValueError(f"expected images of shape (N, H, W) or (N, 1, H, W), got {shapes}")
    tiles = {name: x.reshape(-1, *x.shape[-2:]) for name, x in tiles.items()}
    if len({x.shape for x in tiles.values()}) != 1:
        raise ValueError(f"rows must hold equally many images of one size, got {shapes}")
    (n, height, width) = next(iter(tiles.values())).shape
    if not n:
        raise ValueError(f"there are no images: expected at least one in each row, got {shapes}")
    gap = max(1, height // 14)
    canvas = np.full((len(tiles) * (height + gap) - gap, n * (width + gap) - gap), np.nan)
    for i, row in enumerate(tiles.values()):
        for j, image in enumerate(row):
            canvas[i * (height + gap) :, j * (width + gap) :][:height, :width] = image
    ax.imshow(canvas, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_yticks([i * (height + gap) + height / 2 - 0.5 for i in range(len(tiles))], list(tiles))
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    return ax


def curves(ax: Axes, series: Mapping[str, tuple[Array, Array]], *, xlabel: str, ylabel: str, title: str = "") -> Axes:
    """Draw named curves. A curve given over several seeds is drawn as its mean with a band from minimum to maximum.

    Args:
        ax: Where to draw.
        series: For each name the x values, shape (N,), and the y values, shape (N,) or (seeds, N).
        xlabel: Label of the x axis, with its unit.
        ylabel: Label of the y axis, with its unit.
        title: Title of the axes.

    Returns:
        The axes.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = curves(ax, {"error": ([1, 2, 4], [3.0, 2.0, 1.0])}, xlabel="latent size", ylabel="error")
    """
    markers = "osD^vP*X"
    for i, (name, (x, y)) in enumerate(series.items()):
        x, y = _array(x), np.atleast_2d(_array(y))  # (N,), (seeds, N)
        marker = markers[i % len(markers)] if len(x) <= 20 else None
        (line,) = ax.plot(x, y.mean(0), marker=marker, markersize=4, label=name)
        if len(y) > 1:
            ax.fill_between(x, y.min(0), y.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    return _labelled(ax, xlabel=xlabel, ylabel=ylabel, title=title, legend=len(series) > 1)


def histograms(
    ax: Axes, samples: Mapping[str, Array], *, xlabel: str, ylabel: str = "density", title: str = "", bins: int = 50
) -> Axes:
    """Draw normalized histograms of several samples over the same bins.

    Args:
        ax: Where to draw.
        samples: Values by name, each of any shape.
        xlabel: Label of the x axis, with its unit.
        ylabel: Label of the y axis.
        title: Title of the axes.
        bins: Number of bins.

    Returns:
        The axes.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = histograms(ax, {"normal": np.random.default_rng(0).normal(size=100)}, xlabel="x")
    """
    values = {name: _array(x).ravel() for name, x in samples.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=bins)
    for name, x in values.items():
        ax.hist(x, bins=edges, density=True, alpha=0.45, label=name)
    return _labelled(ax, xlabel=xlabel, ylabel=ylabel, title=title, legend=len(samples) > 1)


def points(ax: Axes, samples: Mapping[str, Array], *, title: str = "", size: float = 4) -> Axes:
    """Draw named clouds of points in the plane.

    Args:
        ax: Where to draw.
        samples: Points by name, each of shape (N, 2).
        title: Title of the axes.
        size: Area of a marker in square points.

    Returns:
        The axes, with equal scales.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = points(ax, {"data": np.zeros((3, 2))})
    """
    for name, x in samples.items():
        ax.scatter(*_array(x).T, s=size, linewidths=0, alpha=0.7, label=name)
    ax.set_aspect("equal")
    return _labelled(ax, xlabel="$x_1$", ylabel="$x_2$", title=title, legend=len(samples) > 1)


def label_map(ax: Axes, z: Array, y: Array, *, xlabel: str, ylabel: str, title: str = "") -> Axes:
    """Draw labelled points in the plane; each class has a colour and its label at its median.

    Args:
        ax: Where to draw.
        z: Points, shape (N, 2).
        y: Labels, shape (N,).
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        title: Title of the axes.

    Returns:
        The axes.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = label_map(ax, np.zeros((4, 2)), np.arange(4), xlabel="$z_1$", ylabel="$z_2$")
    """
    z, y = _array(z), _array(y)
    palette = list(COLORS.values())
    for i, label in enumerate(np.unique(y)):
        members = z[y == label]
        ax.scatter(*members.T, s=4, linewidths=0, alpha=0.5, color=palette[i % len(palette)])
        ax.annotate(
            str(label), np.median(members, axis=0), ha="center", va="center", weight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": palette[i % len(palette)]},
        )  # fmt: skip
    return _labelled(ax, xlabel=xlabel, ylabel=ylabel, title=title)


def grid_points(extent: tuple[float, float, float, float], *, n: int = 100) -> Tensor:
    """Make the points of a regular grid in the plane.

    Args:
        extent: Limits (left, right, bottom, top).
        n: Points along each axis.

    Returns:
        Shape (n * n, 2), row by row from the bottom.

    Example:
        >>> grid_points((0, 1, 0, 1), n=2).tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    left, right, bottom, top = extent
    xs, ys = np.meshgrid(np.linspace(left, right, n), np.linspace(bottom, top, n))
    return Tensor(np.stack([xs.ravel(), ys.ravel()], axis=1))


def contours(ax: Axes, values: Array, *, extent: tuple[float, float, float, float], title: str = "") -> Axes:
    """Draw a function on the plane as filled contours.

    Args:
        ax: Where to draw.
        values: Values at the points of :func:`grid_points` with the same extent, shape (n * n,).
        extent: Limits (left, right, bottom, top).
        title: Title of the axes.

    Returns:
        The axes, with equal scales.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = contours(ax, grid_points((0, 1, 0, 1)).sum(1), extent=(0, 1, 0, 1))
    """
    values = _array(values)
    n = round(np.sqrt(values.size))
    ax.contourf(values.reshape(n, n), extent=extent, levels=12, cmap="Blues")
    ax.set_aspect("equal")
    ax.grid(False)
    return _labelled(ax, xlabel="$x_1$", ylabel="$x_2$", title=title)


def arrows(ax: Axes, at: Array, vectors: Array, *, color: str = COLORS["orange"], title: str = "") -> Axes:
    """Draw a vector field.

    Args:
        ax: Where to draw.
        at: Where the arrows start, shape (N, 2).
        vectors: The arrows, in the units of the axes, shape (N, 2).
        color: Colour of the arrows.
        title: Title of the axes; the title there is kept when omitted.

    Returns:
        The axes, with equal scales.

    Example:
        >>> _, (ax,) = subplots()
        >>> ax = arrows(ax, np.zeros((1, 2)), np.ones((1, 2)))
    """
    at, vectors = _array(at), _array(vectors)
    ax.quiver(*at.T, *vectors.T, angles="xy", scale_units="xy", scale=1, color=color, width=0.004)
    ax.set_aspect("equal")
    return _labelled(ax, xlabel="$x_1$", ylabel="$x_2$", title=title)


def _labelled(ax: Axes, *, xlabel: str, ylabel: str, title: str, legend: bool = False) -> Axes:
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if title:
        ax.set_title(title)
    if legend:
        ax.legend()
    return ax


def _array(x: Array) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
