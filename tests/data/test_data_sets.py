"""Named data sets: what they hold, the steps that unbalance and shrink them, what is said when a file is missing."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import make_known

from alkit import Experiment
from alkit.config import DATA_OPTIONS
from alkit.data import (
    DATASETS,
    ImageSet,
    cifar,
    from_arrays,
    imbalance,
    load_dataset,
    load_for,
    pool_facts,
    torchvision_sets,
)
from alkit.data.imageset import channel_statistics
from alkit.data.registry import prepare, set_options
from alkit.data.synthetic import moon_points, render, two_moons
from alkit.data.torchvision_sets import read_idx
from alkit.errors import ConfigError, DataError

NAMES = {
    "digits", "mnist", "fashion_mnist", "svhn", "cifar10", "cifar100", "cifar10_step", "cifar10_lt", "caltech101",
    "imagenet", "imagenet64", "two_moons", "folder",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion(
    folder: Path, patch: pytest.MonkeyPatch, zipped: str = ".gz", count: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """Idx files of `count` + `count` images, as which MNIST and Fashion-MNIST are known in this test."""
    source = np.random.default_rng(0)
    images, labels = source.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte{zipped}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{zipped}", labels)
    for known in (torchvision_sets.MNIST_SHA256, torchvision_sets.FASHION_MNIST_SHA256):
        make_known(patch, known, training=(images, labels), test=(images, labels))
    return images, labels


# --- the registry ---


def test_the_registry_holds_every_data_set_of_the_kit() -> None:
    assert set(DATASETS) == NAMES
    for name, entry in DATASETS.items():
        assert entry.name == name
        assert entry.title
        assert entry.source


@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [
        ("digits", 1437, 10), ("mnist", 60_000, 10), ("fashion_mnist", 60_000, 10), ("svhn", 73_257, 10),
        ("cifar10", 50_000, 10), ("cifar100", 50_000, 100), ("cifar10_step", 25_250, 10), ("cifar10_lt", 12_406, 10),
        ("two_moons", 2000, 2),
    ],
)  # fmt: skip
def test_the_pool_of_a_known_set_is_known_without_its_files(name: str, size: int, classes: int) -> None:
    assert pool_facts(Experiment(dataset=name)) == (size, classes)
    assert (DATASETS[name].train_size, DATASETS[name].num_classes) == (size, classes)


def test_the_experiments_data_fields_and_the_loaders_options_are_the_same() -> None:
    assert set(Experiment().data_options()) == set(DATA_OPTIONS) <= set(Experiment.model_fields)


def test_an_unknown_set_or_option_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no data set 'cifar11'; did you mean 'cifar10'"):
        load_dataset("cifar11")
    with pytest.raises(ConfigError, match="pool_sze: unknown data option; did you mean 'pool_size'"):
        load_dataset("digits", pool_sze=3)
    with pytest.raises(ConfigError, match="epochs: unknown data option"):
        load_dataset("digits", epochs=3)
    with pytest.raises(ConfigError, match="label_noise"):
        load_dataset("digits", label_noise=2.0)


@pytest.mark.parametrize("name", ["digits", "two_moons"])
def test_a_set_that_needs_no_files_is_as_its_entry_says(name: str) -> None:
    train, test = load_dataset(name)
    entry = DATASETS[name]
    assert (len(train), len(test), train.shape) == (entry.train_size, entry.test_size, entry.shape)
    assert tuple(train.class_counts.tolist()) == entry.class_counts
    assert channel_statistics(train.images) == (train.mean, train.std) == (test.mean, test.std)
    again, _ = load_dataset(name)
    assert torch.equal(train.images, again.images)
    other, _ = load_dataset(name, dataset_seed=1)
    assert not torch.equal(train.images, other.images)


def test_no_digit_is_both_for_training_and_for_the_test() -> None:
    train, test = load_dataset("digits")
    seen = {image.numpy().tobytes() for image in train.images}
    assert not [image for image in test.images if image.numpy().tobytes() in seen]


def test_the_pictures_of_the_moons_hold_their_points() -> None:
    points, labels = two_moons(500, 0, "train")
    assert np.abs(moon_points(render(points)) - points).max() < 0.02
    train, _ = load_dataset("two_moons")
    first = train.take(torch.arange(500)).numpy()
    assert torch.equal(train.labels[:500], torch.from_numpy(two_moons(2000, 0, "train")[1][:500]))
    # a nearest-neighbour vote on the points separates the moons, so the pictures can be learned from
    found = moon_points(first)
    distance = ((found[:, None] - found[None]) ** 2).sum(2) + 1e9 * np.eye(500)
    assert (labels[distance.argmin(1)] == labels).mean() > 0.97


# --- files ---


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_idx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: str, place: str
) -> None:
    images, labels = write_fashion(tmp_path / place, monkeypatch, zipped)
    train, test = load_dataset("fashion_mnist", tmp_path)
    for part in (train, test):
        assert np.array_equal(part.images[:, 0].numpy(), images)
        assert np.array_equal(part.labels.numpy(), labels)
    assert train.augmentation == "crop_flip"
    assert train.class_names[7] == "Sneaker"


def test_without_a_folder_fashion_mnist_is_also_read_where_debian_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion(tmp_path / "debian", monkeypatch)
    monkeypatch.setattr("alkit.data.torchvision_sets.DEBIAN_FASHION", tmp_path / "debian")
    assert len(load_dataset("fashion_mnist")[0]) == 40


@pytest.mark.parametrize("harm", ["cut", "not gzip", "not idx", "empty"])
def test_a_broken_idx_file_is_named_with_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None, harm: str
) -> None:
    write_fashion(tmp_path, monkeypatch)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(
        {
            "cut": gzip.compress(content[:-3]), "not gzip": b"hello", "not idx": gzip.compress(b"hello" + content),
            "empty": b"",
        }[harm]
    )  # fmt: skip
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: .*25c81989df183df01b3e8a0aad5dffbe") as caught:
        load_dataset("fashion_mnist", tmp_path)
    assert "\n" not in str(caught.value)


def test_labels_that_do_not_fit_the_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path, monkeypatch)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.full(40, 11))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: does not fit its images"):
        load_dataset("fashion_mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "md5"),
    [
        ("mnist", "train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("fashion_mnist", "train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("cifar10", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        ("cifar10_step", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
        ("cifar100", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        ("svhn", "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("caltech101", "caltech-101.zip", "3138e1922a9193bfa496528edbbc45d0"),
    ],
)
def test_without_network_the_error_says_what_to_put_where(
    tmp_path: Path, no_network: None, name: str, file: str, md5: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(name, tmp_path / "data")
    message = str(caught.value)
    assert file in message
    assert md5 in message
    assert str(tmp_path / "data") in message
    assert "no network" in message
    assert "\n" not in message


def test_idx_files_of_any_rank_are_read(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / "a", array)
    assert np.array_equal(read_idx(tmp_path / "a"), array)


def small_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 50) -> np.ndarray:
    """A CIFAR-10 of `count` images a batch, with checksums of its own."""
    from torchvision.datasets import CIFAR10

    source = np.random.default_rng(1)
    base = folder / CIFAR10.base_folder
    base.mkdir(parents=True)
    data = source.integers(0, 256, (count, 3072), dtype=np.uint8)
    contents = {f"data_batch_{i}": {"data": data, "labels": [j % 10 for j in range(count)]} for i in range(1, 6)}
    contents |= {"test_batch": contents["data_batch_1"]}
    sums = {}
    for name, content in contents.items():
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    known_as_cifar10(monkeypatch, cifar_pixels(data), np.arange(count) % 10)
    return data


def cifar_pixels(rows: np.ndarray) -> np.ndarray:
    """Images (n, 32, 32, 3) of rows that hold one colour after the other."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def known_as_cifar10(patch: pytest.MonkeyPatch, batch: np.ndarray, labels: np.ndarray) -> None:
    """Let CIFAR-10 be this batch five times for training and once for the test."""
    five = (np.concatenate([batch] * 5), np.concatenate([labels] * 5))
    make_known(patch, cifar.SHA256, training=five, test=(batch, labels))
    for name in ("cifar10_step", "cifar10_lt"):
        patch.setitem(DATASETS, name, replace(DATASETS[name], pool_sha256=None))


