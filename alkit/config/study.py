"""Study: which runs belong together, as a file in `params/` says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from alkit.config.experiment import PATHS, Checked, Experiment, Name, Seed
from alkit.config.study_yaml import read_yaml
from alkit.errors import ConfigError
from alkit.storage.paths import counted_from


class Study(Checked):
    """A study file: the runs it names (labels × seeds) and the parameters they share.

    `variants` are runs of a method with some parameters of their own, under a label of their own:
    `variants: {pt4al_text: {method: pt4al, pt4al_order: text}}`.
    """

    study: Name
    title: str | None = None
    description: str | None = None
    methods: list[str] = Field(default_factory=list)
    seeds: list[Seed] = Field(default_factory=lambda: [0])
    variants: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def own_keys(cls) -> list[str]:
        """The top-level keys of a study file that are not parameters of a run."""
        return [key for key in cls.model_fields if key != "parameters"]

    @classmethod
    def from_yaml(cls, path: str | Path, check: bool = True) -> Study:
        """Read a study file; whatever is wrong with it raises a `ConfigError` that begins with its path.

        Without `check` only the study's own keys are looked at: what its runs are called, not whether they can be had.
        """
        path = Path(path)
        content = read_yaml(path)
        try:
            own = {key: content.pop(key) for key in cls.own_keys() if key in content}
            own.setdefault("study", path.stem)
            study = cls(**own, parameters=content).with_paths_from(path.parent)
            if check:
                study.check()
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        return study

    def with_paths_from(self, folder: Path) -> Study:
        """The study with its relative paths counted from `folder`, which is that of its file."""
        variants = {label: counted_from(folder, own, PATHS) for label, own in self.variants.items()}
        return self.model_copy(
            update={"parameters": counted_from(folder, self.parameters, PATHS), "variants": variants}
        )

    @property
    def labels(self) -> list[str]:
        """The labels of the study's runs, methods first."""
        return [*self.methods, *self.variants]

    def check(self) -> None:
        """Refuse a study of which any run would be refused."""
        if "seed" in self.parameters and "seeds" in self.model_fields_set:
            raise ConfigError("seed: give either seed or seeds")
        folders = [label.lower() for label in self.labels]  # for some disks, names are the same in either case
        doubled = [label for label in self.labels if folders.count(label.lower()) > 1]
        if doubled:
            raise ConfigError(f"methods: '{doubled[0]}' is named twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("seeds: each seed once")
        for label, own in self.variants.items():
            if "seed" in own:
                raise ConfigError(f"variants: '{label}' has a seed of its own; expected the study's seeds for all")
        if not self.labels:
            Experiment(**self.parameters)
        for label in self.labels:
            self.experiment(label)

    def experiment(self, label: str | None = None, **overrides: Any) -> Experiment:
        """The experiment `label` of this study (its first one by default) with `overrides`."""
        label = label or overrides.get("method") or (self.labels[0] if self.labels else None)
        own: dict[str, Any] = {}
        if label in self.variants:
            own = {"label": label, **self.variants[label]}
        elif label is not None:
            own = {"method": label}
        defaults = {"seed": self.seeds[0]} if self.seeds else {}
        return Experiment(**(defaults | self.parameters | own | {k: v for k, v in overrides.items() if k != "label"}))
