"""Write requirements.lock: the exact versions installed in this environment of all that pyproject.toml needs.

Packages that torch brings for one kind of GPU are left out: torch itself pins them on the platforms that have them.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PLATFORM = re.compile(r"^(nvidia-|cuda-|triton|pywin|colorama|appnope)")


def wanted() -> list[Requirement]:
    """Everything that pyproject.toml names, optional groups too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"].values()
    return [Requirement(text) for text in project["dependencies"] + [r for group in groups for r in group]]


def closure() -> dict[str, str]:
    """Name and installed version of what is wanted and of all that it needs here."""
    found: dict[str, str] = {}
    queue: list[tuple[Requirement, bool]] = [(requirement, True) for requirement in wanted()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement, direct = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or PLATFORM.match(name):
            continue
        seen.add(key)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            if direct:
                raise SystemExit(f"{name} is not installed") from None
            continue
        found[name] = installed.version.split("+")[0]
        for text in installed.requires or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append((needed, False))
    return found


def main() -> None:
    lines = [f"{name}=={version}" for name, version in sorted(closure().items())]
    head = "# Made by `make lock`. The versions that the tests run with; pyproject.toml has the ranges.\n"
    (ROOT / "requirements.lock").write_text(head + "\n".join(lines) + "\n")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
