"""The rooms of `alkit/`: few names at the top, on few floors, and no import that runs upwards."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import rooms  # noqa: E402

FLOORS = [
    {"errors", "calibration"},
    {"storage", "methods", "statistics"},
    {"quirks"},
    {"config"},
    {"data", "models"},
    {"objectives", "strategies", "records"},
    {"training"},
    {"learner", "grid"},
    {"analysis"},
    {"notebook", "cli"},
]
"""From the ground up. A name may import from the floors below its own, and from nothing else."""


@pytest.fixture(scope="module")
def tops() -> dict[str, set[str]]:
    return rooms.rooms(ROOT / "alkit")


def test_every_name_has_a_floor_and_imports_only_from_those_below(tops: dict[str, set[str]]) -> None:
    level = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    assert tops.keys() == level.keys(), "a new name at the top: does it belong into one of the rooms?"
    upwards = {(name, other) for name, others in tops.items() for other in others if level[other] >= level[name]}
    assert upwards == set()
    assert len(level) <= 18
    assert len(FLOORS) <= 10


def test_each_room_says_what_comes_in_what_goes_out_and_what_it_may_not_know(tops: dict[str, set[str]]) -> None:
    for name in tops:
        file = ROOT / "alkit" / name / "__init__.py"
        if file.exists():
            said = ast.get_docstring(ast.parse(file.read_text())) or ""
            assert "Comes in:" in said or name == "errors", name
            assert "know" in said or "changes no run" in said, name


def test_an_import_that_runs_in_a_circle_is_named(tmp_path: Path) -> None:
    package = tmp_path / "house"
    for name, text in {"a": "from house import b\n", "b": "def late():\n    import house.c.d\n"}.items():
        (package / name).with_suffix(".py").parent.mkdir(exist_ok=True)
        (package / name).with_suffix(".py").write_text(text)
    (package / "c").mkdir()
    (package / "__init__.py").write_text("")
    (package / "c" / "__init__.py").write_text("")
    (package / "c" / "d.py").write_text("")
    assert rooms.rooms(package) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert rooms.floors(rooms.rooms(package)) == {"a": 2, "b": 1, "c": 0}
    (package / "c" / "d.py").write_text("from house.a import something\n")
    with pytest.raises(ValueError, match="imports in a circle: a → b → c → a"):
        rooms.floors(rooms.rooms(package))


def test_the_listing_of_the_architecture_page_is_drawn_from_the_imports() -> None:
    text = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.listing(ROOT / "alkit") in text
