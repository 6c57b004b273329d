"""The named data sets: one entry each, and the steps that make of a set what an experiment studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alkit.config import DATA_OPTIONS, Experiment
from alkit.data import cifar, folder, imagenet, imbalance, synthetic, torchvision_sets
from alkit.data.download import Archive, Package
from alkit.data.features import attach
from alkit.data.identity import Sha256, sha256_of
from alkit.data.imageset import ImageSet
from alkit.errors import ConfigError, DataError, nearest

Loader = Callable[[Path | None, dict[str, Any]], tuple[ImageSet, ImageSet]]
Counter = Callable[[Path | None, dict[str, Any]], tuple[Sequence[int], Sequence[int]]]
Shaper = Callable[[Path | None, dict[str, Any]], tuple[int, int, int]]
Files = Callable[[Path | None], list[Path]]


@dataclass(frozen=True)
class DatasetEntry:
    """One data set: how to load it, and what is known of it before it is loaded.

    `class_counts` and `test_counts` are the training and test images a class as published; `count` finds both out from
    files without decoding any, and `known` are (images, classes) where they are not listed here. `shape` is (C, H, W),
    which `look` finds out from the files' headers where it is theirs. `defaults` are data options that make the set
    what it is (the profile of `cifar10_lt`); with `first_of_class` among them its profile keeps the first images of a
    class, as a program does, where others draw. `files` finds the files that it would be read from (none where it is
    not here); `archives` and `package` are where `alkit get` has them from.

    `sha256` are the digests by which the images are known, part by part, and `pool_sha256` that of the pool which
    `defaults` and dataset_seed 0 make of them.
    """

    name: str
    title: str
    load: Loader
    home: str
    licence: str = ""
    class_counts: tuple[int, ...] | None = None
    test_counts: tuple[int, ...] | None = None
    shape: tuple[int, int, int] | None = None
    count: Counter | None = None
    look: Shaper | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    known: tuple[int, int] | None = None
    files: Files = lambda root: []
    archives: Callable[[], list[Archive]] | None = None
    package: Package | None = None
    sha256: dict[str, Sha256] = field(default_factory=dict)
    pool_sha256: Sha256 | None = None

    @property
    def source(self) -> str:
        """Where the images come from, and their licence."""
        return ", ".join(filter(None, (self.home, self.licence)))

    @property
    def num_classes(self) -> int | None:
        """None where only the files can tell."""
        return len(self.class_counts) if self.class_counts else self.known and self.known[1]

    @property
    def test_size(self) -> int | None:
        """Test images; None where only the files can tell."""
        return None if self.test_counts is None else sum(self.test_counts)

    @property
    def train_size(self) -> int | None:
        """Training images with the set's own profile; None where only the files can tell."""
        if not self.class_counts:
            return self.known and self.known[0]
        return sum(pool_counts(self.class_counts, self.defaults))


_STEP = {"class_balance": [0.01, 1.0] * 5, "first_of_class": True}  # CIFAR10im of OO4AL's data/cifar.py
_MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
_SVHN_COUNTS = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
_SVHN_TEST = (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)
_MNIST_TEST = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
_DIGITS_COUNTS = (142, 145, 142, 146, 145, 146, 145, 143, 139, 144)
_DIGITS_TEST = (36, 37, 35, 37, 36, 36, 36, 36, 35, 36)
_CIFAR_SOURCE = ("https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009)", "no licence is stated")
_CIFAR10: dict[str, Any] = {
    "test_counts": (1000,) * 10, "shape": (3, 32, 32), "files": cifar.files, "archives": cifar.archives,
    "package": cifar.PACKAGE, "sha256": cifar.SHA256,
}  # fmt: skip

