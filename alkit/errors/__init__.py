"""Every error that a user can cause: one clear line, no traceback from the depths, exit status 2.

Beside it `words`: numbers, names and tables as a sentence says them. It knows nothing of the kit.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlkitError(Exception):
    """A mistake in what was asked for, or a state of the machine that the user can mend."""

    def __str__(self) -> str:
        """One line, whatever names and values it quotes: line ends and control characters are spelt out."""
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the line, not the depths that it came from."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(AlkitError, ValueError):
    """A parameter that does not exist, has the wrong type or cannot be met."""


class DataError(AlkitError):
    """Images or labels that are missing, broken or not what they should be."""


class CheckpointError(AlkitError):
    """A checkpoint or record that cannot be read, or that belongs to another run."""


class TrainingError(AlkitError):
    """Training that cannot go on: a loss that is not a number, or no memory left."""


class DivergedError(TrainingError):
    """A number of a training is not finite; `alkit.models.divergence` says which training; `place` is where in it."""

    def __init__(self, what: str, place: str = "") -> None:
        super().__init__(what)
        self.place = place


class OutOfTimeError(AlkitError):
    """The time that the run was given is over; it stands at a checkpoint."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
