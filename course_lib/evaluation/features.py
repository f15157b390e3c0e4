r"""What metrics of images look at: not pixels, but the features of a network that classifies the same kind of images.

Two images of one digit can differ in most pixels, and be near in features. FID is named after one such network,
Inception, trained on photographs; for small grey digits a small classifier of the same digits says more. A figure is
comparable only with figures from the same features, so name the network beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.data import Batches, LabelledImages
from course_lib.nn import ConvEncoder
from course_lib.train import Checkpoint, fit, minimize

__all__ = ["Classifier", "in_batches", "inception", "train_classifier"]


class Classifier(nn.Module):
    r"""A small convolutional classifier of images whose last hidden layer is the features.

    .. math:: h = f(x), \qquad \text{logits} = W \operatorname{silu}(h) + b

    Args:
        shape: Shape (C, H, W) of the images; H and W must be multiples of 4.
        classes: Number of classes.
        features: Number of features D.

    Example:
        >>> classifier = Classifier((1, 8, 8), classes=10)
        >>> x = torch.zeros(5, 1, 8, 8)
        >>> classifier.features(x).shape, classifier(x).shape
        (torch.Size([5, 64]), torch.Size([5, 10]))
    """

    def __init__(self, shape: Sequence[int], *, classes: int, features: int = 64) -> None:
        super().__init__()
        self.features = ConvEncoder(shape, features)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes, (B, C, H, W) -> (B, classes)."""
        return self.head(F.silu(self.features(x)))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of the batch in nats, a scalar."""
        return F.cross_entropy(self(x), y)


def train_classifier(
    data: LabelledImages, *, path: str | Path | None = None, steps: int = 600, batch_size: int = 128, seed: int = 0
) -> Classifier:
    r"""Train the classifier that makes the features, or load it if it was trained before.

    Training is deterministic on one machine: the same data and seed give the same features. It takes seconds on the
    digits and a minute on MNIST.

    Args:
        data: Labelled training images. Judge models on other images: the classifier knows these by heart.
        path: Checkpoint file to load, or to write if it is missing; kept nowhere when omitted.
        steps: Training steps.
        batch_size: Images in a batch.
        seed: Chooses initial weights and batches; the global random state is left as it was.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        ValueError: If labels are missing, or there are not as many as images.
        CheckpointError: If the file is broken, or holds another network.

    Example:
        >>> from course_lib.data import images
        >>> test = images("digits", split="test")
        >>> classifier = train_classifier(images("digits"), steps=150)
        >>> bool((classifier(test.x).argmax(1) == test.y).float().mean() > 0.9)
        True
    """
    x, y = data
    if y is None or y.shape != x.shape[:1] or y.is_floating_point():
        found = "none" if y is None else f"shape {tuple(y.shape)} and type {y.dtype}"
        raise ValueError(f"expected one whole number as the label of each of {len(x)} images, got {found}")
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        classifier = Classifier(x.shape[1:], classes=int(y.max()) + 1).to(x.device)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        step = minimize(classifier.loss, optimizer, schedule=schedule)
        hooks, history = [], None
        if path is not None:
            checkpoint = Checkpoint(path, every=steps, model=classifier)
            hooks, history = [checkpoint], checkpoint.restore()
        fit(step, Batches(x, y, batch_size=batch_size, seed=seed), steps, history=history, hooks=hooks)
    return classifier.eval().requires_grad_(False)


def inception() -> Callable[[Tensor], Tensor]:
    r"""The features that FID is named after: Inception v3, trained on ImageNet, if its weights are on this disk.

    Nothing is downloaded. The weights are torchvision's own; those of the original FID code differ a little, and so do
    the figures.

    Returns:
        Maps images, shape (B, 1 or 3, H, W) in [0, 1], to features, shape (B, 2048).

    Raises:
        FileNotFoundError: If the weights are not there; the message says where they should be.
        RuntimeError: If torchvision is missing or does not fit PyTorch.

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision* (2016).

    Example:
        >>> features = inception()  # doctest: +SKIP
        >>> features(torch.rand(2, 1, 28, 28)).shape  # doctest: +SKIP
        torch.Size([2, 2048])
    """
    try:
        from torchvision.models import Inception_V3_Weights, inception_v3
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(f"Inception needs a torchvision that fits torch {torch.__version__}: {error}") from error
    weights = Inception_V3_Weights.IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not file.is_file():
        raise FileNotFoundError(f"the weights of Inception are not at {file}; get them from {weights.url}")
    network = inception_v3(weights=None, init_weights=False, transform_input=True)
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network.fc = nn.Identity()
    network.eval().requires_grad_(False)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def features(x: Tensor) -> Tensor:
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False, antialias=True)
        return network((x.expand(-1, 3, -1, -1) - mean) / std)

    return features


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, *, batch_size: int = 500) -> Tensor:
    r"""Apply a function to some rows at a time, so that memory does not grow with the number of rows.

    Args:
        function: Maps (B, \*event) to (B, \*out).
        x: Shape (N, \*event).
        batch_size: Number of rows for one call.

    Returns:
        Shape (N, \*out), without a graph.

    Example:
        >>> in_batches(lambda x: x.sum(1), torch.ones(1001, 3)).shape
        torch.Size([1001])
    """
    return torch.cat([function(batch) for batch in x.split(batch_size)])
