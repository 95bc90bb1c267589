"""Load a set from a checkpoint alone: the checkpoint says what the set is made of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from lit_condense.errors import SettingsError
from lit_condense.runs import checkpointing
from lit_condense.runs.resuming import own_part
from lit_condense.sets.rebuilding import arguments_of
from lit_condense.settings import Plain

if TYPE_CHECKING:
    from lit_condense.sets.base import SmallTrainingSet

Kind = TypeVar("Kind", bound="SmallTrainingSet")


def load(cls: type[Kind], path: Any, device: Any, strict: bool, given: Plain) -> Kind:
    """Return a set of class ``cls`` with what a checkpoint holds.

    Args:
        cls: The class.
        path: A path, a URL, or an open file.
        device: Where to load to; None is the CPU.
        strict: Whether the checkpoint must hold just what the set has.
        given: Arguments in place of those that the set was made with.

    Raises:
        CheckpointError: The checkpoint is missing, broken, foreign or unsafe, or names what cannot be made here.
        SettingsError: ``given`` has an argument that the set does not take.
    """
    taken = list(inspect.signature(cls).parameters)
    unknown = sorted(given.keys() - set(taken))
    if unknown:
        raise SettingsError(f"Expected arguments of {cls.__name__} ({', '.join(taken)}), got {', '.join(unknown)}.")
    content = checkpointing.read(path)
    state = own_part(content, cls.checkpoint_format, cls.checkpoint_holds)
    made = cls(**{**arguments_of(cls, state["arguments"], given.keys()), **given})
    made.on_load_checkpoint(content)
    made.load_state_dict(content["state_dict"], strict=strict)
    return made if device is None else made.to(device)
