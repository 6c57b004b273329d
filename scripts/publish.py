"""Copy what is worth keeping of a study into outputs/published/STUDY, so that its numbers can be checked again.

    python scripts/publish.py outputs/digits ...
    python scripts/publish.py --check outputs/published/digits ...     do the records agree with their arrays?

Kept are the summary, its tables, every record, what each cycle bought, and the predictions, in small types. A study
that takes more than 10 MB so keeps coarser ones (`records.in_steps`) and no logits; the arrays of one that still
does go into outputs/STUDY.tar.xz, to be given away by other means, and its SHA-256 into the published folder.
Everything of the study that was there before goes. Paths inside the study's folder become relative to it.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alkit import calibration, records
from alkit.config import PATHS
from alkit.data.identity import query_digest
from alkit.errors import CheckpointError
from alkit.errors.words import counted
from alkit.storage.files import atomic_write, sha256, write_text

PUBLISHED = Path(__file__).parent.parent / "outputs" / "published"
KEPT = ("summary.html", "quirks.ipynb", "study.yaml", "tables/*.csv")
RECORDS = "*/seed-*/result.json"
ARCHIVE = "ARCHIVE.sha256"
ARRAYS = ("queries.npz", "predictions.npz")
LARGEST = 10 * 2**20

Array = np.ndarray[Any, Any]


def publish(study: Path, target: Path) -> int:
    """Write the study's small files; returns their size in bytes.

    Raises `ValueError` where there is no record, or one without its arrays, and leaves what was published before.
    """
    study = study.absolute()
    runs = sorted(file.parent for file in study.glob(RECORDS))
    if not runs:
        raise ValueError(f"{study}: no record there")
    for run in runs:
        for name in ARRAYS:
            if not (run / name).is_file():
                raise ValueError(f"{run / name}: not there, so this study could not be checked again")
    texts = {file.relative_to(study): _relative(file.read_text(encoding="utf-8"), study)
             for pattern in (*KEPT, RECORDS) for file in sorted(study.glob(pattern))}  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        for name, text in texts.items():
            write_text(aside / name, text)
        for coarse in (False, True):
            for run in runs:
                _write_arrays(run, aside / run.relative_to(study), coarse)
            if _size(aside) <= LARGEST:
                break
        else:
            _archive(aside, runs, study)
        size = _size(aside)
        if size > LARGEST:
            raise ValueError(
                f"{study}: {size / 2**20:.1f} MB without its arrays; expected at most {LARGEST / 2**20:.0f}"
            )
        shutil.rmtree(target, ignore_errors=True)
        aside.chmod(0o755)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return size


def _write_arrays(run: Path, target: Path, coarse: bool) -> None:
    """The arrays of a run in small types, without the candidates and utilities of its queries."""
    queries, predictions = (records.read_arrays(run / name) for name in ARRAYS)
    kept = {name: small(values) for name, values in queries.items() if name.startswith(("query_", "masses_"))}
    kept_predictions = records.in_steps(predictions) if coarse else predictions
    found = {name: small(values) for name, values in kept_predictions.items()}
    for name, arrays in zip(ARRAYS, (kept, found), strict=True):
        with atomic_write(target / name) as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def small(values: Array) -> Array:
    """Whole numbers in the smallest type that holds them; anything else as it is."""
    if values.dtype.kind not in "iu" or not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    return values.astype(np.min_scalar_type(high) if low >= 0 else np.promote_types(
        np.min_scalar_type(low), np.min_scalar_type(-high - 1)))  # fmt: skip


def _archive(aside: Path, runs: list[Path], study: Path) -> None:
    """Put the arrays into an archive beside the study, the same bytes for the same arrays, and its checksum aside."""
    for run in runs:
        for name in ARRAYS:
            (aside / run.relative_to(study) / name).unlink()
    archive = study.parent / f"{study.name}.tar.xz"
    with atomic_write(archive) as stream, tarfile.open(fileobj=stream, mode="w:xz") as tar:  # type: ignore[call-overload]
        for run in runs:
            for name in ARRAYS:
                content = (run / name).read_bytes()
                entry = tarfile.TarInfo(f"{study.name}/{(run / name).relative_to(study)}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    write_text(aside / ARCHIVE, f"{sha256(archive)}  {archive.name}\n")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _relative(text: str, study: Path) -> str:
    """`text` with the study's folder called by its name."""
    text = text.replace(f"{study}/", "").replace(str(study), study.name)
    text = re.sub(rf'(?<=[>",\s])/[^\s"<>,]*/{re.escape(study.name)}/', "", text)  # where it lay when it ran
    # files outside the study: their names alone, for nobody else has the same folders
    return re.sub(rf'("?(?:{"|".join(PATHS)})"?: "?)/[^"\n]*/([^/"\n]+)', r"\1\2", text)


