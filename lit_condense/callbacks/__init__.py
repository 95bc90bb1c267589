"""Life-cycle helpers that no result depends on."""

from lit_condense.callbacks.dashboard import Dashboard
from lit_condense.callbacks.final_report import FinalReport

__all__ = ["Dashboard", "FinalReport"]
