"""Distribution matching (Zhao, Bilen: *Dataset Condensation with Distribution Matching*, WACV 2023)."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor
from torch.nn import functional as F

from lit_condense.errors import check_choice
from lit_condense.matching.base import MatchingLoss
from lit_condense.matching.quantities import Quantities

FeatureDistance = Literal["squared_l2", "l1"]


class FeatureMatching(MatchingLoss):
    """Sum over classes of the distance between the mean features of real and synthetic images (DM).

    It is summed over the features, never averaged.

    Args:
        joint: Send all classes through the network in one batch, so that batch norm sees the statistics of all of them
            (real and synthetic apart), as DM does with batch-norm networks. Without batch norm it changes nothing.
        weight: Factor on the loss.
        name: Tag in the logs.
        distance: ``squared_l2`` (DM) or ``l1`` (with DREAM+ on MNIST and FashionMNIST).
    """

    needs = frozenset({"features"})
    reads_weights = True

    def __init__(
        self,
        joint: bool = False,
        weight: float = 1.0,
        *,
        name: str | None = None,
        distance: FeatureDistance = "squared_l2",
    ) -> None:
        super().__init__(weight, name)
        check_choice("FeatureMatching.distance", distance, FeatureDistance)
        self.joint = joint
        self.distance = distance
        self.scope = "set" if joint else "class"

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the sum of squared or absolute differences of the class means."""
        difference = class_means(real) - class_means(synthetic)
        return difference.square().sum() if self.distance == "squared_l2" else difference.abs().sum()


def class_means(side: Quantities) -> Tensor:
    """Return the mean feature of every class in the blocks, ``(classes, d)``, in the order of their labels.

    Where images have weights, of ``weight * features``, divided by the number of images.
    """
    features, labels = cast(Tensor, side.features), cast(Tensor, side.labels)
    if side.weights is not None:
        features = side.weights.unsqueeze(2) * features
    if side.classes == 1:  # a block is a class
        return features.mean(1)
    member = F.one_hot(labels.flatten(), side.classes).to(features.dtype)
    return member.T @ features.flatten(0, 1) / member.sum(0).unsqueeze(1)
