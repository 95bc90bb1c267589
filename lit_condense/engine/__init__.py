"""How the matching losses of a block of images and their gradient are computed."""

from lit_condense.engine.engine import Block, BlockResult, Engine, RunningEngine

__all__ = ["Block", "BlockResult", "Engine", "RunningEngine"]
