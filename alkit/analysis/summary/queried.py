"""What a study's methods asked for: classes, overlap, redundancy, and a map of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from alkit.analysis.summary.study import StudyFolder
from alkit.data import ImageSet
from alkit.errors import AlkitError
from alkit.errors.words import as_text

SIDE = 32
"""Pixels a side to which larger images are averaged before distances are measured between them."""
MOST = 1000
"""Images of one query of which distances are measured."""
MAP = 1000
"""Images of the pool on the map, beside those that were bought."""
MOST_MAPS = 12
"""Labels with a map of their own."""
MOST_LISTED = 3
"""Seeds of which the files are listed."""
FEWEST_DRAWS, MOST_DRAWS, SURE = 10, 1000, 5e-4
"""How often two random arms are drawn to know what overlap chance gives: until its standard error is below `SURE`."""


def files_bought(study: StudyFolder) -> pd.DataFrame:
    """What the first seeds bought, in the order asked: `label`, `seed`, `cycle`, `place` in the pool, `class`, `file`.

    No rows where the images were not read from files. Raises an `AlkitError` where the images cannot be had.
    """
    train, files, parts = study.images, study.images.files, []
    if files is None:
        return pd.DataFrame()
    for label in study.same_images:
        for seed, cycles in list(study.queries(label).items())[:MOST_LISTED]:
            for cycle, query in cycles.items():
                places = query[query < len(train)]
                names = [train.class_names[c] for c in train.labels[torch.from_numpy(places)]]
                parts.append(pd.DataFrame({
                    "label": label, "seed": seed, "cycle": cycle, "place": places, "class": names,
                    "file": list(map(as_text, files[places])),
                }))  # fmt: skip
    return pd.concat(parts) if parts else pd.DataFrame()


def class_shares(study: StudyFolder) -> pd.DataFrame:
    """Share of each class (rows) among what each label chose; `pool` where it is known."""
    names, columns = study.class_names, {}
    for label in study.choosing:
        part = study.frame[study.frame["label"] == label].sort_values(["path", "cycle"])
        ends = part.groupby("path")["class_counts"].agg(["first", "last"])
        bought = np.zeros(len(names))
        for first, last in zip(ends["first"], ends["last"], strict=True):
            if isinstance(first, list) and isinstance(last, list) and len(first) == len(last) == len(names):
                bought += np.subtract(last, first) if study.first_chosen(label) > 1 else np.asarray(last)
        if bought.sum():
            columns[label] = bought / bought.sum()
    pool = _pool_counts(study)
    if pool is not None and len(pool) == len(names):
        columns["pool"] = pool / pool.sum()
    return pd.DataFrame(columns, index=pd.Index(names, name="class"))


def _pool_counts(study: StudyFolder) -> np.ndarray[Any, Any] | None:
    """Images a class in the pool: from the images, or from a run that was trained on all of them."""
    try:
        return study.images.class_counts.numpy()
    except AlkitError:
        full = study.frame[study.frame["labelled"] == study.frame["pool_size"]]
        return np.asarray(full["class_counts"].iloc[0]) if len(full) else None


def overlap(study: StudyFolder) -> tuple[pd.DataFrame, float, list[str]]:
    """Jaccard overlap of what labels chose, mean over the seeds that both have; that of chance; and for which labels.

    Chance is `by_chance` for the labels whose numbers of labels and `subset` are the commonest.
    """
    labels = study.same_images
    chosen = {label: {seed: _chosen(cycles, study.first_chosen(label)) for seed, cycles in study.queries(label).items()}
              for label in labels}  # fmt: skip
    matrix = pd.DataFrame(np.nan, index=pd.Index(labels, name="label"), columns=labels)
    for a in labels:
        for b in labels:
            seeds = chosen[a].keys() & chosen[b].keys()
            if seeds:
                matrix.loc[a, b] = np.mean([_jaccard(chosen[a][s], chosen[b][s]) for s in sorted(seeds)])
    alike: dict[tuple[Any, ...], list[str]] = {}
    for label in labels:
        runs = study.frame[study.frame["label"] == label]
        before = [] if study.first_chosen(label) > 1 else [0]
        labelled = (*before, *sorted(map(int, runs["labelled"].unique())))
        alike.setdefault((int(runs["pool_size"].max()), labelled, study.params[label].get("subset")), []).append(label)
    if not alike:
        return matrix, np.nan, []
    setting, common = max(alike.items(), key=lambda item: len(item[1]))
    return matrix, by_chance(*setting), common


def by_chance(pool: int, labelled: Sequence[int], subset: int | None = None) -> float:
    """Overlap (Jaccard) of two arms of one seed that choose at random, each on its own; the mean of many draws.

    They begin with the same `labelled[0]` images and grow to the other numbers of `labelled`. Before each query they
    share the places of its `subset` candidates among their unlabelled images, as `Strategy.candidates` draws them.
    """
    draw, found = np.random.default_rng(0), list[float]()
    while len(found) < FEWEST_DRAWS or (len(found) < MOST_DRAWS and np.std(found) > SURE * len(found) ** 0.5):
        arms = [np.arange(pool) < labelled[0] for _ in range(2)]
        for few, many in pairwise(labelled):
            places = np.sort(draw.permutation(pool - few)[:subset])
            for arm in arms:
                candidates = np.flatnonzero(~arm)[places]
                arm[draw.choice(candidates, min(many - few, len(candidates)), replace=False)] = True
        both, either = ((one.sum() - labelled[0]) for one in (arms[0] & arms[1], arms[0] | arms[1]))
        found.append(both / max(1, either))
    return float(np.mean(found))


def _chosen(cycles: dict[int, np.ndarray], first: int) -> set[int]:
    return {int(index) for cycle, query in cycles.items() if cycle >= first for index in query}


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a | b else np.nan


def redundancy(study: StudyFolder) -> pd.DataFrame:
    """Mean distance of a bought image to the nearest other one of its query: `label`, `seed`, `cycle`, `distance`.

    Euclidean distance of pixels in 0..1, of images averaged to at most 32 × 32 pixels. Raises an `AlkitError` where
    the images cannot be had.
    """
    train, rows = study.images, []
    for label in study.same_images:
        for seed, cycles in study.queries(label).items():
            for cycle, query in cycles.items():
                if cycle >= study.first_chosen(label) and len(query) > 1 and query.max() < len(train):
                    rows.append((label, seed, cycle, nearest_distance(pixels(train, query[:MOST]))))
    return pd.DataFrame.from_records(rows, columns=["label", "seed", "cycle", "distance"])


def nearest_distance(vectors: np.ndarray[Any, Any]) -> float:
    """Mean Euclidean distance of each of (n, d) vectors to its nearest other one; NaN for fewer than two."""
    if len(vectors) < 2:
        return float("nan")
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=1).fit(vectors).kneighbors()[0]  # without a query, a point is not its own
    return float(near.mean())


def pixels(train: ImageSet, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images as vectors (n, d) of pixels in 0..1, averaged to at most `SIDE` pixels a side."""
    images = train.take(torch.as_tensor(indices, device=train.device)).float().cpu() / 255
    if max(images.shape[2:]) > SIDE:
        images = torch.nn.functional.adaptive_avg_pool2d(images, SIDE)
    return images.flatten(1).numpy()


