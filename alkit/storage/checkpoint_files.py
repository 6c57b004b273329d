"""Which checkpoints a pattern names, and what their paths tell: seed, cycle, and how many labels there were."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from alkit.errors import CheckpointError, ConfigError

_LAYOUT = re.compile(r"Init(?P<initial>\d+)_S(?P<subset>\d+)_B(?P<budget>\d+)")
_SEED = re.compile(r"(?:^|[/_.-])seed[-_]?(\d+)(?=[/_.-])", re.IGNORECASE)
_CYCLE = re.compile(r"cycle[-_]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class CheckpointFile:
    """One file: `label` names the files that differ from it in seed and cycle alone. What its path does not tell is
    None. `layout` is empty, or `initial`, `subset` and `budget` of OO4AL's folder InitX_SY_BZ."""

    path: Path
    template: str
    label: str
    seed: int | None
    cycle: int | None
    first_cycle: int = 1

    @property
    def layout(self) -> dict[str, int]:
        found = _LAYOUT.search(str(self.path.parent))
        return {key: int(value) for key, value in found.groupdict().items()} if found else {}

    @property
    def labelled(self) -> int | None:
        """Labels that the model was trained with."""
        if not self.layout or self.cycle is None:
            return None
        return self.layout["initial"] + (self.cycle - self.first_cycle) * self.layout["budget"]


def find_checkpoints(pattern: str | Path) -> list[CheckpointFile]:
    """The files that `pattern` names, by label, cycle and seed.

    `pattern` is a glob (`*`, `?`, `[…]`, `**`); `{seed}` and `{cycle}` in it are numbers. Where it has none, they are
    read from `Seed-3` and `cycle7` in the path, that of the working directory included. What is there as it is written
    is taken as it is written: `run[1]/` is a folder's name where there is such a folder.

    Raises `CheckpointError` where there is no file, or two of one seed and cycle; `ConfigError` for another word in
    braces.
    """
    folder, rest = _split(os.path.abspath(os.path.expanduser(pattern)))
    found = _matching(folder, rest) or _matching(folder, rest.replace("[", "[[]"))
    if not found:
        raise CheckpointError(f"{pattern}: no such file")
    found.sort(key=lambda file: (file.template, file.cycle or 0, file.seed or 0))
    for _, same in groupby(found, lambda file: (file.template, file.seed, file.cycle)):
        first, *others = same
        if others:
            raise CheckpointError(f"{others[0].path}: the same seed and cycle as {first.path}")
    return _labelled_apart(found)


def _split(path: str) -> tuple[str, str]:
    """The part of a path that is there as it is written, and the rest, which is a pattern."""
    parts, there = path.split("/")[1:], ""
    while parts and os.path.lexists(f"{there}/{parts[0]}"):
        there += f"/{parts.pop(0)}"
    return there, "/".join(parts)


def _matching(folder: str, pattern: str) -> list[CheckpointFile]:
    """The files of `folder` that the pattern names; without a pattern `folder` itself, where it is a file."""
    form = re.compile(re.escape(folder) + (f"/{_regex(pattern)}" if pattern else ""), re.DOTALL)
    wild = re.sub(r"\{\w*\}", "*", pattern)
    names = sorted(f"{folder}/{name}" for name in glob.glob(wild, root_dir=folder or "/", recursive=True))
    pairs = [(name, form.fullmatch(name)) for name in (names if pattern else [folder]) if os.path.isfile(name)]
    return [_read(name, match) for name, match in pairs if match is not None]


def _read(name: str, match: re.Match[str]) -> CheckpointFile:
    spans: dict[str, tuple[int, int] | None] = {}
    for key, default in (("seed", _SEED), ("cycle", _CYCLE)):
        if key in match.re.groupindex:
            spans[key] = match.span(key)
            continue
        start = name.rfind("/") + 1 if key == "cycle" else 0  # a folder is called Seed-3, but a cycle's is the file
        places = list(default.finditer(name, start))
        spans[key] = places[-1].span(1) if places else None
    seed, cycle = (None if span is None else int(name[slice(*span)]) for span in spans.values())
    template = name
    for key, span in sorted(spans.items(), key=lambda item: item[1] or (0, 0), reverse=True):
        if span is not None:
            template = f"{template[: span[0]]}{{{key}}}{template[span[1] :]}"
    first = 1
    if cycle and spans["cycle"] is not None:  # the papers' program counts cycles from 0, this kit from 1
        start, end = spans["cycle"]
        zeros = ("0", "0" * (end - start))
        first = 0 if any(os.path.exists(name[:start] + zero + name[end:]) for zero in zeros) else 1
    return CheckpointFile(Path(name), template, _label(template), seed, cycle, 0 if cycle == 0 else first)


def _label(template: str) -> str:
    """The folder that holds the seeds' folders; without any, the run's; without that, the file's name."""
    folders = template.split("/")[:-1]
    folders = folders[:-1] if folders[-1:] == ["models"] else folders
    places = [number for number, folder in enumerate(folders) if "{seed}" in folder]
    folders = folders[: places[-1]] if places else folders
    return folders[-1] if folders and folders[-1] not in ("", ".", "..") else Path(template).stem


def _labelled_apart(files: list[CheckpointFile]) -> list[CheckpointFile]:
    """The same files; where two kinds would have one label, the label is all of the path, from here if it is below."""
    templates: dict[str, set[str]] = {}
    for file in files:
        templates.setdefault(file.label, set()).add(file.template)
    here = f"{os.getcwd()}/"
    return [
        replace(file, label=file.template.removeprefix(here)) if len(templates[file.label]) > 1 else file
        for file in files
    ]


def _regex(pattern: str) -> str:
    """The pattern as a regular expression with the groups `seed` and `cycle`; a second `{seed}` is the same number.

    It reads the names that `glob` found, so a sign that `[…]` has let through is any sign here.
    """
    for name in re.findall(r"\{(\w+)\}", pattern):
        if name not in ("seed", "cycle"):
            raise ConfigError(f"pattern: {{{name}}} is not known; expected {{seed}} or {{cycle}}")
    found = re.escape(re.sub(r"\[!?\]?[^]]*\]", "?", pattern))
    for name in ("seed", "cycle"):
        found = found.replace(rf"\{{{name}\}}", rf"(?P<{name}>\d+)", 1).replace(rf"\{{{name}\}}", f"(?P={name})")
    found = found.replace(r"\?", "[^/]").replace(r"\*\*/", "(?:.*/)?")
    return re.sub(r"(\\\*)+|\\\{\\\}", "[^/]*", found)
