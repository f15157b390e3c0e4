"""Data: what is loaded, what is refused, and batches that depend on the seed and the step alone."""

import sys
import types

import numpy as np
import pytest
import torch

from course_lib import data
from course_lib.data import Batches, DataError, Draws

SIZES = {
    "train-images-idx3": 60_000,
    "train-labels-idx1": 60_000,
    "t10k-images-idx3": 10_000,
    "t10k-labels-idx1": 10_000,
}


def write_idx(folder, *, seed=0):
    """MNIST-shaped files with random content, in the format of LeCun's page."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for stem, n in SIZES.items():
        shape = (n, 28, 28) if "images" in stem else (n,)
        values = rng.integers(0, 256 if "images" in stem else 10, shape, dtype=np.uint8)
        header = np.array([0x800 + len(shape), *shape], dtype=">i4").tobytes()
        (folder / f"{stem}-ubyte").write_bytes(header + values.tobytes())
    return rng


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_idx(root / "MNIST" / "raw")
    return root


@pytest.mark.parametrize(("split", "n"), [("train", 60_000), ("test", 10_000)])
def test_mnist_files_become_tensors(mnist_root, split, n):
    x, y = data.images("mnist", split=split, root=mnist_root)
    assert x.shape == (n, 1, 28, 28) and x.dtype == torch.float32 and y.shape == (n,) and y.dtype == torch.int64
    prefix = "train" if split == "train" else "t10k"
    raw = (mnist_root / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte").read_bytes()[16:]
    first = np.frombuffer(raw[:784], dtype=np.uint8).reshape(28, 28) / 255
    np.testing.assert_allclose(x[0, 0], first, atol=1e-7)
    labels = (mnist_root / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte").read_bytes()[8:]
    assert y.tolist() == list(labels)


def test_the_folder_can_be_named_by_the_environment(mnist_root, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(mnist_root))
    assert len(data.images("mnist", split="test").x) == 10_000


def test_a_half_downloaded_file_is_named(tmp_path):
    broken = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(np.array([0x803, 60_000, 28, 28], dtype=">i4").tobytes() + bytes(1_000_000 - 16))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is broken .* 1,000,000 bytes instead of 47,040,016"):
        data.images("mnist", root=tmp_path)


@pytest.mark.parametrize("start", [bytes(8), np.array([0x801, 60_000], dtype=">i4").tobytes()])
def test_a_file_of_the_right_size_with_the_wrong_header_is_named(tmp_path, start):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(start + bytes(10_000))
    with pytest.raises(DataError, match=rf"t10k-labels.* begins with {start.hex(' ', 4)} instead of 00000801 00002710"):
        data.images("mnist", root=tmp_path)


def test_a_tilde_stands_for_the_home_folder(mnist_root, monkeypatch):
    monkeypatch.setenv("HOME", str(mnist_root.parent))
    monkeypatch.setenv("USERPROFILE", str(mnist_root.parent))
    monkeypatch.setenv("COURSE_DATA", f"~/{mnist_root.name}")
    expected = data.images("mnist", split="test", root=mnist_root).y
    assert torch.equal(data.images("mnist", split="test").y, expected)
    monkeypatch.delenv("COURSE_DATA")
    assert torch.equal(data.images("mnist", split="test", root=f"~/{mnist_root.name}").y, expected)


def test_a_failed_download_says_how_to_go_on_and_switches_to_nothing(tmp_path, monkeypatch):
    from torchvision.datasets import mnist

    def offline(*args, **kwargs):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(mnist, "download_and_extract_archive", offline)
    with pytest.raises(DataError, match=r"(?s)MNIST is not in .*COURSE_DATA.*COURSE_PROFILE=quick"):
        data.images("mnist", root=tmp_path / "new")
    with pytest.raises(DataError, match="FashionMNIST is not in"):
        data.images("fashion-mnist", root=tmp_path / "new")


def test_a_broken_torchvision_fails_only_where_it_is_needed(tmp_path, monkeypatch):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision", Broken("torchvision"))
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    with pytest.raises(DataError, match=r"nms does not exist.*pip install"):
        data.images("mnist", root=tmp_path)
    assert len(data.images("digits").x) == 1437


def test_digits_are_split_once_and_for_all():
    train, test = data.images("digits"), data.images("digits", split="test")
    assert train.x.shape == (1437, 1, 8, 8) and test.x.shape == (360, 1, 8, 8)
    assert train.x.min() == 0 and train.x.max() == 1
    assert set((train.x * 16).unique().tolist()) == set(range(17))
    shares = torch.bincount(test.y) / 360 - torch.bincount(train.y) / 1437
    assert shares.abs().max() < 0.005  # stratified
    from sklearn.datasets import load_digits

    scans = load_digits()
    everything = sorted(map(tuple, (scans.images / 16).reshape(-1, 64)))
    assert sorted(map(tuple, torch.cat([train.x, test.x]).reshape(-1, 64).tolist())) == everything
    assert torch.equal(train.x, data.images("digits").x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.images("cifar"), "no image data is called 'cifar'; there are digits, mnist, fashion-mnist"),
        (lambda: data.images("digits", split="validation"), "split must be 'train' or 'test', got 'validation'"),
        (lambda: data.toy("moons"), "no toy is called 'moons'; there are ring8"),
        (lambda: Batches(torch.zeros(0, 2), batch_size=1), "there is no data"),
        (lambda: Batches(batch_size=1), "there is no data"),
        (lambda: Batches(torch.zeros(5, 2), torch.zeros(4), batch_size=1), r"same length, got \[5, 4\]"),
        (lambda: Batches(torch.zeros(5, 2), batch_size=6), "between 1 and the 5 rows of the data, got 6"),
        (lambda: Batches(torch.zeros(5, 2), batch_size=0), "got 0"),
        (lambda: Draws(torch.randn, batch_size=0), "at least 1, got 0"),
        (lambda: Batches(torch.zeros(5, 2), batch_size=2, seed=-1), "seed must be at least 0, got -1"),
        (lambda: Batches(torch.zeros(5, 2), batch_size=2)[-3], "k must be at least 0, got -3"),
        (lambda: Draws(torch.randn, batch_size=2, seed=-4), "seed must be at least 0, got -4"),
        (lambda: Draws(torch.randn, batch_size=2)[-1], "k must be at least 0, got -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("others", "kinds"),
    [(([[1.0, 2.0]],), "list"), ((torch.zeros(3, 2), np.zeros(3)), "ndarray"), ((None, 5), "NoneType, int")],
)
def test_batches_are_made_of_tensors(others, kinds):
    with pytest.raises(TypeError, match=rf"expected tensors, as in Batches\(x, y, batch_size=...\), got {kinds}$"):
        Batches(*others, batch_size=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_is_not_finite_is_refused_with_its_row(value):
    x = torch.zeros(10, 3)
    x[7, 1] = x[8, 2] = value
    with pytest.raises(ValueError, match="2 rows of tensor 0, the first is row 7"):
        Batches(x, batch_size=2)


def test_each_epoch_is_a_new_permutation():
    batches = Batches(torch.arange(10), batch_size=3, seed=4)
    epochs = [torch.cat([batches[3 * e + i] for i in range(3)]).tolist() for e in range(4)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_batch_k_depends_on_seed_and_k_alone():
    x = torch.arange(100)
    in_order = [Batches(x, batch_size=7, seed=1)[k] for k in range(40)]
    torch.randn(5)
    batches = Batches(x, batch_size=7, seed=1)
    for k in (39, 0, 14, 13, 27, 28):
        assert torch.equal(batches[k], in_order[k])
    # seeds share nothing: epoch 1 of seed 0 is not epoch 0 of seed 1
    first = Batches(x, batch_size=100, seed=0)
    second = Batches(x, batch_size=100, seed=1)
    orders = {tuple(b[k].tolist()) for b in (first, second) for k in range(5)}
    assert len(orders) == 10


def test_rows_of_several_tensors_stay_together():
    batches = Batches(torch.arange(20), torch.arange(20) * 10, batch_size=6)
    x, y = batches[5]
    assert torch.equal(10 * x, y)


def test_draws_are_fresh_reproducible_and_leave_the_random_state_alone():
    draws = Draws(data.toy("ring8").sample, batch_size=50, seed=3)
    state = torch.get_rng_state()
    a = draws[10]
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(7)
    assert torch.equal(draws[10], a)
    assert not torch.equal(draws[11], a)
    assert not torch.equal(Draws(data.toy("ring8").sample, batch_size=50, seed=4)[10], a)


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_sample_what_they_say(name):
    p = data.toy(name)
    x = p.sample(50_000)
    torch.testing.assert_close(x.mean(0), p.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), p.covariance, atol=0.12, rtol=0.03)