def pool_map(
    study: StudyFolder, cycle: int = 2
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]], str]:
    """t-SNE of the pool's pixels (first 50 principal components) and what each label bought in `cycle`.

    Returns points (n, 2), their classes (n,), positions in `points` for each label, and the seeds shown. The pool is
    thinned to `MAP` images; nothing is mapped where nothing was bought. Raises an `AlkitError` where the images cannot
    be had.
    """
    train, chosen, seeds = study.images, {}, set()
    for label in study.same_images[:MOST_MAPS]:
        for seed, cycles in study.queries(label).items():
            query = cycles.get(cycle)
            if query is not None and len(query) and query.max() < len(train):
                chosen[label] = query[:200]
                seeds.add(seed)
                break
    if not chosen:
        return np.zeros((0, 2)), np.zeros(0, dtype=np.int64), {}, ""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    draw = np.random.default_rng(0)
    background = draw.permutation(len(train))[:MAP]
    kept = np.unique(np.concatenate([background, *chosen.values()]))
    vectors = pixels(train, kept)
    vectors = PCA(min(50, *vectors.shape), random_state=0).fit_transform(vectors)
    near = min(30.0, max(1.0, (len(kept) - 1) / 3))
    points = TSNE(perplexity=near, init="pca", random_state=0).fit_transform(vectors)
    places = {label: np.searchsorted(kept, query) for label, query in chosen.items()}
    return points, train.labels.cpu().numpy()[kept], places, ", ".join(map(str, sorted(seeds)))
