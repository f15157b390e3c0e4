r"""Data: toys whose density is known, and small images, all as tensors that are sliced where they live.

Data that fits in memory needs no ``DataLoader``: one tensor on the device, shuffled by an index, is several times
faster. And batch k depends on the seed and on k alone, so training can resume anywhere and see the same batches.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from course_lib import probability
from course_lib.probability import GaussianMixture

__all__ = ["IMAGES", "TOYS", "Batches", "DataError", "Draws", "LabelledImages", "images", "toy"]


class DataError(RuntimeError):
    """Data is missing, broken, or cannot be downloaded; the message says how to go on."""


# ---------------------------------------------------------------------------------------------------------- toys

TOYS: dict[str, Callable[[], GaussianMixture]] = {
    "ring8": probability.ring,
    "two-clusters-diagonal": lambda: probability.two_clusters(center=(2.0, 2.0), std=1.0),
    "two-clusters-antidiagonal": lambda: probability.two_clusters(center=(2.0, -2.0), std=1.0),
    "two-clusters-flat": lambda: probability.two_clusters(center=(2.0, 0.0), std=0.5),
    "tilted-gaussian": probability.tilted_gaussian,
}
"""The toy densities of the course, by name."""


def toy(name: str) -> GaussianMixture:
    """Look up a toy density by name.

    Args:
        name: One of :data:`TOYS`.

    Returns:
        The density: it can be sampled, and its log-density and score are exact.

    Raises:
        ValueError: If there is no such toy.

    Example:
        >>> toy("ring8").sample(4).shape
        torch.Size([4, 2])
    """
    if name not in TOYS:
        raise ValueError(f"no toy is called {name!r}; there are {', '.join(TOYS)}")
    return TOYS[name]()


# -------------------------------------------------------------------------------------------------------- images


class LabelledImages(NamedTuple):
    """Images ``x``, shape (N, C, H, W), float32 in [0, 1], and their labels ``y``, shape (N,), int64."""

    x: Tensor
    y: Tensor

    def to(self, device: torch.device | str) -> LabelledImages:
        """The same images on another device."""
        return LabelledImages(self.x.to(device), self.y.to(device))


def images(name: str, *, split: str = "train", root: str | Path | None = None) -> LabelledImages:
    r"""Load a set of images as two tensors.

    =================  ===========  ===============  ======  ========================================
    name               shape        train / test     levels  where it comes from
    =================  ===========  ===============  ======  ========================================
    ``digits``         1 x 8 x 8    1,437 / 360      17      inside scikit-learn: nothing to download
    ``mnist``          1 x 28 x 28  60,000 / 10,000  256     torchvision
    ``fashion-mnist``  1 x 28 x 28  60,000 / 10,000  256     torchvision
    =================  ===========  ===============  ======  ========================================

    Args:
        name: ``digits``, ``mnist`` or ``fashion-mnist``.
        split: ``train`` or ``test``.
        root: Folder that holds, or will hold, ``MNIST/raw`` and ``FashionMNIST/raw``. By default the environment
            variable ``COURSE_DATA``, else ``~/.cache/course_lib``.

    Returns:
        The images, scaled to [0, 1], and their labels.

    Raises:
        ValueError: If the name or the split is unknown.
        DataError: If files are missing and cannot be downloaded, or are broken. Nothing is replaced by other data.

    Reference:
        LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition* (1998);
        Xiao, Rasul and Vollgraf, *Fashion-MNIST* (2017).

    Example:
        >>> x, y = images("digits")
        >>> x.shape, y.shape
        (torch.Size([1437, 1, 8, 8]), torch.Size([1437]))
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if name not in IMAGES:
        raise ValueError(f"no image data is called {name!r}; there are {', '.join(IMAGES)}")
    folder = Path(root or os.environ.get("COURSE_DATA") or "~/.cache/course_lib")
    return IMAGES[name](split, folder.expanduser())  # in a notebook's %env no shell has expanded the ~


def _digits(split: str, root: Path) -> LabelledImages:
    scans = load_digits()
    x = torch.tensor(scans.images / 16, dtype=torch.float32)[:, None]  # (N, 1, 8, 8)
    train, test = train_test_split(np.arange(len(x)), test_size=360, stratify=scans.target, random_state=0)
    index = torch.as_tensor(np.sort(train if split == "train" else test))
    return LabelledImages(x[index], torch.as_tensor(scans.target)[index])


def _from_torchvision(class_name: str) -> Callable[[str, Path], LabelledImages]:
    def load(split: str, root: Path) -> LabelledImages:
        datasets = _torchvision_datasets()
        folder = root / class_name / "raw"
        files = {
            f"{prefix}-{kind}-ubyte": shape
            for prefix, count in (("train", 60_000), ("t10k", 10_000))
            for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,)))
        }
        _refuse_broken(folder, files)
        try:
            data = getattr(datasets, class_name)(str(root), train=split == "train", download=not _whole(folder, files))
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"{class_name} is not in {folder} and could not be downloaded ({reason}). Connect to the internet, "
                "or set COURSE_DATA to a folder that has it, or go on offline with embedded data: COURSE_PROFILE=quick."
            ) from error
        return LabelledImages(data.data[:, None].float() / 255, data.targets)

    return load


def _torchvision_datasets():
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        raise DataError(
            f"these images need a torchvision that fits torch {torch.__version__} ({str(error).splitlines()[0]}): "
            "pip install --force-reinstall torch torchvision"
        ) from error
    return datasets


def _whole(folder: Path, files: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in files)


