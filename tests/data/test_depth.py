"""Images of more than 8 bits: one scale for a data set, and nothing comes out black that was not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_folder import own_cache  # noqa: F401 (a fixture)

from alkit.data import decode, load_dataset
from alkit.data.depth import Scale, Span, scales_of

SIDE = 6


def png(path: Path, values: np.ndarray) -> None:
    """A 16-bit PNG of (H, W, C) values, which Pillow cannot write in colour."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def tiff(path: Path, values: np.ndarray, order: str) -> None:
    """A 16-bit RGB TIFF of (H, W, 3) values, in either byte order."""
    height, width, _ = values.shape
    content = values.astype(f"{order}u2").tobytes()
    bits = 8 + 2 + 12 * 9 + 4
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, bits + 6), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(content))]  # fmt: skip
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        out += struct.pack(f"{order}HHI", tag, kind, count)
        out += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    path.write_bytes(out + struct.pack(f"{order}IHHH", 0, 16, 16, 16) + content)


def grey_png(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint16)).save(path.with_suffix(".png"))


def int_tiff(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.int32)).save(path.with_suffix(".tif"))


def float_tiff(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.float32)).save(path.with_suffix(".tif"))


def folder_of(root: Path, save: Callable[[Path, np.ndarray], None], images: list[np.ndarray]) -> Path:
    """The images as a folder of two classes by turns, for training; the first two again for the test."""
    for number, values in enumerate([*images, *images[:2]]):
        part = "train" if number < len(images) else "test"
        place = root / part / ("ant", "bee")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        save(place / f"{number}.png", values)
    return root


def gradient(largest: float, smallest: float = 0) -> np.ndarray:
    return np.linspace(smallest, largest, SIDE * SIDE).reshape(SIDE, SIDE)


@pytest.mark.parametrize("save", [grey_png, int_tiff])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_whole_numbers_of_any_depth_keep_their_upper_8_bits_in_every_image(
    tmp_path: Path, save: Callable[[Path, np.ndarray], None], bits: int
) -> None:
    bright, dark = np.floor(gradient(2**bits - 1)), np.floor(gradient((2**bits - 1) / 8))
    train, test = load_dataset("folder", folder_of(tmp_path / "set", save, [bright, dark, dark, bright]))
    assert train.shape == (1, SIDE, SIDE)
    found = train.images[:, 0].numpy()  # ant: 0 and 2, bee: 1 and 3
    for image, values in zip(found, [bright, dark, dark, bright], strict=True):
        assert np.array_equal(image, values.astype(int) >> (bits - 8))
    assert found.max() == 255
    assert np.array_equal(test.images[0, 0].numpy(), found[0]), "training and test are on one scale"
    assert train.notes["bit_depth"] == f"{bits} bits: values 0 to {2**bits - 1:g} become 0 to 255"


def test_an_image_does_not_have_a_scale_of_its_own(tmp_path: Path) -> None:
    for save, top in ((int_tiff, 60_000), (float_tiff, 1.0), (float_tiff, 200.0)):
        half = [gradient(top), gradient(top) / 2]
        root = folder_of(tmp_path / f"{save.__name__}{top}", save, half)
        images = load_dataset("folder", root)[0].images.double()
        assert images[0].max() == pytest.approx(2 * images[1].max(), abs=2)
        assert images[0].max() > 190


@pytest.mark.parametrize(
    ("images", "white"),
    [
        ([gradient(1.0), gradient(0.2)], (0.0, 1.0)), ([gradient(200.0), gradient(0.5)], (0.0, 255.0)),
        ([gradient(4000.0), gradient(3.0)], (0.0, 4095.0)), ([gradient(1.0, -1.0), gradient(0.5)], (-1.0, 1.0)),
        ([gradient(3000.0, -1000.0), gradient(10.0)], (-1000.0, 3000.0)),
    ],
)  # fmt: skip
def test_fractions_and_numbers_below_0_are_on_one_scale_too(
    tmp_path: Path, images: list[np.ndarray], white: tuple[float, float]
) -> None:
    train, _ = load_dataset("folder", folder_of(tmp_path / "set", float_tiff, images))
    low, high = white
    for found, values in zip(train.images[:, 0].numpy(), images, strict=True):
        expected = (values.astype(np.float32).astype(float) - low) / (high - low) * 255
        assert np.abs(found - expected).max() <= 0.51
    assert train.notes["bit_depth"] == f"values {low:g} to {high:g} become 0 to 255"


