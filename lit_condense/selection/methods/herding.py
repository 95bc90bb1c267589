"""Herding.

Letters: n candidates, d features, k images to keep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_condense.errors import check_choice
from lit_condense.functional.geometry import euclidean, mean_feature
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.candidates import Variant, finite_features, in_index_order


class Herding(Selection):
    """Images whose running mean of features stays nearest to the mean of all candidates.

    With mean ``mu`` and ``z_s`` chosen so far, the next is ``argmin_x |(t + 1) mu - sum_{s <= t} z_s - z_x|``; the
    error of the mean falls about as 1/k. Each image is taken once; of equals, the first image of the data.
    Source: Welling, *Herding Dynamical Weights to Learn*, ICML 2009.

    Args:
        variant: ``deepcore`` takes the argmax of the same distance instead.
    """

    def __init__(self, variant: Variant = "definition") -> None:
        check_choice("Herding.variant", variant, Variant)
        self.variant: Variant = variant

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return ``count`` candidates in the order of herding; nothing is drawn.

        Raises:
            DataError: Features are NaN or infinite.
        """
        ordered, order = in_index_order(candidates)
        features = finite_features(ordered, "Herding")
        return Choice(order[_herd(features, count, farthest=self.variant == "deepcore")])


def _herd(features: Tensor, count: int, farthest: bool) -> Tensor:
    """Return ``(count,)`` different rows, on the CPU, in the order they were picked."""
    mean = mean_feature(features)
    wanted = mean.clone()  # (t + 1) mu minus the sum of the chosen
    taken = torch.zeros(len(features), dtype=torch.bool, device=features.device)
    chosen: list[int] = []
    for _ in range(count):
        distances = euclidean(features, wanted)
        if farthest:
            index = int(distances.masked_fill(taken, -1).argmax())
        else:
            index = int(distances.masked_fill(taken, torch.inf).argmin())
        chosen.append(index)
        taken[index] = True
        wanted += mean - features[index]
    return torch.tensor(chosen)
