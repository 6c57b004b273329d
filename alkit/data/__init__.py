"""Named data sets, one's own folders of images, and augmentation on the device."""

from alkit.data.imageset import ImageSet, from_arrays
from alkit.data.registry import DATASETS, load_dataset, load_for, pool_facts

__all__ = ["DATASETS", "ImageSet", "from_arrays", "load_dataset", "load_for", "pool_facts"]