def test_what_is_no_number_is_black_and_does_not_change_the_scale(tmp_path: Path) -> None:
    values = gradient(0.8)
    values[0, 0], values[0, 1] = np.nan, np.inf
    train, _ = load_dataset("folder", folder_of(tmp_path / "set", float_tiff, [values, gradient(0.8)]))
    assert train.images[0, 0, 0, :2].tolist() == [0, 255]
    assert torch.equal(train.images[0, 0, 1:], train.images[1, 0, 1:])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [12, 16])
def test_12_bits_in_a_16_bit_png_are_not_black_in_any_kind_of_it(tmp_path: Path, channels: int, bits: int) -> None:
    source = np.random.default_rng(0)
    images = [source.integers(0, 2**bits, (SIDE, SIDE, channels)) for _ in range(4)]
    if channels in (2, 4):
        for values in images:
            values[..., -1] = 65535  # opaque
    images[0][0, 0, 0] = 2**bits - 1
    train, _ = load_dataset("folder", folder_of(tmp_path / "set", png, images))
    grey = channels < 3
    assert train.shape == (1 if grey else 3, SIDE, SIDE)
    by_class = [images[number] for number in (0, 2, 1, 3)]
    colours = np.stack([values[..., : 1 if grey else 3] >> (bits - 8) for values in by_class])
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), colours)
    assert f"{bits} bits" in train.notes["bit_depth"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_12_bits_in_a_16_bit_tiff_are_not_black(tmp_path: Path, order: str) -> None:
    images = [np.random.default_rng(i).integers(0, 4096, (SIDE, SIDE, 3)) for i in range(2)]
    root = folder_of(tmp_path / "set", lambda path, values: tiff(path.with_suffix(".tif"), values, order), images)
    train, _ = load_dataset("folder", root)
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), np.stack(images) >> 4)


def test_images_of_8_bits_beside_deep_ones_stay_as_they_are(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "set", grey_png, [np.floor(gradient(4095))] * 4)
    plain = np.floor(gradient(255)).astype(np.uint8)
    Image.fromarray(plain).save(root / "train" / "ant" / "0.png")
    train, _ = load_dataset("folder", root)
    assert np.array_equal(train.images[0, 0].numpy(), plain)
    assert int(train.images[1].max()) == 255


def test_without_deep_images_the_record_says_nothing_of_a_depth(tmp_path: Path) -> None:
    root = folder_of(
        tmp_path / "set", lambda path, v: Image.fromarray(v.astype(np.uint8)).save(path), [gradient(9)] * 2
    )
    assert "bit_depth" not in load_dataset("folder", root)[0].notes


def test_images_decoded_as_batches_ask_for_them_are_on_the_same_scale(tmp_path: Path) -> None:
    levels = {"ant": [4095, 2000], "bee": [500, 4000]}
    by_turns = [4095, 500, 2000, 4000]
    root = folder_of(tmp_path / "set", grey_png, [np.full((SIDE, SIDE), level) for level in by_turns])
    train, _ = load_dataset("imagenet", root, image_size=SIDE)
    assert train.notes["bit_depth"] == "12 bits: values 0 to 4095 become 0 to 255"
    expected = [level >> 4 for level in [*levels["ant"], *levels["bee"]]]
    found = next(iter(train.stream([torch.arange(4)])))
    assert [int(image.min()) for image in found] == [int(image.max()) for image in found] == expected
    draws = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    cropped = next(iter(train.stream([torch.arange(4)], "resized_crop_flip", [draws])))
    assert [int(image.max()) for image in cropped] == expected


def test_an_image_on_its_own_is_on_its_own_scale(tmp_path: Path) -> None:
    grey_png(tmp_path / "a.png", np.floor(gradient(4095)))
    assert decode.decode(tmp_path / "a.png", SIDE, 1).max() == 255
    assert decode.decode_for_batch(tmp_path / "a.png", SIDE, 1, None).max() > 200
    assert decode.look(tmp_path / "a.png") == (SIDE, SIDE, True, (0, 4095, True))


def test_a_deep_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    values = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 100
    image = Image.fromarray(values.astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    found = decode.decode(tmp_path / "a.png", SIDE, 1, scales_of([Span(0, 4095, True)]))
    assert np.array_equal(found[..., 0], np.rot90(values >> 4, -1))


def test_whole_numbers_and_fractions_have_a_scale_each() -> None:
    found = scales_of([Span(0, 3000, True), Span(0, 0.5, False), Span(2, 70, True)])
    assert found == (Scale(0, 4095, 12), Scale(0, 1))
    assert str(found) == "12 bits: values 0 to 4095 become 0 to 255; values 0 to 1 become 0 to 255"
    assert scales_of([]) == (None, None)
