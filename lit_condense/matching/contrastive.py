"""Contrastive signals (Lee et al.: *Dataset Condensation with Contrastive Signals*, ICML 2022).

DCC matches the gradient of the whole set, after a warm-up that matches class by class: list both losses, they share the
switch. For equal images per class and a network that does not mix samples, the gradient of the whole synthetic set is
the mean of its class gradients, so DCC's loss is a class-mean loss without EGM's factor.

The warm-up's loss is a sum over classes, about so many times larger. The log therefore has the distance between the
whole sets in every update, as DCC's program does: one curve on one scale, whichever loss drives the images.
"""

from __future__ import annotations

from lit_condense.errors import SettingsError
from lit_condense.matching.base import Progress
from lit_condense.matching.gradient import ClassMeanGradientMatching, DistanceName, GradientMatching, Layers

WARM_UP_NETWORKS = 250
WARM_UP_MATCHES = 10


def contrastive(progress: Progress, networks: int, matches: int) -> bool:
    """Whether DCC has switched from class by class to the whole set."""
    return progress.network_index >= networks or progress.match_index >= matches


class ContrastiveGradientMatching(ClassMeanGradientMatching):
    """DCC's loss after its warm-up: the distance between the gradients of the whole sets.

    It is logged during the warm-up too, which costs a first-order pass over the synthetic images.

    Args:
        warm_up_networks: Networks before which it is off (published: 250).
        warm_up_matches: Updates of a network from which it is on even so (published: 10).
        distance: As in :class:`GradientMatching`.
        weight: Factor on the loss.
        name: Tag in the logs.
        layers: As in :class:`GradientMatching`.
    """

    def __init__(
        self,
        warm_up_networks: int = WARM_UP_NETWORKS,
        warm_up_matches: int = WARM_UP_MATCHES,
        *,
        distance: DistanceName = "row_cosine",
        weight: float = 1.0,
        name: str | None = None,
        layers: Layers = "all",
    ) -> None:
        super().__init__(distance, weight, name=name, layers=layers, times_classes=False)
        self.warm_up_networks, self.warm_up_matches = _checked(warm_up_networks, warm_up_matches)

    def weight_at(self, progress: Progress) -> float:
        """Return 0 during the warm-up."""
        return self.weight if contrastive(progress, self.warm_up_networks, self.warm_up_matches) else 0.0

    def watched_at(self, progress: Progress) -> bool:
        """Return True unless it is switched off for the whole run."""
        return self.weight > 0


class WarmUpGradientMatching(GradientMatching):
    """DCC's warm-up: class by class, as DC, until the switch.

    Args:
        warm_up_networks: As in :class:`ContrastiveGradientMatching`.
        warm_up_matches: As in :class:`ContrastiveGradientMatching`.
        distance: As in :class:`GradientMatching`.
        weight: Factor on the loss.
        name: Tag in the logs.
        layers: As in :class:`GradientMatching`.
    """

    def __init__(
        self,
        warm_up_networks: int = WARM_UP_NETWORKS,
        warm_up_matches: int = WARM_UP_MATCHES,
        *,
        distance: DistanceName = "row_cosine",
        weight: float = 1.0,
        name: str | None = None,
        layers: Layers = "all",
    ) -> None:
        super().__init__(distance, weight, name=name, layers=layers)
        self.warm_up_networks, self.warm_up_matches = _checked(warm_up_networks, warm_up_matches)

    def weight_at(self, progress: Progress) -> float:
        """Return 0 after the warm-up."""
        return 0.0 if contrastive(progress, self.warm_up_networks, self.warm_up_matches) else self.weight


def _checked(networks: int, matches: int) -> tuple[int, int]:
    if networks < 0 or matches < 0:
        raise SettingsError(f"Expected a warm-up of 0 or more networks and matches, got {networks} and {matches}.")
    return networks, matches