_ENTRIES = [
    DatasetEntry(
        "digits", "Handwritten digits, 8×8 grey", synthetic.load_digits,
        "scikit-learn's copy of the UCI test set (Alpaydin & Kaynak, 1998)", "CC BY 4.0",
        _DIGITS_COUNTS, _DIGITS_TEST, (1, 8, 8), files=synthetic.digits_files, sha256=synthetic.DIGITS_SHA256,
    ),
    DatasetEntry(
        "mnist", "MNIST: handwritten digits, 28×28 grey", torchvision_sets.MNIST.load,
        "http://yann.lecun.com/exdb/mnist (LeCun et al., 1998)", "CC BY-SA 3.0",
        _MNIST_COUNTS, _MNIST_TEST, (1, 28, 28),
        files=torchvision_sets.MNIST.files, archives=torchvision_sets.MNIST.archives,
        sha256=torchvision_sets.MNIST_SHA256,
    ),
    DatasetEntry(
        "fashion_mnist", "Fashion-MNIST: clothes, 28×28 grey", torchvision_sets.FASHION_MNIST.load,
        "https://github.com/zalandoresearch/fashion-mnist and Debian's package dataset-fashion-mnist "
        "(Xiao et al., 2017)", "MIT",
        (6000,) * 10, (1000,) * 10, (1, 28, 28),
        files=torchvision_sets.FASHION_MNIST.files, archives=torchvision_sets.FASHION_MNIST.archives,
        sha256=torchvision_sets.FASHION_MNIST_SHA256,
    ),
    DatasetEntry(
        "svhn", "SVHN: street view house numbers, 32×32", torchvision_sets.load_svhn,
        "http://ufldl.stanford.edu/housenumbers (Netzer et al., 2011)", "non-commercial use",
        _SVHN_COUNTS, _SVHN_TEST, (3, 32, 32),
        files=torchvision_sets.svhn_files, archives=torchvision_sets.svhn_archives,
    ),
    DatasetEntry(
        "cifar10", "CIFAR-10: photographs, 32×32, 10 classes", cifar.load_cifar10, *_CIFAR_SOURCE, (5000,) * 10,
        **_CIFAR10,
    ),
    DatasetEntry(
        "cifar100", "CIFAR-100: photographs, 32×32, 100 classes", torchvision_sets.load_cifar100, *_CIFAR_SOURCE,
        (500,) * 100, (100,) * 100, (3, 32, 32),
        files=torchvision_sets.cifar100_files, archives=torchvision_sets.cifar100_archives,
    ),
    DatasetEntry(
        "cifar10_step", "CIFAR-10, 50 and 5,000 images a class in turn (OO4AL)",
        partial(cifar.load_cifar10, name="cifar10_step"), *_CIFAR_SOURCE, (5000,) * 10, defaults=_STEP,
        pool_sha256=cifar.STEP_SHA256, **_CIFAR10,
    ),
    DatasetEntry(
        "cifar10_lt", "CIFAR-10 with an exponential profile (Cui et al., 2019)",
        partial(cifar.load_cifar10, name="cifar10_lt"), *_CIFAR_SOURCE, (5000,) * 10,
        defaults={"imbalance_factor": 100.0}, pool_sha256=cifar.LONG_TAIL_SHA256, **_CIFAR10,
    ),
    DatasetEntry(
        "caltech101", "Caltech-101: photographs, 101 classes, split by seed", imagenet.load_caltech101,
        "https://data.caltech.edu/records/mzrjq-6wc02 (Fei-Fei et al., 2004)", "CC BY 4.0",
        shape=(3, imagenet.CALTECH_SIZE, imagenet.CALTECH_SIZE),
        count=partial(folder.count_files, imagenet.scan_caltech), files=imagenet.caltech_files,
        archives=imagenet.caltech_archives,
    ),
    DatasetEntry(
        "imagenet", "ImageNet (ILSVRC 2012), decoded from files at 224×224", imagenet.load_imagenet,
        "https://image-net.org (Russakovsky et al., 2015)", "non-commercial research, by registration",
        shape=(3, 224, 224), test_counts=(50,) * 1000,
        count=partial(folder.count_files, partial(imagenet.scan_imagenet, "imagenet")), known=(1_281_167, 1000),
        files=partial(imagenet.imagenet_files, "imagenet"),
    ),
    DatasetEntry(
        "imagenet64", "ImageNet at 64×64, memory-mapped", imagenet.load_imagenet64,
        "https://image-net.org/download-images (Chrabaszcz et al., 2017)", "non-commercial research, by registration",
        shape=(3, 64, 64), test_counts=(50,) * 1000, count=imagenet.count_imagenet64,
        known=(1_281_167, 1000), files=partial(imagenet.imagenet_files, "imagenet64"),
    ),
    DatasetEntry(
        "folder", "your own images: train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg", folder.load_folder,
        "yours", "", count=partial(folder.count_files, folder.scan_own), look=folder.shape_of_folder,
    ),
    DatasetEntry(
        "two_moons", "Two moons: points drawn as spots on 8×8 grey pictures", synthetic.load_two_moons,
        "made by alkit", "MIT", (1000, 1000), (500, 500), (1, 8, 8),
    ),
]  # fmt: skip

DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in _ENTRIES}


def get_entry(name: str) -> DatasetEntry:
    """The entry `name`; `ConfigError` naming the nearest one if there is none."""
    if name not in DATASETS:
        raise ConfigError(f"dataset: no data set '{name}'{nearest(name, DATASETS)} (`alkit datasets` lists them)")
    return DATASETS[name]


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> tuple[ImageSet, ImageSet]:
    """The training and test images of the data set `name`, as an experiment with these data options sees them.

    `root` is the folder that holds the files (null: `data` in the cache folder); `options` are Experiment's data
    fields. Raises `ConfigError` for an option that does not exist or fit, `DataError` for files that are missing or
    broken.
    """
    get_entry(name)
    for key in options:
        if key not in DATA_OPTIONS:
            raise ConfigError(f"{key}: unknown data option{nearest(key, DATA_OPTIONS)}")
    return load_for(Experiment(dataset=name, data_root=None if root is None else str(root), **options))


def load_for(experiment: Experiment) -> tuple[ImageSet, ImageSet]:
    """The training and test images of an experiment."""
    entry, options = set_options(experiment)
    train, test = with_features(experiment, *load_whole(experiment))
    train, test = prepare(train, test, options)
    _check_pool(entry, options, train)
    if known := certainty(entry):
        train = replace(train, notes={"verified": known, **train.notes})
    return as_released(experiment, train, test)


def load_whole(experiment: Experiment) -> tuple[ImageSet, ImageSet]:
    """The images of an experiment's set before any data option: those that a file of fixed features has rows of.

    A folder of files is decoded at the experiment's `image_size` and split by its `test_fraction` and `dataset_seed`.
    """
    entry, options = set_options(experiment)
    return entry.load(set_root(experiment), options)


