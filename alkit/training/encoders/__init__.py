"""Encoders: what makes fixed features of images, without their labels.

Comes in: a set's images. Goes out: a row of numbers an image, in a file that `alkit.data.load_features` reads. An
encoder is one class in one file of this folder (`Encoder`, `register`); it knows nothing of methods or runs.
"""

from alkit.training.encoders.base import Encoder, encoder_named, make_features, refuse_made, register

__all__ = ["Encoder", "encoder_named", "make_features", "refuse_made", "register"]
