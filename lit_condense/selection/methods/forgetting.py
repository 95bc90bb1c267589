"""The score of forgetting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lit_condense.errors import DataError, check_choice
from lit_condense.selection.base import Candidates
from lit_condense.selection.candidates import Variant
from lit_condense.selection.scored import ScoreSelection


class Forgetting(ScoreSelection):
    """Most often forgotten: how often training went from right to wrong on an image (Toneva et al., ICLR 2019).

    Args:
        variant: In the definition an image that never was right counts as forgotten more often than all others;
            ``deepcore`` counts it as never forgotten.
    """

    tracks_forgetting: ClassVar[bool] = True

    def __init__(self, variant: Variant = "definition") -> None:
        check_choice("Forgetting.variant", variant, Variant)
        self.variant: Variant = variant

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the counts, with a number for images that never were right."""
        counts = candidates.forgetting
        if counts is None:
            raise DataError(
                "Forgetting needs the forgetting counts of the proxy model's training, but got none. "
                "Track them while it trains."
            )
        never_right = int(counts.max()) + 1 if self.variant == "definition" else 0
        return torch.where(counts < 0, never_right, counts)
