"""Representative real images (Liu et al.: *DREAM: Efficient Dataset Distillation by Representative Matching*, 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, check_choice, check_least
from lit_condense.functional.kmeans import Seeding
from lit_condense.matching.base import Progress
from lit_condense.matching.quantity import Need
from lit_condense.networks.features import Features, PixelRange, representatives
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Looks, Sampling
from lit_condense.sharding import Share

LARGEST_GROUP = 50_000
"""Images whose features are held at once; classes beyond that wait for their turn."""


class Representative(Sampling):
    """The images nearest to the k-means centres of each class, in the features of the current inner network (DREAM).

    They are chosen anew every ``interval`` updates of a network and held in between. A part for any method.

    Args:
        batch_size: Real images of a class in an update (published: 128). A smaller class is used whole.
        interval: Updates of a network between two choices (published: 10).
        per_cluster: Images taken from each cluster (published: 1); there are ``batch_size // per_cluster`` clusters.
        subset: Cluster a keyed random subset of so many images of each class; by default the whole class.
        chunk: Images that are gathered and given to the network at once; the engine may cut them further.
        pixels: What the network is given when images are clustered: ``normalized`` as in training, or ``raw`` pixels in
            [0, 1] as DREAM's program does, though it trains the network on normalised ones.
        every_network: Whether a new network always chooses. Where networks serve fewer updates than the interval (DM:
            one each) that would be in nearly every update; False counts the interval in updates of the run.
        seeding: Where k-means starts: ``kmeans++``, or ``random`` images as in DREAM's program.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(
        self,
        batch_size: int = 128,
        interval: int = 10,
        *,
        per_cluster: int = 1,
        subset: int | None = None,
        chunk: int = 512,
        pixels: PixelRange = "normalized",
        every_network: bool = True,
        seeding: Seeding = "kmeans++",
    ) -> None:
        check_choice("Representative.pixels", pixels, PixelRange)
        check_choice("Representative.seeding", seeding, Seeding)
        numbers = {"batch_size": batch_size, "interval": interval, "per_cluster": per_cluster, "chunk": chunk}
        check_least("Representative", 1, **numbers)
        if batch_size % per_cluster:
            raise SettingsError(
                f"Expected Representative.batch_size ({batch_size}) to be a multiple of per_cluster ({per_cluster})."
            )
        if subset is not None and subset < batch_size:
            raise SettingsError(
                f"Expected Representative.subset to be at least batch_size ({batch_size}), got {subset}. Raise it."
            )
        self.batch_size = batch_size
        self.interval = interval
        self.per_cluster = per_cluster
        self.subset = subset
        self.chunk = chunk
        self.pixels: PixelRange = pixels
        self.every_network = every_network
        self.seeding: Seeding = seeding
        self._looks = Looks(interval, every_network)
        self.begin_run()

    def begin_run(self) -> None:
        """Forget what was chosen in another run."""
        self._chosen: dict[int, Tensor] = {}
        self._looks.begin_run()

    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""
        return min(self.batch_size, real.class_sizes[class_index])

    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return the images chosen last; before the first choice, random ones."""
        if class_index not in self._chosen:
            return real.random_of_class(class_index, self.batch_size, key)
        return self._chosen[class_index]

    def refresh(
        self, real: RealImages, features: Features | None, progress: Progress, key: RandomKey, share: Share
    ) -> None:
        """Choose anew if it is time; ranks share out the classes and gather the choice."""
        if not self._looks.due(progress):
            return
        assert features is not None  # the engine gives them, because they are among the needs
        sizes = [self.size(real, c) for c in range(real.num_classes)]
        gathered = torch.zeros(real.num_classes, max(sizes), dtype=torch.int64)
        candidates = {c: self._candidates(real, c, key) for c in share.take(range(real.num_classes))}
        for c, found in self._choose(real, features, candidates, key).items():
            gathered[c, : sizes[c]] = found
        gathered = share.sum(gathered.to(real.device)).cpu()
        self._chosen = {c: gathered[c, :size].clone() for c, size in enumerate(sizes)}

    def state_dict(self) -> dict[str, Any]:
        """Return the chosen indices of each class, and when they were chosen."""
        return {"chosen": dict(self._chosen), "looked": self._looks.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the chosen indices."""
        self._chosen = dict(state["chosen"])
        self._looks.last = state.get("looked")

    def _candidates(self, real: RealImages, c: int, key: RandomKey) -> Tensor:
        if self.subset is None:
            return real.indices_of(c)
        return real.random_of_class(c, self.subset, key.fold("kmeans", c, "subset"))

    def _choose(
        self, real: RealImages, features: Features, candidates: dict[int, Tensor], key: RandomKey
    ) -> dict[int, Tensor]:
        """Return the chosen images of each class; classes with as many candidates go through the network together."""
        chosen = {c: found for c, found in candidates.items() if len(found) <= self.batch_size}
        sizes = {c: len(found) for c, found in candidates.items() if c not in chosen}
        for size in sorted(set(sizes.values())):
            classes = [c for c, n in sizes.items() if n == size]
            together = max(1, LARGEST_GROUP // size)
            for group in (classes[i : i + together] for i in range(0, len(classes), together)):
                indices = torch.stack([candidates[c] for c in group])
                keys = [key.fold("kmeans", c) for c in group]
                found = representatives(
                    *(features, real, indices, self.batch_size, keys),
                    *(self.per_cluster, self.chunk, self.pixels, self.seeding),
                )
                chosen |= dict(zip(group, found, strict=True))
        return chosen
