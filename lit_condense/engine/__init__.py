"""How an image update is computed."""

from lit_condense.engine.engine import Block, BlockResult, Engine, RunningEngine
from lit_condense.engine.update import UpdateResult, Work, match

__all__ = ["Block", "BlockResult", "Engine", "RunningEngine", "UpdateResult", "Work", "match"]
