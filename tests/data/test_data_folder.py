"""One's own folders of images, the cache of decoded sets, and pixels that are not in memory."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alkit import Experiment
from alkit.data import ImageSet, augment, cache, decode, folder, load_dataset, pool_facts
from alkit.data.pixels import FilePixels, MemmapPixels, TensorPixels, prefetched
from alkit.data.randomness import generator
from alkit.errors import ConfigError, DataError
from alkit.grid.plan_check import decode_sample


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int, width: int = 20, height: int = 20, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def fill(root: Path, count: int = 6, parts: tuple[str, ...] = ("train", "test"), **kind: Any) -> Path:
    for number, part in enumerate(parts):
        for label, name in enumerate(("ant", "bee")):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                picture(100 * number + 10 * label + i, **kind).save(place / f"{i}.png")
    return root


# --- layouts ---


@pytest.mark.parametrize("options", [{}, {"pool_size": 10}, {"class_balance": [1.0, 0.5]}], ids=str)
def test_every_image_knows_its_file_whatever_is_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    root = fill(tmp_path / "größe 猫", 12, ("a", "b"))
    (root / "a" / "ant" / "0.png").write_text("no picture")
    for images in load_dataset("folder", root, skip_broken=True, **options):
        assert images.files is not None
        assert len(images.files) == len(images)
        for index, (name, label) in enumerate(zip(images.files, images.labels, strict=True)):
            assert np.array_equal(decode.decode(root / name, 20, 3), images.images[index].permute(1, 2, 0).numpy())
            assert name.startswith(images.class_names[int(label)])


def test_a_folder_of_train_and_test_holds_its_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    train, test = load_dataset("folder", fill(tmp_path / "set"))
    assert train.class_names == ("ant", "bee")
    assert (len(train), len(test), train.shape) == (12, 12, (3, 20, 20))
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    for index, seed in ((0, 0), (7, 11)):
        assert np.array_equal(train.images[index].permute(1, 2, 0).numpy(), np.asarray(picture(seed)))
    assert np.array_equal(test.images[7].permute(1, 2, 0).numpy(), np.asarray(picture(111)))
    np.testing.assert_allclose(train.mean, (train.images.double() / 255).mean((0, 2, 3)))
    assert pool_facts(Experiment(dataset="folder", data_root=str(tmp_path / "set"))) == (12, 2)


@pytest.mark.parametrize("part", [".", "train"])
def test_one_folder_is_split_by_seed_and_by_class(tmp_path: Path, part: str) -> None:
    root = fill(tmp_path / "set", count=10, parts=(part,))
    train, test = load_dataset("folder", root)
    assert (train.class_counts.tolist(), test.class_counts.tolist()) == ([8, 8], [2, 2])
    seen = {image.numpy().tobytes() for image in train.images} | {image.numpy().tobytes() for image in test.images}
    assert len(seen) == 20
    again, other = load_dataset("folder", root)[1], load_dataset("folder", root, dataset_seed=1)[1]
    assert torch.equal(test.images, again.images)
    assert not torch.equal(test.images, other.images)
    half, _ = load_dataset("folder", root, test_fraction=0.5)
    assert len(half) == 10
    assert pool_facts(Experiment(dataset="folder", data_root=str(root), test_fraction=0.5)) == (10, 2)


def test_a_layout_that_is_not_understood_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data_root"):
        load_dataset("folder")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_dataset("folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected a folder a class"):
        load_dataset("folder", tmp_path / "empty")
    root = fill(tmp_path / "set")
    (root / "test" / "wasp").mkdir()
    with pytest.raises(DataError, match=r"test/wasp: a class without training images"):
        load_dataset("folder", root)
    (root / "train" / "wasp").mkdir()
    with pytest.raises(DataError, match=r"train/wasp: no images in this class"):
        load_dataset("folder", root)


@pytest.mark.parametrize("lack", ["no folder", "empty", "a file", "a dead link"])
def test_a_test_folder_without_a_class_of_the_training_images_is_refused_by_name(tmp_path: Path, lack: str) -> None:
    root = fill(tmp_path / "set")
    bee = root / "test" / "bee"
    shutil.rmtree(bee)
    {"no folder": lambda: None, "empty": bee.mkdir, "a file": bee.touch, "a dead link": lambda: bee.symlink_to("gone")}[
        lack
    ]()
    with pytest.raises(DataError, match=r"test/bee: no test images of this class, which .*set/train has$"):
        pool_facts(Experiment(dataset="folder", data_root=str(root)))


@pytest.mark.parametrize("target", ["/nowhere", "bee"])
def test_a_class_that_is_a_link_to_nowhere_or_itself_is_refused(tmp_path: Path, target: str) -> None:
    root = fill(tmp_path / "set", parts=(".",))
    (root / "cat").symlink_to(target if target != "bee" else root / "cat")
    with pytest.raises(DataError, match=r"set/cat: a link that leads nowhere; expected a folder"):
        folder.scan(root)
    (root / "cat").rename(root / ".cat")
    assert len(folder.scan(root).names) == 12


def test_images_without_a_label_are_no_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", parts=(".",))
    (root / "bee").rename(root / "Unlabeled")
    with pytest.raises(DataError, match=r"set/Unlabeled: images without a label are no class; move them elsewhere$"):
        folder.scan(root)


def test_hidden_files_and_what_file_managers_leave_are_no_images(tmp_path: Path) -> None:
    root = fill(tmp_path / "set")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "train" / "ant" / name).write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    assert len(load_dataset("folder", root)[0]) == 12


# --- kinds of images ---


def save_odd_images(place: Path) -> dict[str, tuple[int, int, int]]:
    """One image of every odd kind, most of them plain; the colour that each should have."""
    place.mkdir(parents=True)
    red, size = (200, 30, 40), (30, 20)
    plain = Image.new("RGB", size, red)
    plain.save(place / "rgb.png")
    plain.convert("L").save(place / "grey.png")
    plain.convert("P", palette=Image.Palette.ADAPTIVE).save(place / "palette.gif")
    plain.convert("CMYK").save(place / "cmyk.jpg", quality=95)
    plain.convert("CMYK").save(place / "cmyk.tif")
    Image.new("RGBA", size, (*red, 0)).save(place / "clear.png")
    Image.new("LA", size, (90, 255)).save(place / "grey_alpha.png")
    Image.new("1", size, 1).save(place / "bit.png")
    Image.fromarray(np.full((20, 30), 128 * 256 + 7, np.uint16)).save(place / "deep.png")
    Image.fromarray(np.full((20, 30), 0.5, np.float32)).save(place / "float.tif")
    see_through = Image.new("P", size, 0)
    see_through.putpalette([*red, 0, 0, 0])
    see_through.save(place / "palette_clear.png", transparency=0)
    plain.resize((7, 400)).save(place / "tall.WEBP", lossless=True)
    plain.resize((1, 1)).save(place / "dot.bmp")
    grey = (round(0.299 * 200 + 0.587 * 30 + 0.114 * 40),) * 3
    return {
        "rgb.png": red, "grey.png": grey, "palette.gif": red, "cmyk.jpg": red, "cmyk.tif": red,
        "clear.png": (255,) * 3, "grey_alpha.png": (90,) * 3, "bit.png": (255,) * 3, "deep.png": (128,) * 3,
        "float.tif": (128,) * 3, "palette_clear.png": (255,) * 3, "tall.WEBP": red, "dot.bmp": red,
    }  # fmt: skip


def test_every_odd_kind_of_image_keeps_its_colour(tmp_path: Path) -> None:
    colours = save_odd_images(tmp_path / "set" / "train" / "odd")
    fill(tmp_path / "other", parts=(".",))
    for part in ("train", "test"):
        (tmp_path / "set" / part).mkdir(exist_ok=True)
        (tmp_path / "set" / part / "plain").symlink_to(tmp_path / "other" / "ant")
    (tmp_path / "set" / "test" / "odd").symlink_to(tmp_path / "set" / "train" / "odd")
    train, _ = load_dataset("folder", tmp_path / "set")
    assert train.shape == (3, folder.DEFAULT_SIZE, folder.DEFAULT_SIZE)  # sizes differ, and none was asked for
    for index, name in enumerate(sorted(colours)):
        image = train.images[train.labels == 0][index].float()
        expected = torch.tensor(colours[name]).float()
        assert (image - expected[:, None, None]).abs().max() <= 3, name


def test_images_are_resized_to_their_shorter_side_and_the_centre_is_kept(tmp_path: Path) -> None:
    striped = Image.new("RGB", (90, 30), "black")
    striped.paste("white", (30, 0, 60, 30))
    striped.save(tmp_path / "a.png")
    assert (decode.decode(tmp_path / "a.png", 30, 3) == 255).all()
    assert decode.decode(tmp_path / "a.png", 10, 1).shape == (10, 10, 1)
    assert (decode.decode(tmp_path / "a.png", 10, 1)[:, 2:8] == 255).all()


@pytest.mark.parametrize("upright", [True, False])
def test_of_a_line_of_many_pixels_the_middle_is_kept_without_resizing_all(tmp_path: Path, upright: bool) -> None:
    line = Image.new("L", (1, 1_000_000), 10)
    line.paste(200, (0, 499_900, 1, 500_100))
    (line if upright else line.transpose(Image.Transpose.ROTATE_90)).save(tmp_path / "a.png", compress_level=1)
    assert (decode.decode(tmp_path / "a.png", 256, 3) == 200).all()  # all of it would be 65 thousand million pixels


def test_resizing_only_what_is_kept_gives_nearly_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(3, 71, 200).save(tmp_path / "a.png")
    whole = decode.decode(tmp_path / "a.png", 16, 3).astype(int)
    monkeypatch.setattr(decode, "_LARGEST", 0)
    assert np.abs(decode.decode(tmp_path / "a.png", 16, 3) - whole).max() <= 2


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 16, 8))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    image.save(tmp_path / "a.png", exif=exif)
    found = decode.decode(tmp_path / "a.png", 16, 1)[..., 0]
    assert (found[:, 8:] == 255).all()
    assert (found[:, :8] == 0).all()
    Image.new("RGB", (10, 30)).save(tmp_path / "b.png", exif=exif)
    assert decode.look(tmp_path / "b.png") == (30, 10, False, None)


def test_a_set_of_grey_images_has_one_channel(tmp_path: Path) -> None:
    train, _ = load_dataset("folder", fill(tmp_path / "set", mode="L", width=24))
    assert train.shape == (1, 20, 20)
    assert len(train.mean) == 1


def test_the_own_size_is_kept_only_where_all_images_share_a_small_one(tmp_path: Path) -> None:
    assert load_dataset("folder", fill(tmp_path / "a", width=40, height=28))[0].shape == (3, 28, 28)
    assert load_dataset("folder", fill(tmp_path / "b", width=300, height=300, count=2))[0].shape == (3, 64, 64)
    assert load_dataset("folder", tmp_path / "a", image_size=16)[0].shape == (3, 16, 16)


# --- broken files ---


@pytest.mark.parametrize("content", ["text", "cut", "empty", "bomb", "dead link", "link to itself", "pipe"])
def test_a_file_that_is_not_an_image_is_refused_by_name_or_skipped_and_counted(tmp_path: Path, content: str) -> None:
    root = fill(tmp_path / "set", width=60, height=60)
    bad = root / "train" / "ant" / "3.png"
    whole = bad.read_bytes()
    huge = whole[:16] + (2**20).to_bytes(4, "big") * 2 + whole[24:]  # a header of 2^40 pixels
    bytes_ = {"text": b"hello", "cut": whole[: len(whole) // 2], "empty": b"", "bomb": huge}
    if content in bytes_:
        bad.write_bytes(bytes_[content])
    else:
        bad.unlink()
        os.mkfifo(bad) if content == "pipe" else bad.symlink_to("nowhere" if content == "dead link" else bad)
    with pytest.raises(DataError, match=r"train/ant/3\.png: not an image that can be read .*skip_broken") as caught:
        load_dataset("folder", root)
    assert "\n" not in str(caught.value)
    train, test = load_dataset("folder", root, skip_broken=True)
    assert (train.class_counts.tolist(), len(test)) == ([5, 6], 12)
    assert train.notes["files_skipped"] == 1
    assert train.notes["skipped"] == ["train/ant/3.png"]
    assert np.array_equal(train.images[3].permute(1, 2, 0).numpy(), np.asarray(picture(4, 60, 60)))
    with pytest.raises(DataError, match=r"train/ant/3\.png"):  # the cache that skipping left is no excuse
        load_dataset("folder", root)


@pytest.mark.parametrize(
    ("parts", "said"), [(("train", "test"), "a training"), (("train",), "a training"), (("test",), "a test")]
)
def test_a_class_of_which_no_file_of_a_split_can_be_read_is_refused(
    tmp_path: Path, parts: tuple[str, ...], said: str
) -> None:
    root = fill(tmp_path / "set", count=2)
    for part in parts:
        for path in (root / part / "bee").iterdir():
            path.write_bytes(b"nothing")
    expected = f"set: no file of the class 'bee' can be read as {said} image$"
    with pytest.raises(DataError, match=expected):
        load_dataset("folder", root, skip_broken=True)
    with pytest.raises(DataError, match=expected):
        load_dataset("imagenet", root, skip_broken=True)
    with pytest.raises(DataError, match=expected):
        decode_sample(Experiment(dataset="folder", data_root=str(root), skip_broken=True))


def test_a_class_of_which_no_file_can_be_read_is_refused_before_a_split_is_made(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", count=2, parts=(".",))
    for path in (root / "bee").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="no file of the class 'bee' can be read as an image$"):
        load_dataset("folder", root, skip_broken=True)


LINKS = {  # where a link lies, where it leads, and the class it is said to lead into
    "a folder": ("train/ant/l", "train/bee", "bee"),
    "a folder in a later class": ("train/bee/l", "train/ant", "ant"),
    "a folder in a class": ("train/ant/l", "train/bee/sub", "bee"),
    "a file": ("train/ant/l.png", "train/bee/0.png", "bee"),
    "a file of the test images": ("train/ant/l.png", "test/bee/0.png", "bee"),
    "a folder above the test images": ("train/ant/l", "test", "ant"),
    "a class": ("train/cat", "train/bee", "bee"),
    "a class of the test images": ("test/ant", "train/bee", "bee"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_a_link_from_one_class_into_another_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    root = fill(tmp_path / "set", count=2)
    (root / "train" / "bee" / "sub").mkdir()
    picture(5).save(root / "train" / "bee" / "sub" / "s.png")
    link, target, said = LINKS[kind]
    if (root / link).exists():
        shutil.rmtree(root / link)
    (root / link).symlink_to(root / target)
    with pytest.raises(DataError, match=rf"^{root}/{link}: a link into the class '\w+'; expected") as caught:
        folder.scan(root)
    assert kind == "a folder above the test images" or f"'{said}'" in str(caught.value)


def test_links_to_one_file_or_folder_elsewhere_are_for_one_class(tmp_path: Path) -> None:
    root, other = fill(tmp_path / "set", count=2), flat_folder(tmp_path / "other")
    for part in ("train", "test"):  # a class may lie elsewhere, and a file may be linked twice in its class
        (root / part / "ant" / "l").symlink_to(other)
        (root / part / "ant" / "l.png").symlink_to(other / "0.png")
    assert len(folder.scan(root).names) == 8 + 4
    (root / "train" / "bee" / "l.png").symlink_to(other / "0.png")
    with pytest.raises(DataError, match=r"train/bee/l\.png: a link into the class 'ant'"):
        folder.scan(root)
    shutil.rmtree(root / "train" / "ant")
    shutil.rmtree(root / "test" / "ant")
    for part in ("train", "test"):
        (root / part / "ant").mkdir()
        (root / part / "ant" / "l.png").symlink_to(other / "0.png")
    with pytest.raises(DataError, match=r"train/bee/l\.png: a link into the class 'ant'"):
        folder.scan(root)


def flat_folder(place: Path) -> Path:
    place.mkdir()
    picture(1).save(place / "0.png")
    return place


def test_a_link_back_up_is_not_followed(tmp_path: Path) -> None:
    root = fill(tmp_path / "set")
    (root / "train" / "ant" / "up").symlink_to("..")
    (root / "train" / "ant" / "self").symlink_to(".")
    (root / "train" / "bee" / "more").mkdir()
    (root / "train" / "bee" / "more" / "again").symlink_to("../..")
    assert folder.scan(root).names == [f"{part}/{name}/{i}.png" for part in ("train", "test") for name in ("ant", "bee")
                                       for i in range(6)]  # fmt: skip


# --- the cache ---


def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths decoded from now on."""
    seen: list[Path] = []
    original = decode.decode

    def counting(path: Path, *how: Any) -> Any:
        seen.append(path)
        return original(path, *how)

    monkeypatch.setattr(decode, "decode", counting)
    return seen


