"""Every data set's notebook, run on files of the right form: made-up ones where the real ones have to be downloaded."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError
from test_data_folder import fill, imagenet_like, picture, write_imagenet64
from test_data_sets import small_cifar, small_svhn, write_fashion

from alkit import notebook, plots
from alkit.data import DATASETS, load_dataset
from alkit.errors import ConfigError, DataError

FOLDER = Path(__file__).parents[2] / "notebooks" / "datasets"
FIGURES = ("classes", "samples", "counts", "profile", "augmented")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))


def run(name: str, **parameters: Any) -> dict[str, Any]:
    """The names that the notebook's cells leave, run here; under `figures` how many each drew, under `table` its table.

    Colab's cell is left out: it is IPython's language, and does nothing here.
    """
    names: dict[str, Any] = {"figures": {}}
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type != "code" or cell.id == "kit-colab":
            continue
        before = len(plt.get_fignums())
        if cell.id == "kit-statistics":
            names["table"] = eval(cell.source, names)
        else:
            exec(cell.source, names)
        names["figures"][cell.id] = len(plt.get_fignums()) - before
        if "parameters" in cell.metadata.get("tags", []):
            names |= parameters
    plt.close("all")
    return names


def small_cifar100(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A CIFAR-100 of two images a class, with checksums of its own."""
    from torchvision.datasets import CIFAR100

    base = folder / CIFAR100.base_folder
    base.mkdir(parents=True)
    data = np.random.default_rng(2).integers(0, 256, (200, 3072), dtype=np.uint8)
    part = {"data": data, "fine_labels": [i % 100 for i in range(200)]}
    sums = {}
    for name, content in {
        "train": part,
        "test": part,
        "meta": {"fine_label_names": [f"c{i}" for i in range(100)]},
    }.items():
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": sums["meta"]})
    return data


def small_caltech(root: Path) -> None:
    for name in ("BACKGROUND_Google", "accordion", "wrench"):
        place = root / "caltech101" / "101_ObjectCategories" / name
        place.mkdir(parents=True)
        for i in range(5):
            picture(i, 80 + i, 70).save(place / f"image_{i:04}.jpg")


FILES: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "digits": lambda root, patch: None,
    "two_moons": lambda root, patch: None,
    "mnist": write_fashion,
    "fashion_mnist": write_fashion,
    "svhn": small_svhn,
    "cifar10": small_cifar,
    "cifar10_step": lambda root, patch: small_cifar(root, patch, 200),
    "cifar10_lt": lambda root, patch: small_cifar(root, patch, 200),
    "cifar100": small_cifar100,
    "caltech101": lambda root, patch: small_caltech(root),
    "imagenet": lambda root, patch: imagenet_like(root),
    "imagenet64": lambda root, patch: write_imagenet64(root),
    "folder": lambda root, patch: fill(root / "photos"),
}


def test_every_data_set_has_its_notebook() -> None:
    assert set(FILES) == set(DATASETS) == {path.stem for path in FOLDER.glob("*.ipynb")}
    for path in FOLDER.glob("*.ipynb"):
        story = nbformat.read(path, as_version=4).cells[0].source
        assert story.startswith("# ")
        assert "**Augmentation.**" in story
        assert "**Files.**" in story or path.stem == "folder"


@pytest.mark.parametrize("name", list(FILES))
def test_a_data_sets_notebook_shows_its_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FILES[name](tmp_path, monkeypatch)
    root = {"folder": str(tmp_path / "photos"), "digits": None, "two_moons": None}.get(name, str(tmp_path))
    names = run(name, data_root=root)
    train = names["train"]
    assert f"{len(train):,} training and {len(names['test']):,} test images" in capsys.readouterr().out
    assert [names["figures"][f"kit-{figure}"] for figure in FIGURES] == [1] * len(FIGURES)
    table = names["table"]
    assert list(table.columns) == ["used", "recomputed", "difference"]
    assert len(table) == 2 * train.shape[0]
    if name in ("digits", "two_moons", "folder", "caltech101"):
        assert table["difference"].abs().max() == 0, "these use their own statistics"


