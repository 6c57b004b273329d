"""The strategy that the documentation shows, kept as a file as it tells people to keep it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "own_strategy.md"


def code() -> str:
    """The page's first Python block without its last lines, which run it."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1].split("run = ")[0]


def keep(folder: Path, name: str = "my_package.my_module") -> Path:
    """Put it into `folder` as the module `name`."""
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code())
    return path
