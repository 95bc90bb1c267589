"""What an inner loop of one's own must return, and how it must leave the network."""

from __future__ import annotations

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
