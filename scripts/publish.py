"""Copy what is worth keeping of a study into outputs/published/STUDY: its summary, its tables and its small records.

    python scripts/publish.py outputs/digits ...
    python scripts/publish.py --no-records outputs/quirks ...     its summary and tables alone

Everything of the study that was there before goes. Paths inside the study's folder become relative to it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PUBLISHED = Path(__file__).parent.parent / "outputs" / "published"
KEPT = ("summary.html", "quirks.ipynb", "study.yaml", "tables/*.csv")
RECORDS = ("*/seed-*/result.json",)
LARGEST = 3 * 2**20


def publish(study: Path, target: Path, records: bool = True) -> int:
    """Copy the study's small files; returns their size in bytes. `ValueError` for no study, or one too large."""
    study = study.absolute()
    files = sorted(file for pattern in KEPT + RECORDS * records for file in study.glob(pattern))
    texts = {file.relative_to(study): _relative(file.read_text(encoding="utf-8"), study) for file in files}
    if not texts:
        raise ValueError(f"{study}: no summary, table or record there")
    size = sum(len(text.encode()) for text in texts.values())
    if size > LARGEST:
        raise ValueError(f"{study}: {size / 2**20:.1f} MB to keep; expected at most {LARGEST / 2**20:.0f}")
    shutil.rmtree(target, ignore_errors=True)
    for name, text in texts.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, encoding="utf-8")
    return size


def _relative(text: str, study: Path) -> str:
    """`text` with the study's folder called by its name."""
    return text.replace(f"{study}/", "").replace(str(study), study.name)


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--no-records"]
    if not names:
        print(__doc__)
        return 2
    for name in names:
        study = Path(name)
        try:
            size = publish(study, PUBLISHED / study.absolute().name, "--no-records" not in sys.argv)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        print(f"outputs/published/{study.absolute().name}: {size / 1024:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
