"""Gradient matching, class by class and on the mean over classes.

* Zhao, Mopuri, Bilen: *Dataset Condensation with Gradient Matching*, ICLR 2021 (DC).
* Jiang, Gu, Liu, Pan: *Delving into Effective Gradient Matching for Dataset Condensation*, 2022 (EGM).
* Kim et al.: *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML 2022 (IDC).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from lit_condense.errors import SettingsError, check_choice
from lit_condense.functional import distances
from lit_condense.matching.base import MatchingLoss
from lit_condense.matching.quantities import Quantities

DistanceName = Literal[
    "row_cosine", "row_cosine_clamped", "row_cosine_norm", "squared_l2", "l1", "l1_mean", "global_cosine"
]
DISTANCES: dict[str, distances.Distance] = {
    "row_cosine": distances.row_cosine,
    "row_cosine_clamped": distances.row_cosine_clamped,
    "row_cosine_norm": distances.row_cosine_norm,
    "squared_l2": distances.squared_l2,
    "l1": distances.l1,
    "l1_mean": distances.l1_mean,
    "global_cosine": distances.global_cosine,
}
Layers = Literal["all", "convolutions", "weights"]
MATCHED: dict[str, Callable[[int], bool]] = {
    "all": lambda dimensions: True,
    "convolutions": lambda dimensions: dimensions == 4,
    "weights": lambda dimensions: dimensions >= 2,
}
"""Whether a parameter of so many dimensions is matched, for each choice of layers."""


class GradientMatching(MatchingLoss):
    """Sum over classes of a distance between the real and the synthetic class gradient (DC, eq. 4 to 9).

    Args:
        distance: ``row_cosine`` (DC: 1 - cosine for each output unit), ``row_cosine_clamped`` (the same without DC's
            epsilon, as in EGM's program), ``row_cosine_norm`` (EGM: plus the norm of the difference); they skip 1-D
            parameters. ``squared_l2``, ``l1``, ``l1_mean`` (IDC's metrics) and ``global_cosine`` read every parameter
            they are given. All are sums, never means.
        weight: Factor on the loss.
        name: Tag in the logs.
        layers: ``all``; only the weights of ``convolutions`` (IDC); or all ``weights``, without biases and the like
            (the ``fc`` option of IDC's program).
    """

    def __init__(
        self,
        distance: DistanceName = "row_cosine",
        weight: float = 1.0,
        *,
        name: str | None = None,
        layers: Layers = "all",
    ) -> None:
        super().__init__(weight, name)
        owner = type(self).__name__
        check_choice(f"{owner}.distance", distance, DistanceName)
        check_choice(f"{owner}.layers", layers, Layers)
        self.distance = distance
        self.layers = layers

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the distance summed over the class blocks."""
        return DISTANCES[self.distance](self._compared(real), self._compared(synthetic)).sum()

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network none of whose parameters would be matched."""
        if not any(MATCHED[self.layers](p.ndim) for p in network.parameters() if p.requires_grad):
            raise SettingsError(
                f"{type(self).__name__}.layers: {self.layers} needs a network with {self.layers}, this one has none. "
                "Choose layers: all."
            )

    def _compared(self, side: Quantities) -> dict[str, Tensor]:
        # the first dimension of a gradient counts the blocks
        return {name: g for name, g in side.gradients.items() if MATCHED[self.layers](g.ndim - 1)}


class ClassMeanGradientMatching(GradientMatching):
    """The same distance between the *means over all classes* of the class gradients (EGM's inter-class level).

    Exact for every block size and number of ranks.

    Args:
        distance: As in :class:`GradientMatching`.
        weight: Factor on the loss.
        name: Tag in the logs.
        layers: As in :class:`GradientMatching`.
        times_classes: Multiply by the number of classes, as EGM does to bring it to the scale of the sum over classes.
    """

    scope = "mean"

    def __init__(
        self,
        distance: DistanceName = "row_cosine",
        weight: float = 1.0,
        *,
        name: str | None = None,
        layers: Layers = "all",
        times_classes: bool = True,
    ) -> None:
        super().__init__(distance, weight, name=name, layers=layers)
        self.times_classes = times_classes

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the distance between the means, times the number of classes if so set."""
        return super().loss(real, synthetic) * (real.classes if self.times_classes else 1)
