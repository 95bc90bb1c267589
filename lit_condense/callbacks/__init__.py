"""Life-cycle helpers that no result depends on."""

from lit_condense.callbacks.dashboard import Dashboard
from lit_condense.callbacks.final_report import FinalReport
from lit_condense.callbacks.save_on_signal import SaveOnSignal, SaveOnSigterm

__all__ = ["Dashboard", "FinalReport", "SaveOnSignal", "SaveOnSigterm"]
