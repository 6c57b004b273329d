"""What turns a data set as published into the one that is studied: unbalanced, smaller, with wrong labels.

Pure functions of labels and a seed. Every draw is by class, so a class keeps its images whatever happens to the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alkit.data.randomness import numpy_generator
from alkit.errors import ConfigError

Ints = npt.NDArray[np.int64]


def exponential_counts(counts: Sequence[int], factor: float) -> list[int]:
    """Images a class under the exponential profile of Cui et al. (CVPR 2019): n·factor^(−i/(C−1)), rounded down.

    n is the largest class; no class grows, and none falls below one image.
    """
    top, last = max(counts), max(len(counts) - 1, 1)
    return [min(count, max(1, int(top * factor ** (-i / last) + 1e-9))) for i, count in enumerate(counts)]


def balanced_counts(counts: Sequence[int], balance: Sequence[float], name: str = "class_balance") -> list[int]:
    """Images a class when the fraction `balance[i]` of class i is kept; at least one where there was one.

    Raises `ConfigError` about the parameter `name`.
    """
    if len(balance) != len(counts):
        raise ConfigError(f"{name}: expected {len(counts)} fractions, one a class, not {len(balance)}")
    if max(balance) > 1:
        raise ConfigError(f"{name}: expected fractions of at most 1, not {max(balance)}")
    return [min(count, max(1, round(count * part))) for count, part in zip(counts, balance, strict=True)]


def stratified_counts(counts: Sequence[int], total: int) -> list[int]:
    """`total` images shared over the classes in proportion to `counts`: largest remainders, lowest class on a tie."""
    have = sum(counts)
    shares = [count * total / have for count in counts]
    kept = [int(share) for share in shares]
    order = sorted(range(len(counts)), key=lambda i: (kept[i] - shares[i], i))
    for i in order[: total - sum(kept)]:
        kept[i] += 1
    return kept


def pool_counts(
    counts: Sequence[int],
    class_balance: Sequence[float] | None = None,
    imbalance_factor: float | None = None,
    pool_size: int | None = None,
) -> list[int]:
    """Images a class in the pool, of `counts` in the data set. Raises `ConfigError` for what they cannot give."""
    kept = list(counts)
    if imbalance_factor is not None:
        kept = exponential_counts(kept, imbalance_factor)
    if class_balance is not None:
        kept = balanced_counts(kept, class_balance)
    if pool_size is not None:
        if pool_size > sum(kept):
            raise ConfigError(f"pool_size: {pool_size} is larger than the {sum(kept)} training images there are")
        kept = stratified_counts(kept, pool_size)
    return kept


def held_out_counts(
    counts: Sequence[int], class_balance: Sequence[float] | None = None, size: int | None = None
) -> list[list[int]]:
    """Test images a class of `counts` after `test_class_balance`, then after `test_size`: one list a step taken.

    Raises `ConfigError` for what they cannot give.
    """
    steps = [list(counts)]
    if class_balance is not None:
        steps.append(balanced_counts(steps[-1], class_balance, "test_class_balance"))
    if size is not None:
        have = sum(steps[-1])
        if size > have:
            raise ConfigError(f"test_size: {size} is larger than the {have} test images there are")
        steps.append(stratified_counts(steps[-1], size))
    return steps


def choose(labels: Ints, kept: Sequence[int], seed: int, purpose: str, among: Sequence[int] | None = None) -> Ints:
    """Indices, ascending, of `kept[c]` images of each class c drawn at random: of its first `among[c]`, or of all.

    A smaller count keeps a subset of what a larger one keeps.
    """
    parts = []
    for label, count in enumerate(kept):
        members = np.flatnonzero(labels == label)[: None if among is None else among[label]]
        parts.append(numpy_generator(seed, purpose, label).permutation(members)[:count])
    return np.sort(np.concatenate(parts))


def split(labels: Ints, fraction: float, num_classes: int, seed: int) -> tuple[Ints, Ints]:
    """Training and test indices: `fraction` of the images (rounded up) for the test, by class.

    Every class that has two images keeps one for training.
    """
    counts = np.bincount(labels, minlength=num_classes)
    wanted = stratified_counts(counts.tolist(), int(np.ceil(len(labels) * fraction - 1e-9)))
    wanted = [min(want, max(count - 1, 0)) for want, count in zip(wanted, counts.tolist(), strict=True)]
    test = choose(labels, wanted, seed, "split")
    return np.setdiff1d(np.arange(len(labels)), test), test


def replace_labels(labels: Ints, fraction: float, num_classes: int, seed: int) -> tuple[Ints, Ints]:
    """Labels of which `fraction` (rounded) were drawn anew from all classes, and the indices of those.

    A label drawn anew may be the old one, as in Farquhar et al. (ICLR 2021).
    """
    source = numpy_generator(seed, "label noise")
    chosen = np.sort(source.permutation(len(labels))[: round(fraction * len(labels))])
    noisy = labels.copy()
    noisy[chosen] = source.integers(0, num_classes, len(chosen))
    return noisy, chosen