def test_a_set_is_decoded_once_and_again_when_a_file_or_a_parameter_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = fill(tmp_path / "set"), builds(monkeypatch)
    first, _ = load_dataset("folder", root)
    assert len(seen) == 24
    again, _ = load_dataset("folder", root, pool_size=6, label_noise=0.5)
    assert len(seen) == 24
    assert len(again) == 6
    load_dataset("folder", root, image_size=10)
    assert len(seen) == 48
    picture(777).save(root / "train" / "ant" / "0.png")
    changed, _ = load_dataset("folder", root)
    assert len(seen) == 72
    assert not torch.equal(first.images[0], changed.images[0])


@pytest.mark.parametrize("harm", ["flip a bit", "cut", "no manifest", "manifest cut", "left half-written"])
def test_a_cache_that_is_not_whole_is_made_again(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    root = fill(tmp_path / "set")
    expected, _ = load_dataset("folder", root)
    (place,) = (own_cache / "decoded").glob("folder-????????????????")
    pixels, manifest = place / "pixels.bin", place / "manifest.json"
    content, state = pixels.read_bytes(), pixels.stat()
    if harm == "flip a bit":
        pixels.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        os.utime(pixels, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif harm == "cut":
        pixels.write_bytes(content[:-1])
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "manifest cut":
        manifest.write_text(manifest.read_text()[:-20])
    else:
        place.rename(place.with_name(f"{place.name}.building"))
        (place.with_name(f"{place.name}.building") / "manifest.json").unlink()
    seen = builds(monkeypatch)
    found, _ = load_dataset("folder", root)
    assert len(seen) == 24
    assert torch.equal(found.images, expected.images)
    assert pixels.read_bytes() == content
    assert len(list((own_cache / "decoded").iterdir())) == 2  # the set and its lock


def test_an_error_while_decoding_leaves_nothing_behind(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "set")

    def fail(path: Path, *how: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(decode, "decode", fail)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("folder", root)
    assert [path.suffix for path in (own_cache / "decoded").iterdir()] == [".lock"]
    assert len(load_dataset("folder", root)[0]) == 12


def test_two_processes_that_start_together_decode_once(tmp_path: Path, own_cache: Path) -> None:
    root = fill(tmp_path / "set", count=4)
    program = (
        "import sys, time\nfrom alkit.data import decode, load_dataset\n"
        "original, seen = decode.decode, []\n"
        "def slow(*args, **kwargs):\n    seen.append(1); time.sleep(0.02)\n    return original(*args, **kwargs)\n"
        "decode.decode = slow\ntrain, _ = load_dataset('folder', sys.argv[1])\n"
        "print(len(seen), int(train.images.long().sum()))"
    )
    command = [sys.executable, "-c", program, str(root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].split() for process in running]
    assert sorted(int(count) for count, _ in answers) == [0, 16]
    assert answers[0][1] == answers[1][1]


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="the cache cannot be written"):
        load_dataset("folder", fill(tmp_path / "set"))


def test_a_disk_without_room_is_noticed_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("alkit.data.cache.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="are free"):
        load_dataset("folder", fill(tmp_path / "set"))


# --- pixels that are not in memory ---


def test_a_set_too_large_for_memory_stays_mapped_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "set", count=30)
    small, _ = load_dataset("folder", root)
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 0)
    large, _ = load_dataset("folder", root)
    assert isinstance(small.pixels, TensorPixels)
    assert isinstance(large.pixels, MemmapPixels)
    assert torch.equal(small.images, large.images)
    assert small.mean == large.mean
    indices = torch.tensor([59, 3, 3, 0, 41])
    draws = augment.draw("crop_flip", 5, generator(0, "d"))
    assert draws is not None
    assert torch.equal(small.take(indices), large.take(indices))
    batches, drawn = indices.split(2), draws.split(2)
    for ours, theirs in zip(
        small.stream(batches, "crop_flip", drawn), large.stream(batches, "crop_flip", drawn), strict=True
    ):
        assert torch.equal(ours, theirs)
    part = torch.tensor([7, 2, 50])
    assert torch.equal(small.select(part).select(part[:1] - 7).images, large.select(part).select(part[:1] - 7).images)


def test_a_batch_is_asked_for_in_whole_runs_and_neighbours_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shape = tmp_path / "pixels.bin", (500, 64, 64, 3)
    content = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content.tofile(path)
    asked: list[tuple[int, int]] = []

    class Watched(mmap.mmap):
        def madvise(self, option: int, *place: int) -> None:
            if place:
                assert option == mmap.MADV_WILLNEED
                asked.append((place[0], place[0] + place[1]))
            super().madvise(option, *place)

    monkeypatch.setattr("mmap.mmap", Watched)
    data = MemmapPixels(path, shape)
    rows = torch.tensor([490, 7, 8, 9, 100, 7, 499])
    found = data.take(rows).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, content[rows.numpy()])
    one, page = 64 * 64 * 3, mmap.PAGESIZE
    runs = [(7, 10), (100, 101), (490, 491), (499, 500)]
    assert asked == [(first * one // page * page, last * one) for first, last in runs]
    assert data.take(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 64, 64)


class SlowPixels(TensorPixels):
    """Takes longer over early batches than over late ones, and fails where asked to."""

    def take(self, indices: torch.Tensor, crops: torch.Tensor | None = None) -> torch.Tensor:
        first = int(indices[0])
        threading.Event().wait(0.02 if first % 2 == 0 else 0)
        if first == 8:
            raise DataError("8.png: broken")
        taken.append(first)
        return super().take(indices)


taken: list[int] = []


def test_batches_prepared_ahead_come_in_order_and_an_error_comes_in_its_turn() -> None:
    taken.clear()
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    batches = torch.arange(20).split(1)
    stream = prefetched(SlowPixels(images, prefetch=3), batches, [None] * 20)
    received: list[int] = []
    with pytest.raises(DataError, match=r"8\.png: broken"):
        received.extend(int(batch) for batch in stream)
    assert received == list(range(8))
    assert max(taken) <= 8 + 4  # no further ahead than asked for


def test_a_consumer_that_stops_early_stops_the_threads() -> None:
    taken.clear()
    images = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1)
    before = threading.active_count()
    stream = prefetched(SlowPixels(images, prefetch=2), torch.arange(8).split(1), [None] * 8)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(taken) < 8


# --- ImageNet ---


def imagenet_like(root: Path, train: str = "train", val: str = "val") -> Path:
    for part, count in ((train, 5), (val, 3)):
        for name in ("n01", "n02"):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                picture(i, 90 + 10 * i, 70).resize((300, 240)).save(place / f"{name}_{i}.JPEG", quality=95)
    return root


@pytest.mark.parametrize("names", [("train", "val"), ("train_task12", "validation")])
@pytest.mark.parametrize("below", [".", "imagenet"])
def test_imagenet_is_decoded_from_either_layout(tmp_path: Path, names: tuple[str, str], below: str) -> None:
    imagenet_like(tmp_path / below, *names)
    train, test = load_dataset("imagenet", tmp_path, image_size=28)
    assert isinstance(train.pixels, FilePixels)
    assert (len(train), len(test), train.shape, train.augmentation) == (10, 6, (3, 28, 28), "resized_crop_flip")
    assert train.class_names == ("n01", "n02")
    assert train.mean == (0.485, 0.456, 0.406)
    assert load_dataset("imagenet", tmp_path)[0].shape == (3, 224, 224)
    assert pool_facts(Experiment(dataset="imagenet", data_root=str(tmp_path))) == (10, 2)


def test_imagenet_is_evaluated_on_resize_256_and_centre_crop_224(tmp_path: Path) -> None:
    from torchvision import transforms

    imagenet_like(tmp_path)
    path = tmp_path / "val" / "n01" / "n01_1.JPEG"
    with Image.open(path) as image:
        usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
        expected = usual(image.convert("RGB")).int()
    _, test = load_dataset("imagenet", tmp_path)
    found = test.take(torch.tensor([1]))[0].int()
    assert found.shape == (3, 224, 224)
    assert (found - expected).abs().float().mean() < 1.0


def test_imagenets_crops_follow_the_draws_and_nothing_else(tmp_path: Path) -> None:
    imagenet_like(tmp_path)
    train, _ = load_dataset("imagenet", tmp_path, image_size=24)
    indices = torch.tensor([4, 0, 9, 4])
    draws = augment.draw("resized_crop_flip", 4, generator(0, "d"))
    assert draws is not None
    whole = torch.cat(list(train.stream([indices], "resized_crop_flip", [draws])))
    single = torch.cat(list(train.stream(indices.split(1), "resized_crop_flip", draws.split(1))))
    assert torch.equal(whole, single)
    assert not torch.equal(whole[0], whole[3])
    plain = torch.cat(list(train.stream([indices])))
    assert torch.equal(plain[0], plain[3])
    padded = torch.cat(list(train.stream([indices], "crop_flip", [draws])))
    assert torch.equal(padded, augment.crop_flip(plain, draws))


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop(tmp_path: Path) -> None:
    picture(0, 50, 40).save(tmp_path / "a.png")
    plain, mirrored = (
        decode.decode_for_batch(tmp_path / "a.png", 20, 3, [0.3, 0.6, flip, 0.4, 0.7]) for flip in (0.9, 0.1)
    )
    assert np.array_equal(plain[:, ::-1], mirrored)


def test_a_broken_file_of_imagenet_is_named_when_its_turn_comes_or_skipped_before(tmp_path: Path) -> None:
    imagenet_like(tmp_path)
    (tmp_path / "train" / "n02" / "n02_1.JPEG").write_bytes(b"nothing")
    train, _ = load_dataset("imagenet", tmp_path, image_size=16)
    with pytest.raises(DataError, match=r"n02_1\.JPEG: not an image"):
        list(train.stream(torch.arange(10).split(2)))
    train, _ = load_dataset("imagenet", tmp_path, image_size=16, skip_broken=True)
    assert train.class_counts.tolist() == [5, 4]
    assert train.notes["skipped"] == ["train/n02/n02_1.JPEG"]
    assert len(list(train.stream(torch.arange(9).split(2)))) == 5


def test_validation_images_that_are_not_sorted_into_classes_are_explained(tmp_path: Path) -> None:
    imagenet_like(tmp_path, val="elsewhere")
    with pytest.raises(DataError, match="sorted into folders of their classes"):
        load_dataset("imagenet", tmp_path)


@pytest.mark.parametrize("name", ["imagenet", "imagenet64"])
def test_where_imagenet_is_not_the_error_says_what_should_lie_there(tmp_path: Path, name: str) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=rf"{root}: no {name} here; expected .*train_task12/.*data_root") as caught:
            load_dataset(name, root)
        assert ("train_data_batch_1.npz" in str(caught.value)) is (name == "imagenet64")
        assert "\n" not in str(caught.value)


