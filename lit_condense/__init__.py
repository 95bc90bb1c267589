"""Dataset condensation and selection as PyTorch Lightning modules.

Names are imported when they are asked for, so that ``lit_condense.functional`` can be used without Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lit_condense._version import __version__

if TYPE_CHECKING:
    from lit_condense.export import CondensedSet, load_condensed
    from lit_condense.sets.selected_set import SelectedSet
    from lit_condense.sets.synthetic_set import SyntheticSet

__all__ = ["CondensedSet", "SelectedSet", "SyntheticSet", "__version__", "load_condensed"]

_PLACES = {
    "CondensedSet": "lit_condense.export",
    "load_condensed": "lit_condense.export",
    "SelectedSet": "lit_condense.sets.selected_set",
    "SyntheticSet": "lit_condense.sets.synthetic_set",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
