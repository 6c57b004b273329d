"""Augmentation of whole batches: a function of the draws alone, the same as the definition image by image."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from alkit.data import augment, from_arrays
from alkit.data.crop import crop_box
from alkit.data.randomness import generator


def crop_flip_by_hand(images: Tensor, draws: Tensor, flip: bool, padding: int = 4) -> Tensor:
    """The definition: one image at a time, by slicing."""
    crops = []
    for image, row in zip(images, draws.tolist(), strict=True):
        channels, height, width = image.shape
        padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
        padded[:, padding : padding + height, padding : padding + width] = image
        top, left = (min(int(number * (2 * padding + 1)), 2 * padding) for number in row[:2])
        crop = padded[:, top : top + height, left : left + width]
        crops.append(crop.flip(2) if flip and row[2] < 0.5 else crop)
    return torch.stack(crops)


def random_images(count: int, channels: int, height: int, width: int) -> Tensor:
    source = generator(0, "images")
    return torch.randint(0, 256, (count, channels, height, width), generator=source, dtype=torch.uint8)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 8, 12), (4, 5, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_crops_and_flips_are_those_of_the_definition(
    shape: tuple[int, int, int], flip: bool, layout: torch.memory_format
) -> None:
    images = random_images(64, *shape).contiguous(memory_format=layout)
    draws = torch.rand(64, 5, generator=generator(0, "draws"))
    draws[:4, :3] = torch.tensor([[0, 0, 0], [1 - 1e-7, 1 - 1e-7, 0], [0, 1 - 1e-7, 0.5], [1.0, 1.0, 1.0]])
    found = augment.crop_flip(images, draws, flip)
    assert torch.equal(found, crop_flip_by_hand(images, draws, flip))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_every_place_of_the_crop_and_both_sides_occur_equally_often() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(81 * 2 * 50, 1, 8, 8)
    draws = augment.draw("crop_flip", len(image), generator(1, "places"))
    assert draws is not None
    crops = augment.crop_flip(image + 1, draws).flatten(1).numpy()
    _, counts = np.unique(crops, axis=0, return_counts=True)
    assert len(counts) == 81 * 2
    assert ((counts - 50) ** 2 / 50).sum() < 161 + 4 * np.sqrt(2 * 161)  # chi-square of 161 degrees of freedom


def test_what_an_image_looks_like_does_not_depend_on_its_batch() -> None:
    images, draws = random_images(10, 3, 16, 16), torch.rand(10, 5, generator=generator(0, "d"))
    for kind in ("crop_flip", "crop", "resized_crop_flip"):
        whole = augment.apply(images, kind, draws)
        parts = [augment.apply(images[i : i + 1], kind, draws[i : i + 1]) for i in range(10)]
        assert torch.equal(whole, torch.cat(parts))


def test_the_draws_follow_the_generator_alone() -> None:
    first, again, other = (augment.draw("crop_flip", 9, generator(seed, "a")) for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert augment.draw("none", 9, generator(0, "a")) is None


def test_a_resized_crop_of_a_plain_image_is_that_image() -> None:
    images = torch.full((5, 3, 12, 12), 77, dtype=torch.uint8)
    draws = torch.rand(5, 5, generator=generator(0, "r"))
    assert torch.equal(augment.resized_crop_flip(images, draws), images)


def test_a_resized_crop_of_everything_is_the_image_or_its_mirror_image() -> None:
    images = random_images(2, 3, 12, 12)
    draws = torch.tensor([[0.3, 0.7, 0.9, 1.0, 0.5], [0.3, 0.7, 0.1, 1.0, 0.5]])
    found = augment.resized_crop_flip(images, draws)
    assert torch.equal(found[0], images[0])
    assert torch.equal(found[1], images[1].flip(2))


SIZES = [(500, 375), (333, 500), (500, 500), (64, 64), (900, 300), (100, 400)]


def boxes_both_ways(width: int, height: int, draws: Tensor) -> Tensor:
    """(B, 4) left, top, width, height: of a batch, after a look that the decoding path has the same, image by image."""
    boxes = torch.stack(augment.crop_boxes(width, height, draws), 1)
    assert boxes.tolist() == [list(crop_box(width, height, row)) for row in draws.double().tolist()]
    return boxes


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_resized_crops_are_distributed_as_torchvisions_own(width: int, height: int) -> None:
    """Two samples of 4,000 boxes, ours and `RandomResizedCrop.get_params`: each side's and area's distribution."""
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    draws = augment.draw("resized_crop_flip", 4000, generator(0, "boxes", width, height))
    assert draws is not None
    ours = boxes_both_ways(width, height, draws)
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    theirs = torch.tensor([[left, top, across, down] for top, left, down, across in rows]).double()
    for column in range(4):
        assert ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 1e-4
    areas = [boxes[:, 2] * boxes[:, 3] / (width * height) for boxes in (ours, theirs)]
    assert ks_2samp(*(part.numpy() for part in areas)).pvalue > 1e-4
    assert bool((ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2] <= width).all())
    assert bool((ours[:, 1] + ours[:, 3] <= height).all())


@pytest.mark.parametrize(("width", "height", "area"), [(500, 375, 0.431), (500, 500, 0.477), (500, 333, 0.391)])
def test_resized_crops_have_the_mean_area_that_drawing_again_gives(width: int, height: int, area: float) -> None:
    """Clamped to the image, as they were once, crops of 500 × 375 had 0.517 of its area."""
    draws = augment.draw("resized_crop_flip", 40_000, generator(0, "area"))
    assert draws is not None
    _, _, across, down = augment.crop_boxes(width, height, draws)
    assert float((across * down).mean()) / (width * height) == pytest.approx(area, abs=0.005)


def test_a_crop_that_never_fits_is_the_largest_centred_box_within_the_aspects() -> None:
    """torchvision's fall-back after ten tries: an image too wide, too tall, and one whose crops are all too large."""
    draws = torch.rand(3, 23, generator=generator(0, "never"))
    draws[:, 3::2], draws[:, 4::2] = 1.0, 1.0  # the whole area at 4/3
    assert boxes_both_ways(900, 300, draws[:1]).tolist() == [[250, 0, 400, 300]]
    assert boxes_both_ways(300, 900, draws[:1]).tolist() == [[0, 250, 300, 400]]
    assert boxes_both_ways(400, 400, draws[:1]).tolist() == [[0, 0, 400, 400]]
    draws[0, [21, 22]] = torch.tensor([0.25, 0.5])  # only the tenth try fits: 0.31 of the area, square
    side = round(math.sqrt((0.08 + 0.92 * 0.25) * 400 * 400))
    assert boxes_both_ways(400, 400, draws[:1])[0, 2:].tolist() == [side, side]


