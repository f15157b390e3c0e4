r"""Gated PixelCNN: an autoregressive model of images, pixel by pixel in reading order.

.. math:: p(x) = \prod_{i=1}^{H} \prod_{j=1}^{W} p(x_{ij} \mid \text{rows above } i,\ \text{pixels left of } j)

Two stacks of convolutions share the work. The *vertical* stack sees all rows above, the *horizontal* stack the pixels
to the left in the same row, and takes in the vertical one. One stack of raster-masked convolutions would have a blind
spot to the upper right. Here no kernel needs a mask: images are shifted down or right by one pixel before they enter a
stack, and padded only on the sides that may be seen.

Grey levels are discrete, so :math:`\log p` is a log-probability, to be compared in bits/dim with other discrete models
at the same number of levels. Fewer levels make a smaller, faster model: see :func:`coarsen`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.nn import Levels

__all__ = ["GatedLayer", "GatedPixelCNN", "coarsen"]


class GatedLayer(nn.Module):
    r"""One layer of both stacks, with :math:`y = \tanh(a) \odot \sigma(b)` as its activation.

    A layer with kernel size k sees (k - 1) / 2 rows up and columns left, and in rows above as many columns right.
    """

    def __init__(self, channels: int, *, kernel_size: int) -> None:
        super().__init__()
        k = kernel_size // 2
        self.above = nn.Sequential(nn.ZeroPad2d((k, k, k, 0)), nn.Conv2d(channels, 2 * channels, (k + 1, 2 * k + 1)))
        self.left = nn.Sequential(nn.ZeroPad2d((k, 0, 0, 0)), nn.Conv2d(channels, 2 * channels, (1, k + 1)))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)  # from the vertical stack to the horizontal
        self.out = nn.Conv2d(channels, channels, 1)

    def vertical(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The vertical stack's next features (B, C, H, W), and what it tells the horizontal one (B, 2 C, H, W)."""
        raw = self.above(v)
        return _gate(raw), self.across(raw)

    def horizontal(self, h: Tensor, told: Tensor) -> Tensor:
        """The horizontal stack's next features, (B, C, H, W)."""
        return h + self.out(_gate(self.left(h) + told))


