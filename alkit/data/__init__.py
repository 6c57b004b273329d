"""Named data sets, one's own folders of images, and augmentation on the device.

Comes in: files, arrays, or the name of a set. Goes out: an `ImageSet` for training and one for tests, known by
the digest of their pixels. It knows nothing of models or methods.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alkit.data.facts import Facts, facts_of, pool_facts
    from alkit.data.features import Features, load_features
    from alkit.data.identity import digest, fingerprint
    from alkit.data.imageset import ImageSet, from_arrays
    from alkit.data.own import images_for, own_experiment
    from alkit.data.registry import DATASETS, load_dataset, load_for, load_whole

_HOMES = {
    "facts": ("Facts", "facts_of", "pool_facts"),
    "features": ("Features", "load_features"),
    "identity": ("digest", "fingerprint"),
    "imageset": ("ImageSet", "from_arrays"),
    "own": ("images_for", "own_experiment"),
    "registry": ("DATASETS", "load_dataset", "load_for", "load_whole"),
}

__all__ = [
    "DATASETS", "Facts", "Features", "ImageSet", "digest", "facts_of", "fingerprint", "from_arrays", "images_for",
    "load_dataset", "load_features", "load_for", "load_whole", "own_experiment", "pool_facts",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: processes that only decode must start without torch."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"alkit.data.{home}"), name)
    raise AttributeError(f"module 'alkit.data' has no attribute '{name}'")
