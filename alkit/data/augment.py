"""Augmentation of whole batches on the device.

The random numbers of an epoch are drawn at once, from an explicit generator (`draw`), and applied batch by batch
(`apply`), so what an image looks like does not depend on workers or on what ran before.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alkit.data.crop import AREA, ASPECT, TRIES, fallback

PADDING = 4


def draw(kind: str, count: int, generator: torch.Generator) -> Tensor | None:
    """Uniform numbers (count, k) in 0..1 that decide the augmentation of `count` images; None for `none`.

    Columns: row offset, column offset, flip, and area and aspect: two unused ones, or for random-resized crops those of
    ten tries.
    """
    if kind == "none":
        return None
    tries = TRIES if kind == "resized_crop_flip" else 1
    return torch.rand(count, 3 + 2 * tries, generator=generator, device=generator.device)


def apply(images: Tensor, kind: str, draws: Tensor) -> Tensor:
    """uint8 images (B, C, H, W), each cropped and flipped as its row of `draws` (B, k) says."""
    if kind in ("crop_flip", "crop"):
        return crop_flip(images, draws, flip=kind == "crop_flip")
    if kind == "resized_crop_flip":
        return resized_crop_flip(images, draws)
    if kind == "none":
        return images
    raise ValueError(f"no augmentation '{kind}'")


def crop_flip(images: Tensor, draws: Tensor, flip: bool = True, padding: int = PADDING) -> Tensor:
    """Pad with black, crop each image back at its own place and mirror half of them (RandomCrop and flip).

    Returns channels-last memory. A row of a crop is one run of bytes in the padded batch, and a mirrored one a run in
    the mirrored batch beside it, so the crops are copied row by row, with no arithmetic on pixels.
    """
    count, channels, height, width = images.shape
    tall, wide, places = height + 2 * padding, width + 2 * padding, 2 * padding + 1
    rows = images.permute(0, 2, 3, 1)
    both = [rows, rows.flip(2)] if flip else [rows]
    padded = F.pad(torch.stack(both), (0, 0, padding, padding, padding, padding))  # (1 or 2, B, tall, wide, C)
    offsets = (draws[:, :2] * places).long().clamp_(max=places - 1)
    image = torch.arange(count, device=images.device)
    if flip:
        # a window of the mirrored batch is the mirror image of the window as far from the other side
        mirror = draws[:, 2] < 0.5
        image = image + count * mirror
        left = torch.where(mirror, places - 1 - offsets[:, 1], offsets[:, 1])
    else:
        left = offsets[:, 1]
    row = torch.arange(height, device=images.device)
    start = ((image * tall + offsets[:, 0])[:, None] + row) * wide + left[:, None]
    runs = padded.as_strided((len(both) * count * tall * wide - width + 1, width * channels), (channels, 1))
    cropped = runs.index_select(0, start.flatten())
    return cropped.view(count, height, width, channels).permute(0, 3, 1, 2)


def resized_crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Crop 8% to 100% of the area at an aspect of 3/4 to 4/3, resize back, mirror half (RandomResizedCrop)."""
    height, width = images.shape[2:]
    left, top, across, down = (part.float() for part in crop_boxes(width, height, draws))
    centre_x, centre_y = (2 * left + across) / width - 1, (2 * top + down) / height - 1
    sign = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(sign)
    rows = [[sign * (across / width), zero, centre_x], [zero, down / height, centre_y]]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, [len(images), images.shape[1], height, width], align_corners=False)
    sampled = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return sampled.round_().clamp_(0, 255).to(torch.uint8)


def crop_boxes(width: int, height: int, draws: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, width and height, each (B,) whole pixels, of the random-resized crops of `draws` (B, 3 + 2k).

    torchvision's rule: of k tries of area and aspect the first that fits, at a place drawn; where none fits the largest
    centred box within the aspects. `crop.crop_box` is the same for one image.
    """
    numbers = draws.double()
    area = (AREA[0] + (AREA[1] - AREA[0]) * numbers[:, 3::2]) * (width * height)
    aspect = torch.exp((2 * numbers[:, 4::2] - 1) * math.log(ASPECT))
    across, down = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (across > 0) & (across <= width) & (down > 0) & (down <= height)
    failed = (fits.cumsum(1) == 0).sum(1, keepdim=True)
    chosen, found = failed.clamp(max=fits.shape[1] - 1), failed[:, 0] < fits.shape[1]
    wide, tall = fallback(width, height)
    across = torch.where(found, across.gather(1, chosen)[:, 0], float(wide))
    down = torch.where(found, down.gather(1, chosen)[:, 0], float(tall))
    top = torch.where(found, place(numbers[:, 0], height - down), float((height - tall) // 2))
    left = torch.where(found, place(numbers[:, 1], width - across), float((width - wide) // 2))
    return left, top, across, down


def place(uniform: Tensor, room: Tensor) -> Tensor:
    """A whole number from 0 to `room`, each as likely, for each number in 0..1."""
    return torch.minimum((uniform * (room + 1)).floor(), room)


def resize_centre(images: Tensor, size: int) -> Tensor:
    """uint8 images (N, C, H, W) with their shorter side resized to `size` (bilinear, antialiased), centre-cropped."""
    height, width = images.shape[2:]
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    blocks = []
    for block in images.split(4096):  # in blocks: the float copy is four times the size
        resized = F.interpolate(block.float(), target, mode="bilinear", antialias=True, align_corners=False)
        blocks.append(resized[:, :, top : top + size, left : left + size].round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(blocks)
