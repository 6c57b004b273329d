"""What a data set looks like: its images, its classes, and what augmentation makes of one image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from alkit.analysis.plots.queries import as_pictures, draw_images, draw_picture, query_grid, without_frames
from alkit.analysis.plots.style import drawing, plain
from alkit.data import ImageSet, augment
from alkit.data.randomness import generator, numpy_generator

Ints = npt.NDArray[np.int64]
_TRAIN, _TEST = "#0072B2", "#E69F00"
NAMED_CLASSES = 30
"""Up to this many classes are named on an axis."""


def class_samples(images: ImageSet, classes: int = 10, each: int = 8, seed: int = 0) -> Figure:
    """A row a class: `each` of its images, drawn by `seed`. Of more than `classes` classes some, evenly spaced."""
    labels, count = images.labels.cpu().numpy(), images.num_classes
    chosen = np.unique(np.linspace(0, count - 1, min(classes, count)).round().astype(int))
    width, height = min(7.0, 1.12 + 0.665 * each), 0.35 + 0.686 * len(chosen)
    with drawing(len(chosen), each, width=width, height=height) as (fig, axes):
        for line, label in zip(axes, chosen, strict=True):
            members = numpy_generator(seed, "samples", int(label)).permutation(np.flatnonzero(labels == label))[:each]
            draw_images(line, images, members, named=False)
            line[0].set_ylabel(plain(images.class_names[label])[:18], rotation=0, ha="right", va="center", fontsize=7.5)
        without_frames(axes)
        title = f"{images.name}: images of each class"
        if len(chosen) < count:
            title = f"{images.name}: images of {len(chosen)} of its {count:,} classes"
        fig.suptitle(plain(title))
    return fig


def class_counts(train: ImageSet, test: ImageSet) -> Figure:
    """Images a class for training and for the test, in the order of the classes."""
    counts = [part.class_counts.numpy() for part in (train, test)]
    few = train.num_classes <= NAMED_CLASSES
    with drawing(2, 1, width=7.0, height=3.78 if few else 3.36, sharex=True) as (fig, axes):
        for axis, numbers, colour, part in zip(axes[:, 0], counts, (_TRAIN, _TEST), ("training", "test"), strict=True):
            axis.bar(np.arange(len(numbers)), numbers, width=0.8 if few else 1.0, color=colour)
            axis.set(title=f"{numbers.sum():,} {part} images", ylabel="images", ylim=(0, 1.15 * max(1, numbers.max())))
            axis.grid(axis="x", visible=False)
            if len(numbers) <= 12:
                for place, number in enumerate(numbers):
                    axis.annotate(f"{number:,}", (place, number), ha="center", va="bottom", fontsize=7)
        if few:
            names = [plain(name)[:16] for name in train.class_names]
            turned = sum(map(len, names)) > 80
            axes[1, 0].set_xticks(
                range(len(names)), names, rotation=35 if turned else 0, ha="right" if turned else "center"
            )
        else:
            axes[1, 0].set(xlabel="class, in the order of the labels", xlim=(-1, train.num_classes))
    return fig


def class_profile(train: ImageSet) -> Figure:
    """Training images a class, largest first, on a logarithmic scale; dashed as published, where they were reduced."""
    counts = np.sort(train.class_counts.numpy())[::-1]
    before = np.sort(np.array(train.notes.get("class_counts_before", []), dtype=np.int64))[::-1]
    places = np.arange(1, len(counts) + 1)
    smallest = counts[counts > 0].min()
    with drawing(width=5.25) as (fig, axis):
        if len(before):
            axis.step(
                places, before, where="mid", color="#6b6b6b", linestyle="--", label=f"as published: {before.sum():,}"
            )
        axis.step(places, counts, where="mid", color=_TRAIN, linewidth=1.5, label=f"in the pool: {counts.sum():,}")
        if len(counts) <= NAMED_CLASSES:
            axis.plot(places, counts, "o", color=_TRAIN)
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        top = max([counts.max(), *before.tolist()])
        axis.set(yscale="log", ylim=(0.3 * smallest, 3 * top), xlabel="class, largest first", ylabel="images",
                 title=f"Largest class over smallest: {counts.max() / smallest:.4g}")  # fmt: skip
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.yaxis.set_minor_formatter("")
        ends = [int(top)] if top < 2 * smallest else [int(smallest), int(top)]
        axis.set_yticks(ends, minor=True, labels=[f"{number:,}" for number in ends])
        axis.legend(frameon=False, loc="lower left")
    return fig


def augmented(images: ImageSet, index: int = 0, count: int = 23, seed: int = 0) -> Figure:
    """Image `index` as it is, then `count` times as training sees it: `images.augmentation`, drawn by `seed`."""
    kind = images.augmentation
    count = count if kind != "none" else 7
    draws = augment.draw(kind, count, generator(seed, "augmentation shown"))
    batch = [torch.full((count,), index, dtype=torch.int64)]
    seen = torch.cat(list(images.stream(batch, kind, None if draws is None else [draws])))
    pictures = as_pictures(torch.cat([images.take(torch.tensor([index], device=images.device)), seen]))
    columns = min(8, count + 1)
    rows = -(-(count + 1) // columns)
    with drawing(rows, columns, width=7.0, height=0.42 + 0.875 * rows) as (fig, axes):
        for axis, picture in zip(axes.flat, pictures, strict=False):
            draw_picture(axis, picture)
        without_frames(axes)
        axes[0, 0].set_title("as it is", fontsize=7.5)
        for side in axes[0, 0].spines.values():
            side.set(visible=True, color=_TEST, linewidth=1.5)
        fig.suptitle(f"One image as {count} epochs see it (augmentation: {kind})")
    return fig


def samples(images: ImageSet, count: int = 40, seed: int = 0) -> Figure:
    """`count` images drawn by `seed`, whatever their classes, under their class names."""
    chosen = numpy_generator(seed, "sample").permutation(len(images))[:count]
    return query_grid(images, chosen, title=f"{images.name}: {len(chosen)} of {len(images):,} images, drawn at random")


def points(places: npt.NDArray[np.float64], labels: Ints, names: tuple[str, ...]) -> Figure:
    """Points (N, 2) of a plane, coloured by their labels (N,)."""
    with drawing(width=5.25, height=3.08) as (fig, axis):
        for label, (name, colour) in enumerate(zip(names, (_TRAIN, _TEST), strict=False)):
            axis.scatter(*places[labels == label].T, s=4, alpha=0.6, color=colour, label=plain(name))
        axis.set(aspect="equal", title=f"{len(places):,} points")
        axis.legend(frameon=False, markerscale=2)
    return fig
