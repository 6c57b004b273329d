"""Draw the rooms of `alkit/` and their floors into docs/architecture.md, from the imports themselves.

    python scripts/rooms.py            write the listing
    python scripts/rooms.py --check    say whether it is up to date (exit status 1 if not)

A name at the top of `alkit/` stands one floor above the highest name that it imports, at whatever place in its files.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"


def modules(package: Path) -> dict[str, Path]:
    """Every module below the package's folder by its dotted name; a package has the name of its folder."""
    files = sorted(package.rglob("*.py"))
    names = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    """The known modules that a file imports, in its functions too; not what only a type checker reads."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {name for alias in node.names if (name := f"{node.module}.{alias.name}") in known} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known.keys()


def rooms(package: Path) -> dict[str, set[str]]:
    """The names at the top of the package and which others of them each imports; `__main__` is left out."""
    known = modules(package)
    tops: dict[str, set[str]] = {}
    for name, file in known.items():
        parts = name.split(".")
        if len(parts) > 1 and parts[1] != "__main__":
            own = tops.setdefault(parts[1], set())
            own |= {other.split(".")[1] for other in imported(file, known) if "." in other} - {parts[1]}
    return tops


def floors(tops: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each name, from 0; `ValueError` names the circle where names import each other."""

    @cache
    def floor(name: str, above: tuple[str, ...] = ()) -> int:
        if name in above:
            raise ValueError(f"imports in a circle: {' → '.join((*above[above.index(name) :], name))}")
        return max((1 + floor(other, (*above, name)) for other in sorted(tops[name])), default=0)

    return {name: floor(name) for name in tops}


def listing(package: Path) -> str:
    """The table of the page: floor, name, and the first sentence of its docstring, from the top down."""
    known, found = modules(package), floors(rooms(package))
    lines = ["| floor | name | what it does |", "| --- | --- | --- |"]
    for level in sorted(set(found.values()), reverse=True):
        for name in sorted(name for name, own in found.items() if own == level):
            file = known[f"{package.name}.{name}"]
            said = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            shown = f"{name}/" if file.name == "__init__.py" else f"{name}.py"
            lines.append(f"| {level} | `{shown}` | {' '.join(said.split())} |")
    return "\n".join(lines)


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- rooms: written by scripts/rooms.py -->\n", "<!-- end of rooms -->"
    before, rest = text.split(begin)
    wanted = before + begin + listing(ROOT / "alkit") + "\n" + end + rest.split(end)[1]
    if "--check" in sys.argv[1:]:
        if wanted != text:
            print(f"{PAGE.relative_to(ROOT)} is not up to date: python scripts/rooms.py")
        return int(wanted != text)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
