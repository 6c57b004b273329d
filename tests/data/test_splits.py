"""Split folders: every usual spelling is taken, and what looks like one and is not taken is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_data_folder import fill, imagenet_like, own_cache, picture  # noqa: F401 (own_cache is a fixture)

from alkit import Experiment
from alkit.data import load_dataset, pool_facts
from alkit.data.splits import split_kind
from alkit.errors import DataError


def flat(root: Path, *names: str) -> Path:
    """Folders of images, without folders in them."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(4):
            picture(1000 + 10 * number + i).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("Training", "Testing"), ("training", "testing"),
        ("train", "Test"), ("train", "val"), ("train", "valid"), ("Train", "Validation"), ("train", "dev"),
        ("training_set", "test_set"), ("train-data", "test-data"), ("TrainSet", "TestSet"),
        ("train_images", "val_images"), ("trn", "tst"), ("train_task12", "validation"), ("train", "eval"),
    ],
)  # fmt: skip
def test_every_usual_spelling_is_taken(tmp_path: Path, train: str, test: str) -> None:
    first, second = load_dataset("folder", fill(tmp_path / "set", parts=(train, test)))
    assert first.class_names == ("ant", "bee")
    assert (len(first), len(second)) == (12, 12)
    assert "folders_not_used" not in first.notes
    plain, other = load_dataset("folder", fill(tmp_path / "plain"))
    assert (first.images == plain.images).all()
    assert (second.images == other.images).all()
    assert pool_facts(Experiment(dataset="folder", data_root=str(tmp_path / "set"))) == (12, 2)


@pytest.mark.parametrize(("validation", "test"), [("val", "test"), ("valid", "Test"), ("Validation", "testing")])
def test_a_validation_set_beside_a_test_set_is_left_aside_and_said(tmp_path: Path, validation: str, test: str) -> None:
    root = fill(tmp_path / "set", parts=("train", test, validation))
    train, tested = load_dataset("folder", root)
    assert (tested.images == load_dataset("folder", fill(tmp_path / "plain"))[1].images).all()
    assert train.notes["folders_not_used"] == [validation]


@pytest.mark.parametrize("name", ["seg_test", "test2017", "old test", "MyVal", "train_2", "train.bak"])
def test_what_looks_like_a_split_and_is_not_taken_is_refused_by_name(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "set", parts=("train", name))
    with pytest.raises(DataError, match=f"set/{name}: looks like a split"):
        load_dataset("folder", root)
    with pytest.raises(DataError, match=f"set/{name}: looks like a split"):
        pool_facts(Experiment(dataset="folder", data_root=str(root)))


@pytest.mark.parametrize("parts", [("test", "val"), ("seg_train", "seg_test"), ("Test",), ("validation", "others")])
def test_without_a_training_folder_a_split_is_not_taken_for_a_class(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="looks like a split, but there is no train/CLASS/ beside it"):
        load_dataset("folder", fill(tmp_path / "set", parts=parts))


def test_two_splits_of_a_kind_are_refused(tmp_path: Path) -> None:
    for parts in (("train", "Training", "test"), ("train", "test", "Testing"), ("train", "val", "valid")):
        root = fill(tmp_path / parts[-1] / parts[1], parts=parts)
        with pytest.raises(DataError, match=r"a split of the same kind as .* beside it; which is meant"):
            load_dataset("folder", root)


def test_images_that_are_not_in_classes_are_no_two_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train: looks like a split"):
        load_dataset("folder", flat(tmp_path, "train", "test"))


def test_a_test_set_without_classes_gives_way_to_a_validation_set_with_them(tmp_path: Path) -> None:
    root = flat(fill(tmp_path / "set", parts=("train", "val")), "test")
    train, test = load_dataset("folder", root)
    assert len(test) == 12
    assert train.notes["folders_not_used"] == ["test"]
    alone = flat(fill(tmp_path / "alone", parts=("train",)), "test")
    with pytest.raises(DataError, match="test: no images; expected test images in a folder a class"):
        load_dataset("folder", alone)


@pytest.mark.parametrize("name", ["test", "Test", "val", "holdout"])
@pytest.mark.parametrize("kind", ["file", "dead link", "link to itself"])
def test_a_test_set_that_is_no_folder_is_refused_and_not_made_of_training_images(
    tmp_path: Path, name: str, kind: str
) -> None:
    root = fill(tmp_path / "set", parts=("train",))
    held = root / name
    held.write_bytes(b"PK") if kind == "file" else held.symlink_to("nowhere" if kind == "dead link" else held)
    (root / "test.csv").touch()
    with pytest.raises(DataError, match=f"set/{name}: not a folder; expected {name}/CLASS/"):
        pool_facts(Experiment(dataset="folder", data_root=str(root)))
    held.unlink()
    assert pool_facts(Experiment(dataset="folder", data_root=str(root))) == (9, 2)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    train, _ = load_dataset("folder", flat(tmp_path, "bus", "train", "bullet train", "test tube"))
    assert train.class_names == ("bullet train", "bus", "test tube", "train")


def test_what_macs_and_file_servers_leave_is_no_class(tmp_path: Path) -> None:
    root = flat(fill(tmp_path / "set", parts=(".",)), "__MACOSX", "@eaDir", ".hidden")
    assert load_dataset("folder", root)[0].class_names == ("ant", "bee")


def test_imagenets_test_images_without_classes_are_left_aside(tmp_path: Path) -> None:
    root = flat(imagenet_like(tmp_path), "test")
    train, test = load_dataset("imagenet", root, image_size=16)
    assert (len(train), len(test)) == (10, 6)
    assert train.notes["folders_not_used"] == ["test"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("contest", None), ("latest", None), ("festival", None), ("value", None), ("ants", None), ("train", "train"),
     ("images", None), ("x-train", "alike"), ("TrainA", "alike"), ("test_split", "test")],
)  # fmt: skip
def test_only_words_count_not_letters_in_them(name: str, kind: str | None) -> None:
    assert split_kind(name) == kind
