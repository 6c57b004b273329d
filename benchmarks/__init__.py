"""Measurements of the kit's speed, as ratios of interleaved runs in one process: `python -m benchmarks`."""
