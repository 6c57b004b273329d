"""Training that diverges: numbers that have to be finite are looked at here, and what is said of them stands here.

`require_finite` looks, once an epoch or a pass, at what lies on the device; `of_training` says which training it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from alkit.errors import DivergedError, TrainingError


def require_finite(values: Tensor, what: str, each: str = "") -> Tensor:
    """`values` themselves. Raises `DivergedError` if one of them is not finite, after a single read from the device.

    `each` is what the values (n,) are counted in, where the line is to name the first that is not finite.
    """
    if not bool(values.isfinite().all()):
        first = f"{each} {int((~values.isfinite()).nonzero()[0]) + 1}" if each else ""
        raise DivergedError(f"{what} is not a number", first)
    return values


def finite_outputs(outputs: list[Tensor]) -> list[Tensor]:
    """Outputs of a model on many images, all of them looked at with one read."""
    if outputs and not bool(torch.stack([each.isfinite().all() for each in outputs]).all()):
        raise DivergedError("an output of the model is not a number")
    return outputs


@contextmanager
def of_training(
    parameter: str, rate: float, *, cycle: int | None = None, place: str = "", after: str = "", other: str = ""
) -> Iterator[None]:
    """Within: a `DivergedError` becomes a `TrainingError` that names the cycle, the place, the rate and its parameter.

    `place` is the epoch under way, `after` the epoch or step that was the last; `other` may help as well as a lower
    `parameter`, of which `rate` is the value then.
    """
    try:
        yield
    except DivergedError as error:
        parts = [f"cycle {cycle}" if cycle else "", place, f"after {after}" if after else "", error.place]
        where = ", ".join(filter(None, parts))
        advice = f"a lower {parameter}{other and f', or {other},'} may help"
        raise TrainingError(
            f"{error}{'' if where.startswith('after') else ' in'} {where} (learning rate {rate:g}); {advice}"
        ) from None


__all__ = ["finite_outputs", "of_training", "require_finite"]