def write_imagenet64(root: Path, per_part: int = 4) -> np.ndarray:
    root.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (11 * per_part, 3 * 64 * 64), dtype=np.uint8)
    for part in range(11):
        rows = slice(part * per_part, (part + 1) * per_part)
        name = "val_data.npz" if part == 10 else f"train_data_batch_{part + 1}.npz"
        save = np.savez if part % 2 else np.savez_compressed
        save(root / name, data=images[rows], labels=np.arange(rows.start, rows.stop) % 1000 + 1, mean=np.zeros(12288))
    return images.reshape(-1, 3, 64, 64)


def test_imagenet64_is_unpacked_once_from_its_npz_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 0)
    images = write_imagenet64(tmp_path / "imagenet64")
    train, test = load_dataset("imagenet64", tmp_path)
    assert isinstance(train.pixels, MemmapPixels)
    assert train.num_classes == 1000
    assert train.labels.tolist() == list(range(40))
    assert np.array_equal(train.images.numpy(), images[:40])
    assert np.array_equal(test.images.numpy(), images[40:])
    assert pool_facts(Experiment(dataset="imagenet64", data_root=str(tmp_path))) == (40, 1000)
    with pytest.raises(ConfigError, match="image_size: imagenet64"):
        load_dataset("imagenet64", tmp_path, image_size=32)


