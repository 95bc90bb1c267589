"""What an inner loop of one's own must return, and how it must leave the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from lit_condense.errors import SettingsError, described, is_count
from lit_condense.inner.base import InnerLoop


def updates(loop: InnerLoop, found: Any) -> int:
    """Return how many updates a network serves."""
    if not is_count(found):
        raise SettingsError(
            f"Expected {type(loop).__name__}.updates_per_network to return a whole number, 1 or more, got {found!r}."
        )
    return int(found)


def one_by_one(loop: InnerLoop) -> bool:
    """Return whether the networks of a run come one after the other, each for as many updates as the loop says."""
    return type(loop).networks is InnerLoop.networks and type(loop).alive is InnerLoop.alive


@dataclass(frozen=True)
class Slots:
    """Which of the run's networks an update is about."""

    alive: list[int]
    """Those that are kept."""
    matched: list[int]
    """Those that images are matched on."""
    trained: list[int]
    """Those that are trained after it."""


def slots_of(loop: InnerLoop, update: int, updates_per_network: int) -> Slots:
    """Return which networks an update is about, if the loop names them in a way that can be."""
    alive, later = (_slots(loop, "alive", update + after, updates_per_network) for after in (0, 1))
    matched = _slots(loop, "networks", update, updates_per_network)
    trained = _slots(loop, "trained_after", update, updates_per_network)
    for name, slots, among in (
        ("networks", matched, alive),
        ("trained_after", trained, [s for s in alive if s in later]),
    ):
        if not set(slots) <= set(among):
            raise SettingsError(
                f"Expected {type(loop).__name__}.{name} to name networks that are alive, {among} in update {update}, "
                f"got {slots}. Name them in `alive` too."
            )
    if not matched:
        raise SettingsError(f"Expected {type(loop).__name__}.networks to name one or more networks, got none.")
    return Slots(alive, matched, trained)


def _slots(loop: InnerLoop, method: str, update: int, updates_per_network: int) -> list[int]:
    found: Any = getattr(loop, method)(update, updates_per_network)
    if not isinstance(found, list) or len(set(found)) < len(found) or not all(is_count(slot + 1) for slot in found):
        raise SettingsError(
            f"Expected {type(loop).__name__}.{method} to return a list of different whole numbers, 0 or more, got "
            f"{found!r}."
        )
    return found


def checked_numbers(loop: InnerLoop, found: Any) -> dict[str, float]:
    """Return what a loop says about a network, if it is finite numbers by name."""
    missing = sorted(loop.gives - found.keys()) if isinstance(found, dict) else []
    if missing:
        raise SettingsError(
            f"Expected {type(loop).__name__}.numbers to return {', '.join(sorted(loop.gives))}, as its `gives` says, "
            f"got {', '.join(sorted(map(str, found))) or 'none'}."
        )
    if not isinstance(found, dict) or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in found.values()
    ):
        raise SettingsError(
            f"Expected {type(loop).__name__}.numbers to return a dict of finite numbers, got {found!r}. Use .item()."
        )
    return found


def trained_in_place(loop: InnerLoop, method: str, result: object, network: nn.Module, now: nn.Module) -> None:
    """Refuse an inner loop that did not leave the network where and as it was, but for its weights.

    Args:
        loop: The loop.
        method: What was called.
        result: What it returned.
        network: The inner network before.
        now: And after.
    """
    owner = f"{type(loop).__name__}.{method}"
    if result is not None:
        raise SettingsError(
            f"Expected {owner} to train the network in place and to return nothing, got {described(result)}."
        )
    if now is not network:
        raise SettingsError(
            f"Expected {owner} to train the network that it is given, it put another {type(now).__name__} in its "
            "place. Load new weights into the network that is there."
        )
    if not network.training:
        raise SettingsError(
            f"Expected {owner} to leave the network in training mode, it left it in evaluation mode. Call "
            "network.train(), or look through lit_condense.networks.evaluating."
        )
