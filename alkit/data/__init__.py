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
    from alkit.data.registry import DATASETS, load_dataset, load_for

_HOMES = {
    "Facts": "facts",
    "Features": "features",
    "digest": "identity",
    "facts_of": "facts",
    "fingerprint": "identity",
    "ImageSet": "imageset",
    "from_arrays": "imageset",
    "DATASETS": "registry",
    "images_for": "own",
    "own_experiment": "own",
    "load_dataset": "registry",
    "load_features": "features",
    "load_for": "registry",
    "pool_facts": "facts",
}

__all__ = [
    "DATASETS", "Facts", "Features", "ImageSet", "digest", "facts_of", "fingerprint", "from_arrays", "images_for",
    "load_dataset", "load_features", "load_for", "own_experiment", "pool_facts",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: processes that only decode must start without torch."""
    if name in _HOMES:
        return getattr(import_module(f"alkit.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'alkit.data' has no attribute '{name}'")
