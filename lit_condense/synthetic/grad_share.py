"""How much each matching loss says: the share of its own gradient in the image gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.errors import SettingsError

INERT_BELOW = 0.01
INERT_LOOKS = 3
"""Looks in a row at which a loss is below that share before a run warns."""


class GradShares:
    """Looks every so many updates at the share of each loss, and warns once of a loss that does nothing.

    The share of a loss is the Euclidean norm of its own weighted image gradient over that of their sum, each summed
    over the ranks. Shares do not add up to 1: gradients of losses that pull the same way are shorter than their sum.

    Args:
        every: Updates between two looks; None: never.
    """

    def __init__(self, every: int | None) -> None:
        if every is not None and every < 1:
            raise SettingsError(f"Expected grad_share_every to be 1 or more updates, or null for never, got {every}.")
        self.every = every
        self._low: Counter[str] = Counter()
        self._warned: set[str] = set()

    def due(self, update: int, tags: Sequence[str]) -> bool:
        """Return whether this update looks: there is nothing to share with one loss on."""
        return self.every is not None and update % self.every == 0 and len(tags) > 1

    def look(
        self,
        total: Tensor,
        tags: Sequence[str],
        gradient_of: Callable[[str], Tensor],
        sum_of: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Return the share of each loss, a 0-dimensional tensor; NaN where the sum is 0.

        Args:
            total: This rank's part of the image gradient.
            tags: The losses that are on.
            gradient_of: Gives this rank's part of the weighted image gradient of one loss.
            sum_of: Sums over the ranks.
        """
        whole = torch.linalg.vector_norm(sum_of(total))
        shares = {tag: torch.linalg.vector_norm(sum_of(gradient_of(tag))) / whole for tag in tags}
        for tag, share in shares.items():
            self._note(tag, float(share))
        return shares

    def _note(self, tag: str, share: float) -> None:
        self._low[tag] = self._low[tag] + 1 if share < INERT_BELOW else 0
        if self._low[tag] == INERT_LOOKS and tag not in self._warned:
            self._warned.add(tag)
            rank_zero_warn(
                f"{tag} makes {share:.2%} of the image gradient (below {INERT_BELOW:.0%} at {INERT_LOOKS} looks in a "
                f"row, {self.every} updates apart): it hardly changes the images. Raise its weight (for "
                "CurvatureMatching: rho), or leave it out."
            )
