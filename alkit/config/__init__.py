"""Experiment: the one place where a parameter of a run exists; Study: which runs belong together.

Comes in: YAML, or parameters from Python. Goes out: checked values, or one line that names the mistake. It knows the
tables of methods and quirks, and neither torch nor images.
"""

from alkit.config.experiment import DATA_OPTIONS, ECE_BINS, FREE_PARAMETERS, PATHS, Experiment
from alkit.config.study import Study

__all__ = ["DATA_OPTIONS", "ECE_BINS", "FREE_PARAMETERS", "PATHS", "Experiment", "Study"]
