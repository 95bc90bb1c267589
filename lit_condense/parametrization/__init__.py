"""How the synthetic images are stored."""

import importlib
import warnings
from typing import Any

from lit_condense.parametrization.base import Parametrization
from lit_condense.parametrization.multi_formation import MultiFormation
from lit_condense.parametrization.pixels import Pixels

__all__ = ["MultiFormation", "Parametrization", "Pixels"]

MOVED = ("Clustered", "FirstReal", "FromFile", "Initialization", "Noise", "RandomReal", "Selected")
"""Starts, which have a room of their own since 0.2; their old names go with the next release."""


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"lit_condense.parametrization.{name} has moved to lit_condense.init.{name}; the old name goes with the next "
        "release.",
        FutureWarning,
        stacklevel=2,
    )
    return getattr(importlib.import_module("lit_condense.init"), name)
