"""Reading the YAML of study files: safely, numbers as people write them, and one line for whatever is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from alkit.errors import ConfigError

MOST_VALUES = 100_000
"""Values that a file may hold once its aliases are written out; a file of a few lines can hold billions."""

EXAMPLES = {
    "methods": "[random, oo4al]", "seeds": "[0, 1, 2]", "milestones": "[48]", "class_balance": "[1.0, 0.5, 0.1]",
    "test_class_balance": "[1.0, 0.5, 0.1]", "quirks": "{warm_start: true}",
    "variants": "{pt4al_text: {method: pt4al, pt4al_order: text}}",
}  # fmt: skip
"""How a list or mapping is written in a study file."""

_INT = "tag:yaml.org,2002:int"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key given twice and aliases that grow without end.

    Whole numbers are decimal: YAML 1.1 reads `0100` as 64 and `1:30` as 90.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name
        first: [(tag, pattern) for tag, pattern in rows if tag != _INT]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_scalar(self, node: Any) -> Any:
        """A scalar's text; two escapes that JSON writes for one sign, such as an emoji, are that sign."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            try:
                return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                problem = "an escape such as \\ud83d that is half of a sign"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None
        return value

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node


_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values at and below `node` with its aliases written out; `known` remembers nodes, 0 for one under way."""
    if id(node) not in known:
        known[id(node)] = 0
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        known[id(node)] = 1 + sum(
            _count(part, known) for item in below for part in (item if isinstance(item, tuple) else [item])
        )
    size = known[id(node)]
    if not 0 < size <= MOST_VALUES:
        what = "an alias of what it is a part of" if not size else f"aliases of more than {MOST_VALUES:,} values"
        raise yaml.composer.ComposerError(None, None, what, node.start_mark)
    return size


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, read safely; `ConfigError` of one line if there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder, not a file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except Exception as error:  # PyYAML's constructors also raise KeyError, IndexError, AttributeError and others
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{path}: does not parse{where}: {problem}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected parameters as 'key: value' lines")
    return content


def value_of(text: str) -> Any:
    """What a parameter's text on the command line means, as YAML has it; the text itself where it has nothing."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