def test_cifar10_and_its_unbalanced_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_cifar(tmp_path, monkeypatch, 1000)
    train, test = load_dataset("cifar10", tmp_path)
    assert np.array_equal(train.images[:1000].numpy(), data.reshape(-1, 3, 32, 32))
    assert (len(train), len(test), train.mean) == (5000, 1000, (0.4914, 0.4822, 0.4465))
    step, whole = load_dataset("cifar10_step", tmp_path)
    assert step.class_counts.tolist() == [5, 500] * 5
    assert step.notes["class_counts_before"] == [500] * 10
    assert len(whole) == 1000
    long_tail, _ = load_dataset("cifar10_lt", tmp_path)
    assert long_tail.class_counts.tolist() == imbalance.exponential_counts([500] * 10, 100)
    milder, _ = load_dataset("cifar10_lt", tmp_path, imbalance_factor=10.0)
    assert milder.class_counts.tolist() == imbalance.exponential_counts([500] * 10, 10)
    assert step.name == "cifar10_step"


def test_cifar10_step_keeps_the_first_images_of_a_rare_class_as_oo4als_program_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_cifar(tmp_path, monkeypatch, 1000)
    whole, _ = load_dataset("cifar10", tmp_path)
    pixels, targets = whole.images.numpy(), whole.labels.numpy()
    class_idxs = [np.where(targets == i)[0] for i in range(10)]
    kept = np.sort(np.hstack([rows[:count] for rows, count in zip(class_idxs, [5, 500] * 5, strict=True)]))
    for seed in (0, 1):
        step, _ = load_dataset("cifar10_step", tmp_path, dataset_seed=seed)
        assert np.array_equal(step.images.numpy(), pixels[kept])
        assert np.array_equal(step.labels.numpy(), targets[kept])
    part, _ = load_dataset("cifar10_step", tmp_path, pool_size=1010)  # a part of these images, drawn
    assert part.class_counts.tolist() == [2, 200] * 5
    assert {row.tobytes() for row in part.images.numpy()} < {row.tobytes() for row in pixels[kept]}
    own, _ = load_dataset("cifar10_step", tmp_path, class_balance=[0.01, 1.0] * 5)  # somebody's own balance is drawn
    assert own.class_counts.tolist() == [5, 500] * 5
    assert not np.array_equal(own.images.numpy(), pixels[kept])