@pytest.mark.parametrize("name", sorted(set(FILES) - {"digits", "two_moons", "folder"}))
def test_without_its_files_a_notebook_says_in_one_line_what_is_missing_and_where_it_goes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError) as caught:
        run(name, data_root=str(tmp_path / "nothing"))
    said = "".join(caught.value._render_traceback_())
    assert str(tmp_path / "nothing") in said
    assert "\n" not in said
    assert "expected" in said or "by hand" in said


def test_a_notebook_run_by_papermill_ends_in_that_line_alone(tmp_path: Path) -> None:
    with pytest.raises(PapermillExecutionError, match="imagenet64") as caught:
        papermill.execute_notebook(
            FOLDER / "imagenet64.ipynb", tmp_path / "run.ipynb", {"data_root": str(tmp_path / "imagenet64")},
            kernel_name="python3", progress_bar=False, cwd=str(tmp_path), start_timeout=300,
        )  # fmt: skip
    assert "alkit/data" not in str(caught.value), "no depths"
    ran = nbformat.read(tmp_path / "run.ipynb", as_version=4)
    (error,) = (output for cell in ran.cells for output in cell.get("outputs", []) if output.output_type == "error")
    assert len(error.traceback) == 1


def test_another_set_and_an_unknown_parameter_are_refused() -> None:
    with pytest.raises(ConfigError, match="this is the notebook of 'digits', not of 'mnist'"):
        run("digits", dataset="mnist")
    with pytest.raises(ConfigError, match="pool_sise: unknown parameter"):
        run("digits", pool_sise=3)


def test_a_studys_own_images_are_what_is_shown() -> None:
    names = run("digits", class_balance=[1.0, 0.1] * 5, augmentation="crop_flip", methods=["random"], epochs=3)
    assert names["train"].class_counts.tolist()[1] < 20
    assert names["train"].augmentation == "crop_flip"


def test_the_pictures_show_what_is_there() -> None:
    train, test = load_dataset("digits", class_balance=[1.0, 0.5] * 5)
    counts = plots.class_counts(train, test)
    assert [bar.get_height() for bar in counts.axes[0].patches] == train.class_counts.tolist()
    assert [bar.get_height() for bar in counts.axes[1].patches] == test.class_counts.tolist()
    before, pool = plots.class_profile(train).axes[0].get_lines()[:2]
    assert list(np.asarray(before.get_ydata())) == sorted(train.notes["class_counts_before"], reverse=True)
    assert list(np.asarray(pool.get_ydata())) == sorted(train.class_counts.tolist(), reverse=True)
    shown = [np.asarray(axis.images[0].get_array()) for axis in plots.augmented(train, 5).axes]
    assert all(np.array_equal(image, train.images[5, 0].numpy()) for image in shown)
    rows = plots.class_samples(train, classes=4, each=3)
    assert [axis.get_ylabel() for axis in rows.axes[::3]] == ["0", "3", "6", "9"]
    plt.close("all")


def test_augmentation_is_shown_as_training_draws_it() -> None:
    train = replace(load_dataset("digits")[0], augmentation="crop_flip")
    shown = [np.asarray(axis.images[0].get_array()) for axis in plots.augmented(train, 3, count=7).axes]
    assert np.array_equal(shown[0], train.images[3, 0].numpy())
    assert len({image.tobytes() for image in shown}) > 4
    again = [np.asarray(axis.images[0].get_array()) for axis in plots.augmented(train, 3, count=7).axes]
    assert all(np.array_equal(a, b) for a, b in zip(shown, again, strict=True))
    plt.close("all")


def test_statistics_that_are_off_show_in_the_table() -> None:
    train, _ = load_dataset("digits")
    table: pd.DataFrame = notebook.channel_table(replace(train, mean=(train.mean[0] + 0.1,)))
    assert table.loc["mean, grey", "difference"] == pytest.approx(0.1)
    assert table.loc["deviation, grey", "difference"] == 0