def test_a_batch_is_cropped_as_its_boxes_say() -> None:
    """Where a box keeps its size nothing is interpolated: the crop's pixels are the box's own, mirrored or not."""
    images = random_images(60, 3, 16, 24)
    draws = torch.rand(60, 23, generator=generator(0, "b"))
    boxes = torch.stack(augment.crop_boxes(24, 16, draws), 1).long()
    found = augment.resized_crop_flip(images, draws)
    for image, (left, top, across, down), row, result in zip(images, boxes.tolist(), draws, found, strict=True):
        box = image[None, :, top : top + down, left : left + across].float()
        expected = F.interpolate(box, (16, 24), mode="bilinear", align_corners=False)[0]
        expected = expected.flip(2) if row[2] < 0.5 else expected
        inner = (result.float() - expected).abs()[
            :, 2:-2, 3:-3
        ]  # at its edge a box is continued by what lies beside it
        assert inner.max() <= 1


def test_resizing_keeps_the_centre_and_the_aspect() -> None:
    wide = torch.zeros(1, 1, 8, 24, dtype=torch.uint8)
    wide[..., 8:16] = 200
    assert torch.equal(augment.resize_centre(wide, 8), torch.full((1, 1, 8, 8), 200, dtype=torch.uint8))
    small = augment.resize_centre(wide, 4)
    assert small.shape == (1, 1, 4, 4)
    assert (small[..., 1:3] == 200).all()


def test_crops_work_compiled_and_on_fake_tensors() -> None:
    images, draws = random_images(6, 3, 8, 8), torch.rand(6, 5, generator=generator(0, "c"))
    compiled = torch.compile(augment.crop_flip, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images, draws), augment.crop_flip(images, draws))
    with FakeTensorMode() as mode:
        fake = augment.crop_flip(mode.from_tensor(images), mode.from_tensor(draws))
    assert fake.shape == images.shape


def test_normalised_images_have_mean_0_and_deviation_1_in_either_layout() -> None:
    images = random_images(50, 3, 9, 7)
    data = from_arrays("x", images, torch.zeros(50), ["a"])
    for layout in (torch.contiguous_format, torch.channels_last):
        found = data.normalise(images.contiguous(memory_format=layout))
        assert found.is_contiguous(memory_format=layout)
        assert found.mean((0, 2, 3)).abs().max() < 1e-5
        assert (found.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (data.mean, data.std))
        torch.testing.assert_close(found, (images / 255 - mean) / std, atol=1e-5, rtol=0)


def test_normalising_leaves_the_bytes_as_they_are_and_knows_its_own_statistics() -> None:
    images = random_images(4, 1, 6, 6)
    dark = from_arrays("x", images, torch.zeros(4), ["a"], (0.0,), (1.0,))
    light = from_arrays("x", images, torch.zeros(4), ["a"], (1.0,), (0.5,))
    before = images.clone()
    torch.testing.assert_close(dark.normalise(images), images / 255)
    torch.testing.assert_close(light.normalise(images), (images / 255 - 1) / 0.5)
    assert torch.equal(images, before)


def test_augmenting_a_batch_is_ten_times_as_fast_as_image_by_image() -> None:
    """Against Pillow's pipeline of crop, flip, array and normalisation; by a margin no busy machine closes."""
    from torchvision import transforms

    images = random_images(256, 3, 32, 32)
    data = from_arrays("x", images, torch.zeros(256), ["a"])
    draws, indices = torch.rand(256, 5, generator=generator(0, "s")), torch.arange(256)
    pipeline = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )  # fmt: skip
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]

    def fastest(function: object, times: int) -> float:
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            function()  # type: ignore[operator]
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    ours = fastest(lambda: [data.normalise(b) for b in data.stream([indices], "crop_flip", [draws])], 20)
    theirs = fastest(lambda: torch.stack([pipeline(picture) for picture in pictures]), 3)
    assert theirs / ours > 10
