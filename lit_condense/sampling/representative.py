"""Representative real images (Liu et al.: *DREAM: Efficient Dataset Distillation by Representative Matching*, 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.errors import SettingsError
from lit_condense.functional.kmeans import kmeans, nearest_distinct
from lit_condense.matching.base import Need, Progress
from lit_condense.networks import FeaturesAndLogits, evaluating
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Sampling
from lit_condense.sharding import Share


class Representative(Sampling):
    """The images nearest to the k-means centres of each class, in the features of the current inner network (DREAM).

    They are chosen anew every ``interval`` updates of a network and held in between. A part for any method.

    Args:
        batch_size: Real images of a class in an update (published: 128). A smaller class is used whole.
        interval: Updates of a network between two choices (published: 10); a new network always chooses.
        per_cluster: Images taken from each cluster (published: 1); there are ``batch_size // per_cluster`` clusters.
        subset: Cluster a keyed random subset of so many images of each class; by default the whole class.
        chunk: Images that go through the network at once.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(
        self,
        batch_size: int = 128,
        interval: int = 10,
        per_cluster: int = 1,
        subset: int | None = None,
        chunk: int = 500,
    ) -> None:
        numbers = {"batch_size": batch_size, "interval": interval, "per_cluster": per_cluster, "chunk": chunk}
        for name, value in numbers.items():
            if value < 1:
                raise SettingsError(f"Expected Representative.{name} to be 1 or more, got {value}.")
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
        self._chosen: dict[int, Tensor] = {}

    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""
        return min(self.batch_size, real.class_sizes[class_index])

    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return the images chosen last; before the first choice, random ones."""
        if class_index not in self._chosen:
            return real.random_of_class(class_index, self.batch_size, key)
        return self._chosen[class_index]

    def refresh(
        self, real: RealImages, outputs: FeaturesAndLogits | None, progress: Progress, key: RandomKey, share: Share
    ) -> None:
        """Choose anew if it is time; ranks share out the classes and gather the choice."""
        if progress.match_index % self.interval:
            return
        assert outputs is not None  # the engine binds them, because features are among the needs
        sizes = [self.size(real, c) for c in range(real.num_classes)]
        gathered = torch.zeros(real.num_classes, max(sizes), dtype=torch.int64)
        for c in share.take(range(real.num_classes)):
            gathered[c, : sizes[c]] = self._choose(real, outputs, c, key.fold("kmeans", c))
        gathered = share.sum(gathered.to(real.device)).cpu()
        self._chosen = {c: gathered[c, :size].clone() for c, size in enumerate(sizes)}

    def state_dict(self) -> dict[str, Any]:
        """Return the chosen indices of each class."""
        return {"chosen": dict(self._chosen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the chosen indices."""
        self._chosen = dict(state["chosen"])

    def _choose(self, real: RealImages, outputs: FeaturesAndLogits, c: int, key: RandomKey) -> Tensor:
        candidates = real.indices_of(c)
        if self.subset is not None:
            candidates = real.random_of_class(c, self.subset, key.fold("subset"))
        if len(candidates) <= self.batch_size:
            return candidates
        return representatives(outputs, real, candidates, self.batch_size, key, self.per_cluster, self.chunk)


def representatives(
    outputs: FeaturesAndLogits,
    real: RealImages,
    candidates: Tensor,
    count: int,
    key: RandomKey,
    per_cluster: int = 1,
    chunk: int = 500,
) -> Tensor:
    """Return ``count`` different images among ``candidates``: those nearest to the centres of their clusters.

    Args:
        outputs: Features of the network to look through; left in the mode it is in.
        real: The real images; they are normalised, as the network is used to, and not augmented.
        candidates: Indices into ``real``.
        count: How many, a multiple of ``per_cluster``.
        key: Names the start of k-means.
        per_cluster: Images taken from each cluster.
        chunk: Images that go through the network at once.
    """
    features = chunked_features(outputs, real, candidates, chunk)
    centres = kmeans(features, count // per_cluster, key.generator())
    return candidates[nearest_distinct(features, centres, per_cluster)]


def chunked_features(outputs: FeaturesAndLogits, real: RealImages, indices: Tensor, chunk: int) -> Tensor:
    """Return the features of real images, ``(n, d)``, in evaluation mode and without a graph."""
    dtype = next(outputs.parameters()).dtype
    with evaluating(outputs), torch.no_grad():
        return torch.cat([outputs(real.at(part).to(dtype))[0] for part in torch.split(indices, chunk)])