# --- checking ---


def check(study: Path) -> tuple[int, list[str]]:
    """How many runs of a folder were checked, and every number of a record that does not follow from its arrays."""
    runs = sorted(file.parent for file in study.glob(RECORDS))
    if (study / ARCHIVE).is_file():
        name = (study / ARCHIVE).read_text(encoding="utf-8").split()[-1]
        return len(runs), [f"{study}: its arrays are in {name}, which is not in the repository; unpack it beside them"]
    wrong = []
    for run in runs:
        try:
            wrong += [f"{run}: {line}" for line in check_run(run)]
        except CheckpointError as error:
            wrong.append(str(error))
    return len(runs), wrong or ([] if runs else [f"{study}: no record there"])


def check_run(run: Path) -> list[str]:
    """What of the record `run`/result.json does not follow from `queries.npz` and `predictions.npz` beside it."""
    record, queries, arrays = records.read_run(run), records.read_queries(run), records.read_predictions(run)
    dropped = bool((record.get("quirks") or {}).get("ece_drops_full_confidence"))
    n = arrays["confidence"].shape[1]
    wrong, bought = [], 0
    if len(arrays["confidence"]) != len(record["cycles"]):
        return [f"predictions of {counted(len(arrays['confidence']), 'cycle')}, the record has {len(record['cycles'])}"]
    for place, cycle in enumerate(record["cycles"]):
        number = cycle["cycle"]
        query = queries.get(number, np.zeros(0, dtype=np.int64))
        bought += len(query)
        if query_digest(query) != cycle["query_sha256"]:
            wrong.append(f"cycle {number}: query_{number} is not what the record's query_sha256 was made of")
        if bought != cycle["labelled"]:
            wrong.append(f"cycle {number}: {bought} images were bought, the record has {cycle['labelled']} labels")
        bins = cycle.get("bins") or record["params"].get("calibration_bins") or 100
        errors = calibration.calibration_errors(arrays["confidence"][place], arrays["correct"][place], bins, dropped)
        # of stored confidences, one in a thousand may fall beside the edge of its bin
        found = {"accuracy": (errors.accuracy, 1e-6), "gap": (errors.gap, 1e-4), "ece": (errors.ece, 1e-3 + 2 / n),
                 "oe": (errors.oe, 1e-3 + 2 / n)}  # fmt: skip
        if "log_prob_true" in arrays:
            found["nll"] = (
                -float(arrays["log_prob_true"][place].astype(np.float64).mean()),
                1e-3 * max(1, cycle["nll"]),
            )
        for name, (value, allowed) in found.items():
            if name in cycle and abs(value - cycle[name]) > allowed:
                wrong.append(
                    f"cycle {number}: {name} of the predictions is {value:.5f}, the record has {cycle[name]:.5f}"
                )
    return wrong


def main() -> int:
    checking, names = "--check" in sys.argv, [name for name in sys.argv[1:] if name != "--check"]
    if not names:
        print(__doc__)
        return 2
    failed = False
    for study in (Path(name) for name in names):
        if checking:
            count, wrong = check(study)
            failed |= bool(wrong)
            print("\n".join(wrong or [f"{study}: {counted(count, 'record')}, as the arrays have it"]))
            continue
        try:
            size = publish(study, PUBLISHED / study.absolute().name)
        except (OSError, ValueError, CheckpointError) as error:
            print(error, file=sys.stderr)
            return 2
        print(f"outputs/published/{study.absolute().name}: {size / 1024:.0f} kB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
