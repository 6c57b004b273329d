"""What a reader must know before believing a summary: one list of short sentences, shown at the top of the page."""

from __future__ import annotations

from collections.abc import Iterator

from alkit import records
from alkit.analysis.plots.style import without_letters
from alkit.analysis.summary.study import StudyFolder, same_data
from alkit.errors.words import counted, listed
from alkit.methods import METHODS


def cautions(study: StudyFolder) -> list[str]:
    """The study's warnings, the gravest first; what differs by construction (a seed, its files) is none."""
    kinds = (_unfinished, _damaged, _skipped, _unnamed, _unlike, _other_images, _unbalanced, _other_bins, _other_seeds,
             _other_devices, _same_queries, _left_out, _boxes)  # fmt: skip
    return [line for kind in kinds for line in kind(study)]


def _unfinished(study: StudyFolder) -> Iterator[str]:
    done, total = int((study.state["state"] == "finished").sum()), len(study.state)
    if total and (done < total or study.problems):
        counts = study.state["state"].value_counts()
        rest = ", ".join(f"{counts[name]} {name}" for name in ("running", "failed", "missing") if name in counts)
        yield (
            f"This is a part of the study: {done} of {counted(total, 'run')} have finished"
            f"{f' ({rest})' if rest else ''}. What follows is about those."
        )
    if study.file is None:
        yield "There is no study.yaml that can be read: which runs should be here is not known, only which were begun."


def _damaged(study: StudyFolder) -> Iterator[str]:
    if study.damaged:
        yield (
            f"The arrays of {counted(len(study.damaged), 'run')} are damaged or of another run, and not looked at; the "
            f"first: {next(iter(study.damaged.values()))}."
        )


def _skipped(study: StudyFolder) -> Iterator[str]:
    skipped = max(((record.get("data") or {}).get("files_skipped", 0) for record in study.first_records.values()),
                  default=0)  # fmt: skip
    if skipped:
        were = "was" if skipped == 1 else "were"
        yield (
            f"{counted(skipped, 'file')} in the folder of images could not be read as images, and {were} skipped; the "
            "records name the first twenty."
        )


def _unlike(study: StudyFolder) -> Iterator[str]:
    for label in unlike(study):
        keys = differing(study, label)
        if keys:
            yield (
                f"The runs of {label} were not all made with the same parameters: do not average them "
                f"({'; '.join(f'{key}: {values}' for key, values in keys.items())})."
            )


def unlike(study: StudyFolder) -> list[str]:
    """Labels whose runs differ in parameters by more than what differs by construction."""
    counts = study.frame.groupby("label")["params_sha256"].nunique()
    return [label for label in study.labels if counts[label] > 1]


def differing(study: StudyFolder, label: str) -> dict[str, str]:
    """The parameters in which the runs of `label` differ, with their values; bins have a caution of their own."""
    paths = study.frame.loc[study.frame["label"] == label, "path"].unique()
    params = [records.compared_params(records.read_run(path)["params"]) for path in paths]
    names = sorted({name for values in params for name in values} - {"calibration_bins"})
    found = {name: dict.fromkeys(str(values.get(name, "the default")) for values in params) for name in names}
    return {name: " or ".join(values) for name, values in found.items() if len(values) > 1}


def _other_images(study: StudyFolder) -> Iterator[str]:
    groups = records.image_groups(study.frame)
    averaged = [label for label, seen in groups.items() if len(set(seen) - {None}) > 1]
    for label in averaged:
        yield f"The runs of {label} did not all have the same images: do not average them."
    unknown = [label for label, seen in groups.items() if None in seen]
    if unknown and any(set(seen) != {None} for seen in groups.values()):
        yield (
            f"Older runs of {listed(unknown)} do not say which images they had: whether they are those of the other "
            "runs is not known."
        )
    first, *rest = [label for label in groups if label not in averaged] or [""]
    tested = [label for label in rest if not _same_test(study, label, first)]
    if tested:
        yield f"{listed(tested)}: tested on other images than {first}; their accuracies are not to be compared."
    others = [
        label
        for label in rest
        if label not in (*tested, *unknown) and first not in unknown
        and groups[label] != groups[first] and same_data(study.params[label], study.params[first])
    ]  # fmt: skip
    if others:
        yield f"{listed(others)} had other images than {first}: they are not to be compared."