class GatedPixelCNN(nn.Module):
    r"""An exact discrete density of grey images.

    Args:
        shape: Shape (1, H, W) of the images.
        distribution: What the outputs stand for: :class:`course_lib.nn.CategoricalLevels` or
            :class:`course_lib.nn.LogisticLevels`.
        channels: Channels C of either stack.
        layers: Number of gated layers. The receptive field reaches about layers * (kernel_size - 1) / 2 pixels.
        kernel_size: Size of the kernels, odd.

    Raises:
        ValueError: If the images are not grey, the kernel size is even, or there are fewer than 2 levels.

    Reference:
        Van den Oord et al., *Conditional Image Generation with PixelCNN Decoders* (2016), section 2 and figure 2.

    Example:
        >>> from course_lib.nn import CategoricalLevels
        >>> model = GatedPixelCNN((1, 8, 8), CategoricalLevels(17), channels=8, layers=2)
        >>> x = model.sample(3)
        >>> x.shape, model.log_prob(x).shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3]))
    """

    def __init__(
        self, shape: Sequence[int], distribution: Levels, *, channels: int = 32, layers: int = 5, kernel_size: int = 5
    ) -> None:
        super().__init__()
        if len(shape) != 3 or shape[0] != 1 or kernel_size % 2 == 0 or distribution.levels < 2:
            got = f"got {tuple(shape)}, {kernel_size} and {distribution.levels}"
            raise ValueError(f"expected images of shape (1, H, W), an odd kernel size and at least 2 levels, {got}")
        self.shape, self.distribution = tuple(shape), distribution
        self.enter_vertical, self.enter_horizontal = nn.Conv2d(2, channels, 1), nn.Conv2d(2, channels, 1)
        self.layers = nn.ModuleList(GatedLayer(channels, kernel_size=kernel_size) for _ in range(layers))
        outputs = nn.Conv2d(channels, distribution.channels, 1)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Parameters of each pixel's distribution given the pixels before it, (B, 1, H, W) -> (B, P, H, W)."""
        return self._horizontal(x, self._vertical(x))

    def _vertical(self, x: Tensor) -> list[Tensor]:
        v, told = self.enter_vertical(_shifted(x, down=1, right=0)), []
        for layer in self.layers:
            v, message = layer.vertical(v)
            told.append(message)
        return told

    def _horizontal(self, x: Tensor, told: list[Tensor]) -> Tensor:
        h = self.enter_horizontal(_shifted(x, down=0, right=1))
        for layer, message in zip(self.layers, told, strict=True):
            h = layer.horizontal(h, message)
        return self.head(h)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-probability in nats, summed over pixels, (B, 1, H, W) -> (B,)."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"expected x of shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        scaled = x[:, 0] * (self.distribution.levels - 1)  # (B, H, W)
        level = scaled.round().long()
        on_a_level = ((scaled - level).abs() < 1e-3) & (x[:, 0] >= 0) & (x[:, 0] <= 1)
        if not on_a_level.all():
            wrong = x[:, 0][~on_a_level][0].item()
            raise ValueError(f"expected values on {self.distribution.levels} levels (see coarsen), got {wrong:g}")
        return self.distribution.log_prob(self(x), level).flatten(1).sum(1)

    def loss(self, x: Tensor) -> Tensor:
        """Mean negative log-probability of the batch in nats per image, a scalar."""
        return -self.log_prob(x).mean()

    def sample(self, n: int, *, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
        """Draw ``n`` images, shape (n, 1, H, W); for the temperature and ``top_k`` see :meth:`complete`."""
        blank = next(self.parameters()).new_zeros(n, *self.shape)
        return self.complete(blank, rows=0, temperature=temperature, top_k=top_k)

    @torch.no_grad()
    def complete(self, x: Tensor, *, rows: int, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
        r"""Draw the lower rows given the upper ones.

        The vertical stack runs once a row, the horizontal one once a pixel on a strip one pixel high. All together
        that is less work than H passes over the image, where the plain way takes H W.

        Args:
            x: Images whose first ``rows`` rows are kept, shape (B, 1, H, W). The others are not looked at.
            rows: Number of known rows, 0 to H.
            temperature: T: level l is drawn with probability proportional to :math:`p(l)^{1/T}`.
            top_k: Draw from this many most likely levels only; from all when omitted.

        Returns:
            Completed images, shape (B, 1, H, W).

        Raises:
            ValueError: If an argument has the wrong shape or is out of range.
        """
        _, height, width = self.shape
        top_k = self.distribution.levels if top_k is None else top_k
        if x.shape[1:] != self.shape or not (0 <= rows <= height and temperature > 0 and top_k >= 1):
            expected = f"x of shape (B, 1, {height}, {width}), rows from 0 to {height}, temperature > 0 and top_k >= 1"
            raise ValueError(f"expected {expected}; got {tuple(x.shape)}, {rows}, {temperature} and {top_k}")
        x = torch.cat([x[:, :, :rows], torch.zeros_like(x[:, :, rows:])], dim=2)
        for i in range(rows, height):
            told = [message[:, :, i : i + 1] for message in self._vertical(x)]
            for j in range(width):
                strip = x[:, :, i : i + 1, : j + 1]
                parameters = self._horizontal(strip, [message[..., : j + 1] for message in told])[..., -1:]
                x[:, 0, i, j] = self._draw(parameters, temperature, top_k)
        return x

    def _draw(self, parameters: Tensor, temperature: float, top_k: int) -> Tensor:
        """One grey value in [0, 1] for each row of ``parameters``, (B, P, 1, 1) -> (B,)."""
        n, levels = len(parameters), self.distribution.levels
        every_level = torch.arange(levels, device=parameters.device).expand(n, 1, levels)
        log_prob = self.distribution.log_prob(parameters.expand(-1, -1, 1, levels), every_level)[:, 0]  # (B, L)
        best, level = (log_prob / temperature).topk(min(top_k, levels), dim=1)
        return level.gather(1, best.softmax(1).multinomial(1))[:, 0] / (levels - 1)


def coarsen(x: Tensor, *, levels: int) -> Tensor:
    r"""Round grey values in [0, 1] down to L levels, each of which takes an equal share of the interval.

    .. math:: y = \frac{\min(\lfloor L x \rfloor, L - 1)}{L - 1}

    Args:
        x: Grey values in [0, 1], any shape.
        levels: Number of levels L, at least 2.

    Returns:
        Values 0, 1/(L-1), ..., 1, of the same shape.

    Raises:
        ValueError: If ``levels`` is less than 2, or ``x`` lies outside [0, 1].

    Example:
        >>> coarsen(torch.tensor([0.0, 0.49, 0.51, 1.0]), levels=2)
        tensor([0., 0., 1., 1.])
    """
    if levels < 2 or not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"expected at least 2 levels and x in [0, 1], got {levels} and {x.min():g} to {x.max():g}")
    return (x * levels).floor().clamp(max=levels - 1) / (levels - 1)


def _gate(ab: Tensor) -> Tensor:
    return ab[:, : ab.shape[1] // 2].tanh() * ab[:, ab.shape[1] // 2 :].sigmoid()


def _shifted(x: Tensor, *, down: int, right: int) -> Tensor:
    """The image moved down or right, with a second channel that is 1 inside it, 0 outside: (B, 2, H, W)."""
    marked = torch.cat([x, torch.ones_like(x)], dim=1)
    return F.pad(marked, (right, 0, down, 0))[:, :, : x.shape[2], : x.shape[3]]
