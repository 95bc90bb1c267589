"""Contrastive active learning (CAL).

Letters: n candidates, d features, K classes, m neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_condense.errors import check_choice, check_least
from lit_condense.functional.geometry import nearest_others, rows_at_once, symmetric_divergence
from lit_condense.selection.base import Candidates
from lit_condense.selection.candidates import Variant, finite_features, log_predictions
from lit_condense.selection.scored import ScoreSelection

NEIGHBOURS = 10
"""Margatina et al., EMNLP 2021."""


class CAL(ScoreSelection):
    """Images that are predicted most unlike their neighbours: contrastive examples, near a boundary between classes.

    The score is the mean of ``(KL(p_i || p_j) + KL(p_j || p_i)) / 2`` over the nearest candidates j in features
    (Euclidean; of equally near ones, the first of the data), the image itself left out; all others where there are
    fewer. Sources: Margatina et al., *Active Learning by Acquiring Contrastive Examples*, EMNLP 2021, algorithm 1;
    Guo et al., DEXA 2022, for neighbours among the candidates and both directions of the divergence.

    Args:
        neighbours: Nearest candidates an image is compared with.
        variant: The definition keeps the largest scores, ``deepcore`` the smallest. (DeepCore looks for neighbours in
            features of a network trained on ImageNet; here they are the proxy model's in both.)
    """

    def __init__(self, neighbours: int = NEIGHBOURS, variant: Variant = "definition") -> None:
        check_least("CAL", 1, neighbours=neighbours)
        check_choice("CAL.variant", variant, Variant)
        self.neighbours = neighbours
        self.variant: Variant = variant

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the mean divergences, negated for ``deepcore``."""
        features = finite_features(candidates, "CAL")
        predicted = log_predictions(candidates, "CAL")
        if len(features) == 1:
            return torch.zeros(1)
        neighbours = nearest_others(features, min(self.neighbours, len(features) - 1))
        rows = rows_at_once(neighbours.shape[1] * predicted.shape[1])
        parts = zip(torch.split(predicted, rows), torch.split(neighbours, rows), strict=True)
        scores = torch.cat([symmetric_divergence(own.unsqueeze(1), predicted[near]).mean(1) for own, near in parts])
        return scores if self.variant == "definition" else -scores
