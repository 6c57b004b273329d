"""What is written to disk, whole or not at all: files, checkpoints, weights, lists of losses, signs of life.

Comes in: paths, bytes, tensors. Goes out: files that are complete, and what was read back and checked. It knows the
machine's folders and nothing of experiments.
"""
