"""Look before a run for times in which nothing is matched, because all losses are switched off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning.pytorch.utilities import rank_zero_warn

from lit_condense.errors import SettingsError
from lit_condense.inner import InnerLoop
from lit_condense.matching.base import Loss, Progress

UPDATES_LOOKED_AT = 100_000
"""A loss that is asked this often takes a tenth of a second; published runs are shorter or switch earlier."""


def check_numbers(losses: Sequence[Loss], loop: InnerLoop) -> None:
    """Refuse losses whose weight reads a number about the network that the inner loop does not give.

    Raises:
        SettingsError: One does.
    """
    for owner, names in [(loop, loop.gives), *((loss, loss.reads) for loss in losses)]:
        if not isinstance(names, frozenset | set):
            said = f"{type(owner).__name__}.{'gives' if owner is loop else 'reads'}"
            raise SettingsError(f"Expected {said} to be a frozenset of names, got {names!r}.")
    for loss in losses:
        missing = sorted(loss.reads - loop.gives)
        if missing:
            raise SettingsError(
                f"Expected an inner loop that gives {', '.join(missing)} of its networks, which the weight of "
                f"{loss.tag} reads, got {type(loop).__name__}, which gives {sorted(loop.gives) or 'none'}. Take "
                "a model.inner that does (Pool with networks that are trained gives their accuracy), or return it from "
                "`numbers` and name it in `gives` of your own."
            )


def check_schedule(losses: Sequence[Loss], loop: InnerLoop, updates_per_network: int, updates: int) -> None:
    """Refuse losses that are all off for a network's whole life; warn where they are for a shorter time.

    A loss that grows from 0 or skips updates is the user's choice, and one that waits for another that is not there is
    hardly. Nothing is said where weights read numbers about a network, or where the loop says itself which networks an
    update is matched on.

    Args:
        losses: All of the run.
        loop: Its inner loop.
        updates_per_network: Image updates that one network serves.
        updates: Image updates of the run; -1 without an end.

    Raises:
        SettingsError: Nothing is matched on some network, or in the whole run.
    """
    always_on = any(loss.weight > 0 and type(loss).weight_at is Loss.weight_at for loss in losses)
    if always_on or loop.gives_numbers or type(loop).networks is not InnerLoop.networks:
        return
    looked_at = UPDATES_LOOKED_AT if updates < 0 else min(updates, UPDATES_LOOKED_AT)
    gaps = list(_gaps(losses, updates_per_network, looked_at))
    if not gaps:
        return
    longest = max(gaps, key=len)
    first, last = longest[0], longest[-1]
    found = (
        f"no matching loss is on in updates {first} to {last} (from network {first // updates_per_network}, its update "
        f"{first % updates_per_network}, all counted from 0): {', '.join(loss.tag for loss in losses)} "
        f"{'is' if len(losses) == 1 else 'are all'} switched off there. Add the loss that takes over, or let both "
        "switch at the same numbers."
    )
    if len(longest) >= min(max(updates_per_network, 2), looked_at):
        raise SettingsError(f"Expected something to be matched all along, but {found}")
    rank_zero_warn(f"There are times when {found}")


def _gaps(losses: Sequence[Loss], updates_per_network: int, updates: int) -> Iterator[range]:
    """Go through the runs of updates in which all weights are 0."""
    start = None
    for update in range(updates + 1):
        progress = Progress(update, *divmod(update, updates_per_network))
        off = update < updates and all(loss.weight_at(progress) == 0 for loss in losses)
        if off and start is None:
            start = update
        elif not off and start is not None:
            yield range(start, update)
            start = None