_TEST_OPTIONS = ("dataset", "image_size", "test_size", "test_class_balance")


def _same_test(study: StudyFolder, one: str, other: str) -> bool:
    """Whether two labels' runs were tested on the same images: by digest, of older records by what was asked for."""
    groups = records.image_groups(study.frame, "test_images")
    if None not in (*groups[one], *groups[other]):
        return groups[one] == groups[other]
    return all(study.params[one].get(name) == study.params[other].get(name) for name in _TEST_OPTIONS)


def _unnamed(study: StudyFolder) -> Iterator[str]:
    extra = [] if study.file is None else [label for label in study.labels if label not in study.file.labels]
    if extra:
        yield (
            f"{listed(extra)}: in this folder, but not named in its study.yaml: of another study of the same name, or "
            "renamed since?"
        )


def _unbalanced(study: StudyFolder) -> Iterator[str]:
    counts = study.unbalanced_test
    if counts is not None and len(counts) == len(study.class_names):
        most = int(counts.argmax())
        yield (
            f"The test images are unbalanced: to answer '{study.class_names[most]}' to each of them has an accuracy of "
            f"{100 * counts[most] / counts.sum():.1f}%. In the column 'balanced' every class counts as much; "
            f"there, one answer to all has {100 / (counts > 0).sum():.1f}%."
        )


def _other_bins(study: StudyFolder) -> Iterator[str]:
    by_bins: dict[int, list[str]] = {}
    for label in study.labels:
        for bins in sorted(study.frame.loc[study.frame["label"] == label, "bins"].dropna().unique()):
            by_bins.setdefault(int(bins), []).append(label)
    if len(by_bins) > 1:
        parts = "; ".join(f"{bins} bins: {listed(labels)}" for bins, labels in sorted(by_bins.items()))
        yield f"ECE and OE have different numbers of bins here: compare them only where it is the same ({parts})."


def _other_seeds(study: StudyFolder) -> Iterator[str]:
    seeds = {label: frozenset(part["seed"]) for label, part in study.frame.groupby("label", sort=False)}
    if len(set(seeds.values())) > 1:
        yield (
            "The methods have different finished seeds, so their means are over different seeds; "
            "the tests compare only seeds that both have."
        )


def _other_devices(study: StudyFolder) -> Iterator[str]:
    kinds = study.frame.dropna(subset="device").groupby("seed")["device"].unique()
    mixed = kinds[kinds.map(len) > 1]
    if len(mixed):
        yield (
            f"Of {counted(len(mixed), 'seed')} ({', '.join(map(str, mixed.index))}) some runs were made on one kind of "
            f"device, some on another ({', '.join(sorted(set().union(*mixed)))}): such pairs share their images but "
            "not the rounding, and differ a little even where nothing else does."
        )


def _same_queries(study: StudyFolder) -> Iterator[str]:
    rows = study.frame[~study.frame["method"].isin([row.id for row in METHODS.values() if row.whole_pool])]
    rows = rows[rows["query_sha256"].notna()]
    by_label = rows.groupby("label", sort=False)
    alike = by_label["query_sha256"].nunique() == by_label["cycle"].nunique()
    found = [label for label, same in (alike & (by_label["seed"].nunique() > 1)).items() if same]
    if found:
        yield (
            f"{listed(found)}: {'each' if len(found) > 1 else 'it'} asked for the same images in all its seeds, so the "
            "spread there is that of the training alone, and no interval speaks of another pool."
        )


def _left_out(study: StudyFolder) -> Iterator[str]:
    if study.left_out:
        yield f"Of {study.dataset} only; not in this summary: {', '.join(study.left_out)}."


def _boxes(study: StudyFolder) -> Iterator[str]:
    missing = without_letters([*study.class_names, *study.labels])
    if missing:
        yield (
            f"No font here has {listed(list(missing))}: the figures show boxes in their place. Noto Sans CJK has "
            "Chinese, Japanese and Korean (on Debian: apt install fonts-noto-cjk); then make the summary again."
        )


def at_the_first_cycle(largest: float) -> str:
    """Of controls that differ before any query was made, by up to `largest` (a fraction)."""
    return (
        f"At cycle 1 the controls differ by up to {100 * largest:.2f} points where they should not: the device's "
        "rounding, or runs that were not made alike."
    )
