"""Refuse a run in which nothing is matched for a time, because all losses are switched off."""

from __future__ import annotations

from collections.abc import Sequence

from lit_condense.errors import SettingsError
from lit_condense.inner import InnerLoop
from lit_condense.matching.base import Loss, Progress

UPDATES_LOOKED_AT = 100_000
"""A loss that is asked this often takes a tenth of a second; published runs are shorter or switch earlier."""


def check_schedule(losses: Sequence[Loss], loop: InnerLoop, updates_per_network: int, updates: int) -> None:
    """Refuse losses whose weights are all 0 in some update, where that can be said before the run.

    It can not where weights read numbers about a network, or where the loop says itself which networks an update is
    matched on.

    Args:
        losses: All of the run.
        loop: Its inner loop.
        updates_per_network: Image updates that one network serves.
        updates: Image updates of the run; -1 without an end.

    Raises:
        SettingsError: Nothing is matched in an update.
    """
    always_on = any(loss.weight > 0 and type(loss).weight_at is Loss.weight_at for loss in losses)
    if always_on or loop.gives_numbers or type(loop).networks is not InnerLoop.networks:
        return
    for update in range(UPDATES_LOOKED_AT if updates < 0 else min(updates, UPDATES_LOOKED_AT)):
        network, match = divmod(update, updates_per_network)
        progress = Progress(update, network, match)
        if all(loss.weight_at(progress) == 0 for loss in losses):
            raise SettingsError(
                f"Expected a matching loss that is on in every update, got none in update {update} (network {network}, "
                f"its update {match}, counted from 0): {', '.join(loss.tag for loss in losses)} "
                f"{'is' if len(losses) == 1 else 'are all'} switched off there. Add the loss that takes over, or let "
                "both switch at the same numbers."
            )
