"""The time that runs were given: past it a run stops at a checkpoint, and the same command goes on from there."""

from __future__ import annotations

import os
import time

UNTIL = "ALKIT_UNTIL"
"""Environment variable: seconds since 1970. It reaches every process of a study."""


def passed() -> bool:
    """Whether the time is over; never without a deadline, or with one that is no number."""
    try:
        return time.time() >= float(os.environ[UNTIL])
    except (KeyError, ValueError):
        return False
