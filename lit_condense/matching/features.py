"""Distribution matching (Zhao, Bilen: *Dataset Condensation with Distribution Matching*, WACV 2023)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.matching.base import MatchingLoss, Quantities


class FeatureMatching(MatchingLoss):
    """Sum over classes of the squared L2 distance between the mean features of real and synthetic images (DM).

    Squares are summed over the features, never averaged.

    Args:
        joint: Send all classes through the network in one batch, so that batch norm sees the statistics of all of them
            (real and synthetic apart), as DM does with batch-norm networks. Without batch norm it changes nothing.
        weight: Factor on the loss.
        name: Tag in the logs.
    """

    needs = frozenset({"features"})

    def __init__(self, joint: bool = False, weight: float = 1.0, name: str | None = None) -> None:
        super().__init__(weight, name)
        self.joint = joint
        self.scope = "set" if joint else "class"

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the sum of squared differences of the class means."""
        return (class_means(real) - class_means(synthetic)).square().sum()


def class_means(side: Quantities) -> Tensor:
    """Return the mean feature of every class in the blocks, ``(classes, d)``, in the order of their labels."""
    features = cast(Tensor, side.features).flatten(0, 1)
    _, position = torch.unique(cast(Tensor, side.labels).flatten(), return_inverse=True)
    member = F.one_hot(position).to(features.dtype)
    return member.T @ features / member.sum(0).unsqueeze(1)