def _refuse_broken(folder: Path, files: dict[str, tuple[int, ...]]) -> None:
    for path, shape in ((folder / name, shape) for name, shape in files.items() if (folder / name).is_file()):
        # the idx format: 8 for unsigned bytes and the number of axes, the size of each axis, then the values
        header = np.array([0x800 + len(shape), *shape], dtype=">i4").tobytes()
        size, found = len(header) + math.prod(shape), path.stat().st_size
        if found != size:
            raise DataError(
                f"{path} is broken or half-downloaded: {found:,} bytes instead of {size:,}. Delete it and run again."
            )
        with path.open("rb") as file:
            if (start := file.read(len(header))) != header:
                raise DataError(
                    f"{path} is broken: it begins with {start.hex(' ', 4)} instead of {header.hex(' ', 4)}. "
                    "Delete it and run again."
                )


IMAGES: dict[str, Callable[[str, Path], LabelledImages]] = {
    "digits": _digits,
    "mnist": _from_torchvision("MNIST"),
    "fashion-mnist": _from_torchvision("FashionMNIST"),
}
"""The image sets of the course, by name; :func:`images` loads them."""


# ------------------------------------------------------------------------------------------------------- batches


class Batches:
    r"""Endless shuffled batches of tensors; batch k depends on the seed and on k alone.

    Each epoch is a new permutation. The last, incomplete batch of an epoch is left out.

    Args:
        tensors: One or several tensors of the same length N. They are not copied.
        batch_size: Number of rows B in a batch.
        seed: Chooses the permutations.

    Raises:
        TypeError: If something is not a tensor.
        ValueError: If there is no data, the lengths differ, a batch is larger than the data, a value is not finite, or
            the seed or the number of a batch is negative.

    Example:
        >>> batches = Batches(torch.arange(6), batch_size=3, seed=1)
        >>> sorted(torch.cat([batches[0], batches[1]]).tolist())  # two batches are one epoch
        [0, 1, 2, 3, 4, 5]
        >>> x, c = Batches(torch.zeros(6, 2), torch.arange(6), batch_size=3)[10]
        >>> x.shape, c.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(self, *tensors: Tensor, batch_size: int, seed: int = 0) -> None:
        if others := [type(t).__name__ for t in tensors if not isinstance(t, Tensor)]:
            raise TypeError(f"expected tensors, as in Batches(x, y, batch_size=...), got {', '.join(others)}")
        if not tensors or not len(tensors[0]):
            raise ValueError("there is no data: expected one or more tensors with at least one row each")
        lengths = [len(t) for t in tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"the tensors must have the same length, got {lengths}")
        if not 1 <= batch_size <= lengths[0]:
            raise ValueError(f"batch_size must lie between 1 and the {lengths[0]} rows of the data, got {batch_size}")
        for i, tensor in enumerate(tensors):
            _require_finite(tensor, i)
        _require_not_negative(seed=seed)
        self.tensors, self.batch_size, self.seed = tensors, batch_size, seed
        self.per_epoch = lengths[0] // batch_size
        self._epoch, self._order = None, None

    def __getitem__(self, k: int) -> Tensor | tuple[Tensor, ...]:
        """Batch k: a tensor (B, ...), or a tuple of them when there are several tensors."""
        _require_not_negative(k=k)
        epoch, i = divmod(k, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            order = torch.randperm(len(self.tensors[0]), generator=generator)
            self._order, self._epoch = order.to(self.tensors[0].device), epoch
        index = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        batch = tuple(tensor[index] for tensor in self.tensors)
        return batch if len(batch) > 1 else batch[0]


class Draws:
    r"""Endless batches drawn fresh from a known density; batch k depends on the seed and on k alone.

    With a new batch for every step there is nothing to overfit.

    Args:
        sample: Maps a number n to n samples, shape (n, \*event), from the global random state.
        batch_size: Number of rows B in a batch.
        seed: Chooses the draws.

    Raises:
        ValueError: If ``batch_size`` is less than 1, or the seed or the number of a batch is negative.

    Example:
        >>> draws = Draws(toy("ring8").sample, batch_size=4)
        >>> torch.equal(draws[7], draws[7]), torch.equal(draws[7], draws[8])
        (True, False)
    """

    def __init__(self, sample: Callable[[int], Tensor], *, batch_size: int, seed: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        _require_not_negative(seed=seed)
        self.sample, self.batch_size, self.seed = sample, batch_size, seed

    def __getitem__(self, k: int) -> Tensor:
        """Batch k, shape (B, \\*event); the global random state is left as it was."""
        _require_not_negative(k=k)
        on_gpu, seed = torch.cuda.is_available(), _mix(self.seed, k)
        with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
            # not torch.manual_seed, which notes its caller's stack for every kind of device that may still be started:
            # half a millisecond for each batch, and memory that is never given back
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                torch.cuda.manual_seed(seed)
            return self.sample(self.batch_size)


def _mix(seed: int, k: int) -> int:
    """One well-spread seed for a pair of numbers, so that seed 0, k 1 and seed 1, k 0 have nothing in common."""
    return int(np.random.SeedSequence((seed, k)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _require_not_negative(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def _require_finite(tensor: Tensor, position: int) -> None:
    if tensor.is_floating_point() and not (finite := tensor.reshape(len(tensor), -1).isfinite().all(1)).all():
        rows = (~finite).nonzero().flatten()
        raise ValueError(
            f"the data holds NaN or infinity: {len(rows)} rows of tensor {position}, the first is row {int(rows[0])}"
        )
