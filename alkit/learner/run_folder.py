"""RunFolder: what a run leaves on disk, and how one that was interrupted is found again.

Every file is written under a temporary name and renamed; `result.json` comes last and is the only sign of a complete
run. A run without a folder writes nothing.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from alkit.config import FREE_PARAMETERS, Experiment
from alkit.config.own_module import own_sha256
from alkit.data.first import first_digest
from alkit.data.identity import difference, query_digest
from alkit.errors import CheckpointError
from alkit.learner.state import State
from alkit.storage.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from alkit.storage.files import atomic_write, clean_temporary, sha256, write_json, write_npz
from alkit.storage.paths import named


def fingerprint(experiment: Experiment) -> dict[str, Any]:
    """The parameters that decide a run's numbers; pretext losses and a module of one's own count by what they hold."""
    values = {k: v for k, v in experiment.model_dump(mode="json").items() if k not in FREE_PARAMETERS}
    own = own_sha256(experiment.strategies, experiment.method)
    return values | {"pretext_losses": pretext_sha256(experiment), "strategies": own}


def pretext_sha256(experiment: Experiment) -> str | None:
    """The checksum of the experiment's pretext losses; None where it has none, or they are no longer there."""
    path = experiment.pretext_losses
    return sha256(path) if path is not None and Path(path).is_file() else None


