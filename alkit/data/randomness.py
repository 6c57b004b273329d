"""All randomness of a run: generators derived from the seed and the name of what they are for.

Because every epoch and every query gets a generator of its own, nothing depends on what ran
before it in the process, and a run that was interrupted needs no generator state to go on.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every one of `names`, and on nothing else."""
    key = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh torch generator on `device` for the purpose `names` of the run `seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A fresh numpy generator for the purpose `names` of the run `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))
