"""Our part of a checkpoint, and under which settings a run may go on from it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lit_condense.errors import CheckpointError
from lit_condense.settings import Plain, differences, with_new_defaults


def own_part(content: dict[str, Any], expected: int, holds: str = "images") -> dict[str, Any]:
    """Return our part of a checkpoint.

    Args:
        content: The checkpoint.
        expected: Its format.
        holds: What is in its ``state_dict``: ``images`` of a synthetic set, ``indices`` of a selected one.
    """
    state = content.get("lit_condense")
    if not isinstance(state, dict) or holds not in content.get("state_dict", {}):
        kind = "synthetic" if holds == "images" else "selected"
        raise CheckpointError(
            f"Expected a checkpoint of a lit_condense {kind} set, got one with the entries {sorted(content)}. "
            "Give the path of a checkpoint that `lit-condense fit` wrote."
        )
    if state.get("format") != expected:
        raise CheckpointError(
            f"Expected checkpoint format {expected}, got {state.get('format')}. Use the lit_condense version that "
            "wrote it."
        )
    return state


def insist_on_same_settings(before: Plain, now: Plain) -> None:
    """Refuse to go on under other settings than those a checkpoint was written with."""
    lines = differences(with_new_defaults(before, now), now)
    if lines:
        raise CheckpointError(
            "Expected the settings that the checkpoint was written with, got others:\n  "
            + "\n  ".join(lines)
            + "\nPut them back, or start a new run without ckpt_path."
        )


def warn_of_other_plan(before: str, now: str) -> None:
    """Warn where a run goes on with other arithmetic than that of its checkpoint."""
    if before != now:
        rank_zero_warn(
            f"The checkpoint was written with other arithmetic ({before}) than this run uses ({now}): the result will "
            "agree to rounding, not to the byte."
        )