def test_a_broken_cifar_file_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    small_cifar(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"data_batch_3: is broken .*c58f30108f718f92721af3b95e74349a"):
        load_dataset("cifar10", tmp_path)


def small_svhn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An SVHN of 20 + 20 images, with checksums of its own."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    parts = {}
    for part in ("train", "test"):
        savemat(folder / f"{part}_32x32.mat", {"X": images, "y": (np.arange(20) % 10 + 1)[:, None]})
        md5 = hashlib.md5((folder / f"{part}_32x32.mat").read_bytes()).hexdigest()
        parts[part] = ["http://nowhere/x", f"{part}_32x32.mat", md5]
    monkeypatch.setattr(SVHN, "split_list", parts)
    return images


def test_svhn_is_read_with_zero_as_class_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = small_svhn(tmp_path, monkeypatch)
    train, _ = load_dataset("svhn", tmp_path)
    assert np.array_equal(train.images[3].numpy(), images[..., 3].transpose(2, 0, 1))
    assert train.labels.tolist()[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert train.augmentation == "crop"  # a mirrored number is another one


# --- unbalancing, shrinking, mislabelling ---


def test_the_exponential_profile_is_the_usual_one() -> None:
    assert imbalance.exponential_counts([5000] * 10, 100) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert imbalance.exponential_counts([500] * 100, 1) == [500] * 100
    assert imbalance.exponential_counts([3, 3], 1000) == [3, 1]


def test_stratified_counts_add_up_and_stay_within_one_of_their_share() -> None:
    counts = [7, 1, 13, 29, 50]
    for total in range(sum(counts) + 1):
        kept = imbalance.stratified_counts(counts, total)
        assert sum(kept) == total
        assert all(abs(k - n * total / 100) < 1 and k <= n for k, n in zip(kept, counts, strict=True))


def test_a_larger_part_holds_the_smaller_one() -> None:
    labels = np.arange(100) % 4
    small, large = (set(imbalance.choose(labels, [n] * 4, 0, "pool")) for n in (5, 9))
    assert small < large
    assert set(imbalance.choose(labels, [5] * 4, 1, "pool")) != small


def test_the_pool_is_a_stratified_part_and_the_test_set_its_own() -> None:
    options: dict[str, Any] = {"pool_size": 200, "test_size": 50, "label_noise": 0.25, "class_balance": [1.0, 0.5] * 5}
    train, test = load_dataset("digits", **options)
    full, full_test = load_dataset("digits")
    assert (len(train), len(test)) == (200, 50)
    assert pool_facts(Experiment(dataset="digits", **options)) == (200, 10)
    clean, same_test = load_dataset("digits", **(options | {"label_noise": 0.0}))
    assert torch.equal(test.labels, same_test.labels)
    assert torch.equal(train.images, clean.images)
    changed = int((train.labels != clean.labels).sum())
    assert 30 <= changed <= 50
    assert train.notes["labels_replaced"] == 50
    assert train.notes["labels_changed"] == changed
    assert train.notes["class_counts"] == clean.class_counts.tolist()
    known = {image.numpy().tobytes(): int(label) for image, label in zip(full.images, full.labels, strict=True)}
    assert all(known[image.numpy().tobytes()] == label for image, label in zip(clean.images, clean.labels, strict=True))
    assert set(full.notes) == {"verified"}
    assert len(full_test) == 360


def test_an_unbalanced_and_smaller_test_set_is_drawn_uniformly() -> None:
    images = from_arrays("one", np.arange(100, dtype=np.uint8)[:, None, None, None], np.zeros(100, int), ["a"])
    wanted = {"test_class_balance": [0.5], "test_size": 10}
    options = set_options(Experiment(**wanted))[1]
    kept = np.zeros(100)
    for seed in range(1000):
        _, test = prepare(images, images, options | {"dataset_seed": seed})
        kept[test.images[:, 0, 0, 0].numpy()] += 1
    assert kept.sum() == 10_000
    spread = (1000 * 0.1 * 0.9) ** 0.5  # of a binomial count: five of them are never seen
    assert np.abs(kept - 100).max() < 5 * spread


def test_the_test_set_is_unbalanced_by_a_profile_of_its_own() -> None:
    whole, all_test = load_dataset("digits")
    train, test = load_dataset("digits", test_class_balance=[1.0, 0.5] * 5)
    before = all_test.class_counts.tolist()
    assert test.class_counts.tolist() == imbalance.balanced_counts(before, [1.0, 0.5] * 5)
    assert torch.equal(train.labels, whole.labels)
    small = load_dataset("digits", test_class_balance=[1.0, 0.01] * 5, test_size=50)[1]
    assert len(small) == 50
    assert small.class_counts[1] <= 1
    with pytest.raises(ConfigError, match="test_class_balance: expected 10 fractions"):
        load_dataset("digits", test_class_balance=[1.0])


def test_label_noise_draws_from_all_classes_and_by_seed_alone() -> None:
    labels = np.zeros(10_000, np.int64)
    noisy, chosen = imbalance.replace_labels(labels, 0.1, 10, 3)
    assert len(chosen) == 1000 == len(set(chosen))
    assert (noisy[np.setdiff1d(np.arange(10_000), chosen)] == 0).all()
    assert np.abs(np.bincount(noisy[chosen], minlength=10) - 100).max() < 45
    assert np.array_equal(noisy, imbalance.replace_labels(labels, 0.1, 10, 3)[0])
    assert not labels.any()


def test_what_the_images_cannot_give_is_refused() -> None:
    for options, message in [
        ({"pool_size": 5000}, "pool_size: 5000 is larger than the 1437"),
        ({"test_size": 5000}, "test_size: 5000 is larger than the 360"),
        ({"class_balance": [1.0, 1.0]}, "class_balance: expected 10 fractions"),
        ({"class_balance": [2.0] * 10}, "class_balance: expected fractions of at most 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_dataset("digits", **options)
    with pytest.raises(ConfigError, match="pool_size: 5000"):
        pool_facts(Experiment(dataset="digits", pool_size=5000))


def test_a_split_by_class_leaves_every_class_in_training() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2])
    train, test = imbalance.split(labels, 0.2, 3, 0)
    assert sorted([*train, *test]) == list(range(54))
    assert set(labels[train]) == {0, 1, 2}
    assert abs(len(test) - 0.2 * 54) <= 1


def test_image_size_resizes_both_parts() -> None:
    train, test = load_dataset("digits", image_size=12)
    assert train.shape == test.shape == (1, 12, 12)


def test_an_experiment_and_its_options_load_the_same_images(tiny: Any) -> None:
    train, test = load_for(tiny())
    same, _ = load_dataset("digits", pool_size=200, test_size=60)
    assert torch.equal(train.images, same.images)
    assert len(test) == 60


# --- ImageSet ---


def test_channel_statistics_are_those_of_the_definition() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 5, 4), dtype=np.uint8)
    mean, std = channel_statistics(torch.from_numpy(images))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-12)


