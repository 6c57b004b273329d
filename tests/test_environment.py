"""pyproject.toml is the one source of the dependencies; the lock and environment.yml keep in step with it."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")
)


def requirements() -> list[Requirement]:
    groups = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in PROJECT["dependencies"] + [text for group in groups for text in group]]


def test_the_lock_has_a_version_in_range_for_every_dependency() -> None:
    for requirement in requirements():
        version = LOCK[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version} in the lock"


def test_torch_is_a_range_in_the_project_and_exact_in_the_lock() -> None:
    torch = next(r for r in requirements() if r.name == "torch")
    assert {s.operator for s in torch.specifier} == {">="}
    assert LOCK["torch"].count(".") == 2


def test_environment_yml_takes_its_versions_from_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    assert Requirement(python).specifier.contains(PROJECT["requires-python"].removeprefix(">="))
