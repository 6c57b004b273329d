"""What is queried next. One file a family: pure functions on tensors and one thin Strategy.

Comes in: a pool (logits, features, images, as they are asked for) and a budget. Goes out: positions in the pool.
It knows nothing of training.
"""

from importlib import import_module
from typing import Any

from alkit.strategies.base import Pool, Query, Strategy, TensorPool, make_strategy, register, top_query

__all__ = ["Pool", "Query", "Strategy", "TensorPool", "make_strategy", "register", "top_query"]


def __getattr__(name: str) -> Any:
    """A family of strategies, imported when it is asked for: `alkit.strategies.uncertainty`."""
    try:
        return import_module(f"alkit.strategies.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"alkit.strategies.{name}":
            raise
        raise AttributeError(f"no strategies '{name}'") from None
