"""Contrastive active learning (CAL).

Letters: n candidates, d features, K classes, m neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_condense.errors import SettingsError, check_choice
from lit_condense.selection.base import Candidates
from lit_condense.selection.contextual_diversity import log_predictions, symmetric_divergence
from lit_condense.selection.herding import finite_features, mean_feature
from lit_condense.selection.scores import ScoreSelection, Variant

NEIGHBOURS = 10
"""Margatina et al., EMNLP 2021."""

BLOCK_ENTRIES = 2**22
"""Distances (or probabilities) held at a time: 16 MiB in float32, and some times that to rank them."""


class CAL(ScoreSelection):
    """Images that are predicted most unlike their neighbours: contrastive examples, near a boundary between classes.

    The score is the mean of ``(KL(p_i || p_j) + KL(p_j || p_i)) / 2`` over the nearest candidates j in features
    (Euclidean; of equally near ones, the first of the data), the image itself left out; all others where there are
    fewer. Sources: Margatina et al., *Active Learning by Acquiring Contrastive Examples*, EMNLP 2021, algorithm 1;
    Guo et al., DEXA 2022, for neighbours among the candidates and both directions of the divergence.

    Args:
        neighbours: Nearest candidates an image is compared with.
        variant: The definition keeps the largest scores, ``deepcore`` the smallest. (DeepCore looks for neighbours in
            features of a network trained on ImageNet; here they are the scoring network's in both.)
    """

    def __init__(self, neighbours: int = NEIGHBOURS, variant: Variant = "definition") -> None:
        if neighbours < 1:
            raise SettingsError(f"Expected CAL.neighbours to be 1 or more, got {neighbours}.")
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
        rows = _rows_at_once(neighbours.shape[1] * predicted.shape[1])
        parts = zip(torch.split(predicted, rows), torch.split(neighbours, rows), strict=True)
        scores = torch.cat([symmetric_divergence(own.unsqueeze(1), predicted[near]).mean(1) for own, near in parts])
        return scores if self.variant == "definition" else -scores


def nearest_others(features: Tensor, count: int) -> Tensor:
    """Return the ``count`` nearest other rows of each row of ``(n, d)`` features: ``(n, count)``, ascending."""
    centred = features - mean_feature(features).to(features.dtype)  # small norms: products round less
    norms = torch.linalg.vector_norm(centred, dim=1).square()
    found = []
    for rows in torch.split(torch.arange(len(features), device=features.device), _rows_at_once(len(features))):
        # squared distances less the row's own squared norm, which changes no order
        distances = torch.addmm(norms, centred[rows], centred.T, alpha=-2)
        distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        found.append(_smallest(distances, count))
    return torch.cat(found)


def _smallest(values: Tensor, count: int) -> Tensor:
    """Return the columns of the ``count`` smallest values of each row, ascending; of equal values, the first ones."""
    # topk alone takes any of the equal ones, and sorting takes longer than the distances
    largest = values.topk(count, dim=1, largest=False).values[:, -1:]
    below, equal = values < largest, values == largest
    free = count - below.sum(1, keepdim=True)
    kept = below | (equal & (equal.cumsum(1, dtype=torch.int32) <= free))
    return kept.nonzero()[:, 1].view(-1, count)


def _rows_at_once(entries: int) -> int:
    return max(1, BLOCK_ENTRIES // entries)