class RunFolder:
    """The folder `path` of one run of `experiment` on `images` (`images_record`); None keeps everything in memory."""

    def __init__(self, path: str | Path | None, experiment: Experiment, images: dict[str, Any]) -> None:
        self.path = named(path, "out_dir")
        self.experiment = experiment
        self.images = images
        self._reported = 0.0
        self._held: TextIO | None = None

    def finished(self) -> dict[str, Any] | None:
        """The record of a complete run of this experiment, if the folder holds one."""
        if self.path is None or not (self.path / "result.json").exists():
            return None
        try:
            result: dict[str, Any] = json.loads((self.path / "result.json").read_text())
            digests = {"pretext_losses": result.get("pretext_sha256"), "strategies": result.get("strategies_sha256")}
            self._refuse_other(result["params"] | digests)
            self._refuse_other_images(result.get("images"))
            self._refuse_other_first(result["cycles"][0].get("query_sha256"))
            result["cycles"][-1]["cycle"]
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise CheckpointError(f"{self.path / 'result.json'}: not a record of alkit") from None
        with suppress(OSError):  # of a run that was killed just after its record was there
            remove_checkpoints(self._checkpoint)
        return result

    def restore(self) -> dict[str, Any] | None:
        """The state of the last whole checkpoint of this experiment, if there is one."""
        saved = load_checkpoint(self._checkpoint) if self.path is not None else None
        if saved is None:
            return None
        params, state, images = saved.get("params"), saved.get("state"), saved.get("images")
        if not isinstance(params, dict) or not isinstance(state, dict) or not isinstance(images, dict | None):
            raise CheckpointError(f"{self._checkpoint}: not a checkpoint of alkit; remove it to begin anew")
        self._refuse_other(params)
        self._refuse_other_images(images)
        if images is None:
            warnings.warn(
                f"{self._checkpoint}: made before runs knew their images; whether they are still the same is not known",
                stacklevel=3,
            )
        state.pop("discarded", None)  # of versions before this one, which lost part of the pool under a quirk
        if state.keys() - {known.name for known in fields(State)}:
            raise CheckpointError(f"{self._checkpoint}: of another version of alkit; remove it to begin anew")
        if state.get("queries"):
            self._refuse_other_first(query_digest(state["queries"][0]))
        return state

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep `state`; the checkpoint before it is kept too."""
        if self.path is not None:
            self._keep_hold()
            saved = {"params": fingerprint(self.experiment), "images": self.images, "state": state}
            save_checkpoint(self._checkpoint, saved)

    def report(self, status: dict[str, Any]) -> None:
        """Write `progress.json` for whoever watches: at most once a second, and at every change of state."""
        now = time.monotonic()
        if self.path is None or (now - self._reported < 1.0 and status["state"] == "training"):
            return
        self._reported = now
        self._keep_hold()
        with suppress(OSError):  # a run does not end because its progress cannot be shown
            write_json(
                self.path / "progress.json",
                status
                | {
                    "updated": time.time(),
                    "pid": os.getpid(),
                    "host": platform.node(),
                    "images": self.images,
                },
            )

    def keep_model(self, cycle: int, backbone: nn.Module) -> None:
        """The backbone in the papers' checkpoint layout, for `alkit evaluate`."""
        if self.path is None:
            return
        path = self.path / "models" / f"active_{self.experiment.model}_{self.experiment.dataset}_cycle{cycle}.pth"
        weights = {k: v.cpu().contiguous() for k, v in backbone.state_dict().items()}
        buffer = io.BytesIO()  # torch's own writer hides why a file cannot be written
        torch.save({"cycle": cycle, "state_dict_backbone": weights}, buffer)
        try:
            with atomic_write(path) as stream:
                stream.write(buffer.getbuffer())
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written ({error.strerror}); the checkpoint is kept") from None

    def finish(
        self, queries: dict[str, np.ndarray], predictions: dict[str, np.ndarray], result: dict[str, Any]
    ) -> None:
        """Write the run's files, the record last; then the checkpoints are no longer needed."""
        if self.path is None:
            return
        self._keep_hold()
        try:
            write_npz(self.path / "queries.npz", queries)
            write_npz(self.path / "predictions.npz", predictions)
            known = fingerprint(self.experiment)
            digests = {"pretext_sha256": known["pretext_losses"], "strategies_sha256": known["strategies"]}
            write_json(self.path / "result.json", result | digests)
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be written ({error.strerror}); the checkpoint is kept"
            ) from None
        remove_checkpoints(self._checkpoint)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it however this process ends."""
        if self.path is None:
            yield
            return
        self._take(self.path)
        try:
            clean_temporary(self.path)
            yield
        finally:
            self._release()

    def _take(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._held = (path / ".lock").open("w")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release()
            raise CheckpointError(f"{path}: another process is running this experiment there") from None

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
        self._held = None

    def _keep_hold(self) -> None:
        """Where the folder was removed under the run, make it again, unless another process has taken it over."""
        if self.path is None or self._held is None:
            return
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._held.fileno()), os.stat(self.path / ".lock")):
                return
        self._release()
        self._take(self.path)

    @property
    def _checkpoint(self) -> Path:
        assert self.path is not None
        return self.path / "checkpoint.pt"

    def _refuse_other(self, params: dict[str, Any]) -> None:
        for key, value in fingerprint(self.experiment).items():
            before = params.get(key)
            unknown = (key == "pretext_losses" and value is None) or (key == "strategies" and None in (before, value))
            if before == value or unknown:  # a file that is gone since, a record of an older version
                continue
            if key == "strategies":
                raise CheckpointError(
                    f"{self.path}: its run was made with other code in {self.experiment.strategies}; "
                    f"begin anew with --rerun {self.experiment.name}, or in another folder"
                )
            raise CheckpointError(
                f"{self.path}: holds a run with {key} = {before!r}, not {value!r}; choose another folder"
            )

    def _refuse_other_first(self, before: str | None) -> None:
        """Refuse a run that began with other images than those that `first_labelled` lists now."""
        if (now := first_digest(self.experiment)) is not None and before not in (now, None):
            raise CheckpointError(
                f"{self.path}: holds a run with other images in first_labelled; choose another folder"
            )

    def _refuse_other_images(self, before: dict[str, Any] | None) -> None:
        """Refuse a run on other images than those of now; what a record of an older version had is not known."""
        if before is not None and (other := difference(before, self.images)) is not None:
            raise CheckpointError(
                f"{self.path}: holds a run on other images of '{self.experiment.dataset}': {other}; "
                "choose another folder"
            )