def test_batches_hold_the_images_asked_for_in_their_order() -> None:
    images = torch.arange(60, dtype=torch.uint8).view(20, 3, 1, 1).expand(20, 3, 2, 2)
    data: ImageSet = from_arrays("x", images, torch.arange(20) % 2, ["a", "b"])
    part = data.select(torch.tensor([5, 3, 19]))
    assert part.labels.tolist() == [1, 1, 1]
    batches = [torch.tensor([2, 0]), torch.tensor([1])]
    found = list(part.stream(batches))
    assert torch.equal(torch.cat(found), images[[19, 5, 3]])


# --- arrays of one's own ---------------------------------------------------------------------------------------------

OWN = np.zeros((4, 3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (OWN / 255, [0, 1, 0, 1], "images: expected uint8 (N, C, H, W) with values 0..255, not float64 (4, 3, 8, 8)"),
        (OWN.astype(np.int16), [0, 1, 0, 1], "images: expected uint8"),
        (OWN[0], [0, 1, 0], "images: expected uint8 (N, C, H, W) with values 0..255, not uint8 (3, 8, 8)"),
        ([["a"]], [0], "images: expected uint8 (N, C, H, W) with values 0..255, not list"),
        (OWN.transpose(0, 2, 3, 1), [0, 1, 0, 1], "images: expected (N, C, H, W), not (4, 8, 8, 3) with the channels"),
        (OWN, [0, 1, 0], "labels: expected 4, one an image, not 3"),
        (OWN, [0, 1, 0, 2], "labels: expected 0 to 1 with 2 class names, not 0 to 2"),
        (OWN, [0, 1, 0, -1], "labels: expected 0 to 1 with 2 class names, not -1 to 1"),
        (OWN, [0, 1, 0, float("nan")], "labels: expected whole numbers (N,), not float32 (4,)"),
        (OWN, [0, 1, 0, 0.5], "labels: expected whole numbers (N,), not float32 (4,)"),
        (OWN, np.eye(4), "labels: expected whole numbers (N,), not float64 (4, 4)"),
        (OWN, ["a", "b", "a", "b"], "labels: expected whole numbers (N,)"),
        (OWN, [True, False, True, False], "labels: expected whole numbers (N,), not bool (4,)"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused_in_one_line(images: Any, labels: Any, said: str) -> None:
    with pytest.raises(DataError) as error:
        from_arrays("mine", images, labels, ["a", "b"])
    assert str(error.value).startswith(said)


def test_statistics_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(DataError, match="mean: expected 3 numbers, one a channel, not 1"):
        from_arrays("mine", OWN, [0, 1, 0, 1], ["a", "b"], (0.5,), (0.5,))


def test_whole_numbers_are_labels_whatever_their_type() -> None:
    for labels in ([0, 1, 0, 1], np.array([0, 1, 0, 1], np.uint8), torch.tensor([0.0, 1.0, 0.0, 1.0])):
        assert from_arrays("mine", OWN, labels, ["a", "b"]).labels.tolist() == [0, 1, 0, 1]