def with_features(experiment: Experiment, train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The images with the experiment's fixed features, where it names some; before any data option."""
    if experiment.features is None:
        return train, test
    return attach(experiment.features, train, test)


def as_released(experiment: Experiment, train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The images as a released program sees them, under the quirks that say so."""
    if experiment.quirk("bgr_images"):
        # pictures keep their colours; the network sees each channel with the statistics of the one it was swapped with
        train, test = (replace(part, mean=part.mean[::-1], std=part.std[::-1]) for part in (train, test))
    return train, test


def _check_pool(entry: DatasetEntry, options: dict[str, Any], train: ImageSet) -> None:
    """Refuse a pool that should be the published choice of images and is not: the random numbers are other ones."""
    if entry.pool_sha256 is None or options != set_options(Experiment.model_validate({"dataset": entry.name}))[1]:
        return
    pixels = sha256_of(train.images.permute(0, 2, 3, 1).numpy())
    if Sha256(pixels, sha256_of(train.labels.numpy())) != entry.pool_sha256:
        raise DataError(
            f"{entry.name}: dataset_seed 0 draws other images here than everywhere else (SHA-256 of their pixels "
            f"{pixels}, expected {entry.pool_sha256.pixels}); does this numpy draw other numbers?"
        )


def certainty(entry: DatasetEntry) -> str:
    """How the images of a named set are known to be that set's; an empty string where there is nothing to know."""
    if entry.sha256:
        return "pixels and labels as published, by SHA-256"
    if entry.archives is not None and entry.count is None:
        return "files as published, by MD5; no digest of the pixels is known"
    return "no checksum of the images is known" if entry.shape and entry.class_counts is None else ""


def prepare(train: ImageSet, test: ImageSet, options: dict[str, Any]) -> tuple[ImageSet, ImageSet]:
    """Resize, unbalance, shrink and mislabel the pool; resize, unbalance, shrink the test set: by `dataset_seed`."""
    size, seed = options["image_size"], options["dataset_seed"]
    if size is not None:
        train, test = train.resized(size), test.resized(size)
    before = train.class_counts.tolist()
    after = pool_counts(before, options)
    notes: dict[str, Any] = dict(train.notes)
    if after != before:
        first = imbalance.balanced_counts(before, options["class_balance"]) if options["first_of_class"] else None
        train = train.select(torch.from_numpy(imbalance.choose(train.labels.numpy(), after, seed, "pool", first)))
        notes |= {"class_counts_before": before, "class_counts": after}
    if options["label_noise"]:
        labels, replaced = imbalance.replace_labels(
            train.labels.numpy(), options["label_noise"], train.num_classes, seed
        )
        notes |= {
            "labels_replaced": len(replaced),
            "labels_changed": int((labels != train.labels.numpy()).sum()),
        }
        train = replace(train, labels=torch.from_numpy(labels))
    held = test_steps(test.class_counts.tolist(), options)[-1]  # in one draw: a second would repeat its random numbers
    if held != test.class_counts.tolist():
        test = test.select(torch.from_numpy(imbalance.choose(test.labels.numpy(), held, seed, "test")))
    check_both(train.name, len(train), len(test))
    return replace(train, notes=notes), test


def test_steps(counts: Sequence[int], options: dict[str, Any]) -> list[list[int]]:
    """Test images a class: of the set, then after each data option that leaves some out."""
    return imbalance.held_out_counts(counts, options["test_class_balance"], options["test_size"])


def pool_counts(counts: Sequence[int], options: dict[str, Any]) -> list[int]:
    """Images a class in the pool, of `counts` in the set."""
    return imbalance.pool_counts(
        counts, options.get("class_balance"), options.get("imbalance_factor"), options.get("pool_size")
    )


def check_both(name: str, train: int, test: int) -> None:
    """Refuse a set without training or without test images."""
    if not train or not test:
        raise DataError(f"{name}: {train} training and {test} test images; both are needed")


def set_options(experiment: Experiment) -> tuple[DatasetEntry, dict[str, Any]]:
    """The entry, and the experiment's data options with the entry's defaults where they are not set."""
    entry = get_entry(experiment.dataset)
    return entry, profiled(experiment, entry.defaults)


def profiled(experiment: Experiment, defaults: dict[str, Any]) -> dict[str, Any]:
    """The experiment's data options with these defaults where they are not set, and `first_of_class`.

    Classes that an experiment balances itself are drawn.
    """
    if experiment.quirk("imbalance_step"):
        defaults = _STEP
        if experiment.imbalance_factor is not None:
            raise ConfigError(
                "imbalance_factor: the quirk 'imbalance_step' sets the profile of the classes; "
                "expected one of the two (quirks: {imbalance_step: false} switches it off)"
            )
    given = experiment.data_options()
    first = given["class_balance"] is None and defaults.get("first_of_class", False)
    return {key: defaults.get(key) if value is None else value for key, value in given.items()} | {
        "first_of_class": first
    }


def set_root(experiment: Experiment) -> Path | None:
    return None if experiment.data_root is None else Path(experiment.data_root)