def test_imagenet64_names_the_file_that_is_missing_cut_or_a_pickle(tmp_path: Path) -> None:
    write_imagenet64(tmp_path)
    part = tmp_path / "train_data_batch_4.npz"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"train_data_batch_4\.npz: cannot be read"):
        load_dataset("imagenet64", tmp_path)
    np.savez(part, data=np.zeros((4, 5), np.uint8), labels=np.ones(4))
    with pytest.raises(DataError, match=r"train_data_batch_4\.npz: expected 'data' of bytes"):
        load_dataset("imagenet64", tmp_path)
    np.savez(part, data=np.zeros((4, 12288), np.uint8), labels=np.array([object()] * 4))
    with pytest.raises(DataError, match=r"train_data_batch_4\.npz: cannot be read"):
        load_dataset("imagenet64", tmp_path)
    part.unlink()
    with pytest.raises(DataError, match=r"train_data_batch_4\.npz: missing"):
        load_dataset("imagenet64", tmp_path)
    assert zipfile.is_zipfile(tmp_path / "val_data.npz")


def test_caltech101_leaves_out_its_background_class(tmp_path: Path) -> None:
    for name in ("BACKGROUND_Google", "accordion", "wrench"):
        place = tmp_path / "caltech101" / "101_ObjectCategories" / name
        place.mkdir(parents=True)
        for i in range(5):
            picture(i, 80 + i, 70).save(place / f"image_{i:04}.jpg")
    train, test = load_dataset("caltech101", tmp_path)
    assert train.class_names == ("accordion", "wrench")
    assert (len(train), len(test), train.shape) == (8, 2, (3, 64, 64))


def test_a_set_of_every_kind_goes_through_the_same_calls(tmp_path: Path) -> None:
    imagenet_like(tmp_path / "a")
    sets: list[ImageSet] = [load_dataset("imagenet", tmp_path / "a", image_size=32)[0], load_dataset("digits")[0]]
    for data in sets:
        moved = data.to("cpu")
        images = next(iter(moved.stream([torch.arange(3)])))
        assert moved.normalise(images).shape == (3, *data.shape)
        assert len(moved.select(torch.tensor([1, 2]))) == 2
