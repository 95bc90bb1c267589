"""How an image update is computed."""

from lit_condense.engine.engine import Block, BlockResult, Engine, RunningEngine

__all__ = ["Block", "BlockResult", "Engine", "RunningEngine"]
