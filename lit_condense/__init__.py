"""Dataset condensation and selection as PyTorch Lightning modules."""

from lit_condense._version import __version__
from lit_condense.export import CondensedSet, load_condensed
from lit_condense.sets.selected_set import SelectedSet
from lit_condense.sets.synthetic_set import SyntheticSet

__all__ = ["CondensedSet", "SelectedSet", "SyntheticSet", "__version__", "load_condensed"]
