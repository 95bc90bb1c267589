"""Importance sampling of real images by the norms of their last-layer gradients.

An estimated mean gradient varies least where images are drawn in proportion to the norms of their gradients (Zhao,
Zhang: *Stochastic Optimization with Importance Sampling for Regularized Loss Minimization*, ICML 2015). What a forward
pass tells of the last layer stands in for the norm over all layers (Katharopoulos, Fleuret: *Not All Samples Are
Created Equal: Deep Learning with Importance Sampling*, ICML 2018).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, check_least
from lit_condense.matching.base import Progress
from lit_condense.matching.quantity import Need
from lit_condense.networks.features import Features, chunked_gradient_norms
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Looks, Sampling
from lit_condense.sharding import Share


class Importance(Sampling):
    """Images drawn with probability by how much they pull at the current inner network, and weighed by the inverse.

    Of the N images of a class, image i is drawn, with replacement, with probability

        ``p_i = (1 - uniform) * s_i / sum(s) + uniform / N``,   ``s_i = |softmax(z_i) - y_i| * sqrt(1 + |f_i|^2)``,

    where s is the norm of its cross-entropy gradient in the last layer (logits z, features f, one-hot label y; bias
    included). It counts ``1 / (N p_i)``: the mean over a batch is then an unbiased estimate of the mean over the class,
    whatever the probabilities are. That holds although they are of images without augmentation and of a network some
    updates ago, because both are fixed before the images and their augmentation are drawn; it does not where the layers
    mix the images of a batch. A part for any method whose losses weigh real images (all that come with the library).

    Args:
        batch_size: Real images of a class in an update, some of them twice. A class with at most so many images is used
            whole, each image once and all alike.
        interval: Updates of a network between two looks at the real images.
        subset: Look at a keyed random subset of so many images of each class, and draw from it until the next look; by
            default at the whole class. N is then the size of the subset, and the mean over subsets that of the class: a
            look costs less, and an estimate varies with the subset too.
        uniform: Share of the uniform distribution, in [0, 1]; 1 draws all alike, and 0 ends a run whose network comes
            to be sure of an image, which could never be drawn. No image counts more than ``1 /
            uniform``: at 0.1 ten times, which keeps an image whose gradient has grown since the last look from
            dominating an update, and leaves nine tenths of the draws to the norms.
        chunk: Images that are gathered and given to the network at once; the engine may cut them further.
        every_network: Whether another network than the last one is always looked at. Where networks serve fewer updates
            than the interval (DM: one each), or take turns (``Pool``), that is in nearly every update; False counts the
            interval in updates of the run.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features", "logits"})

    def __init__(
        self,
        batch_size: int = 64,
        interval: int = 10,
        *,
        subset: int | None = None,
        uniform: float = 0.1,
        chunk: int = 512,
        every_network: bool = True,
    ) -> None:
        check_least("Importance", 1, batch_size=batch_size, interval=interval, chunk=chunk)
        if subset is not None and subset < batch_size:
            raise SettingsError(
                f"Expected Importance.subset to be at least batch_size ({batch_size}), got {subset}. Raise it."
            )
        if not 0 <= uniform <= 1:
            raise SettingsError(
                f"Expected Importance.uniform, a share, to be between 0 and 1, got {uniform}. 0.1 is the default."
            )
        self.batch_size = batch_size
        self.interval = interval
        self.subset = subset
        self.uniform = uniform
        self.chunk = chunk
        self.every_network = every_network
        self._looks = Looks(interval, every_network)
        self.begin_run()

    def begin_run(self) -> None:
        """Forget the probabilities of another run."""
        self._probabilities: Tensor | None = None
        self._looks.begin_run()

    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""
        return min(self.batch_size, real.class_sizes[class_index])

    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return images drawn with replacement by their probabilities; before the first look, all are as likely."""
        members = real.indices_of(class_index)
        if self._whole(real, class_index):
            return members
        probabilities = self._of_class(real, class_index)
        return members[torch.multinomial(probabilities, self.batch_size, True, generator=key.generator())]

    def weights_of(self, real: RealImages, class_index: int, chosen: Tensor) -> Tensor | None:
        """Return the inverse probabilities of the chosen images over those of a uniform draw, ``(size,)`` float64."""
        if self._whole(real, class_index):
            return None
        probabilities = self._of_class(real, class_index)
        positions = torch.searchsorted(real.indices_of(class_index), chosen)
        return 1 / ((probabilities > 0).sum() * probabilities[positions])

    def refresh(
        self, real: RealImages, features: Features | None, progress: Progress, key: RandomKey, share: Share
    ) -> None:
        """Take the probabilities anew if it is time; ranks share out the classes and gather the norms."""
        if not self._looks.due(progress):
            return
        assert features is not None  # the engine gives them, because they are among the needs
        norms = torch.zeros(len(real), dtype=torch.float64, device=real.device)
        candidates = {c: self._candidates(real, c, key) for c in range(real.num_classes)}
        mine = [candidates[c] for c in share.take(range(real.num_classes)) if not self._whole(real, c)]
        if mine:
            indices = torch.cat(mine)
            norms[indices.to(real.device)] = chunked_gradient_norms(features, real, indices, self.chunk)
        norms = share.sum(norms).cpu()
        probabilities = torch.zeros_like(norms)
        for c, members in candidates.items():
            whole = self._whole(real, c)
            probabilities[members] = 1 / len(members) if whole else self._mixed(norms[members], real.class_names[c])
        self._probabilities = probabilities

    def state_dict(self) -> dict[str, Any]:
        """Return the probability of each real image inside its class, 0 outside of a subset."""
        return {"probabilities": self._probabilities, "looked": self._looks.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the probabilities."""
        self._probabilities = state["probabilities"]
        self._looks.last = state["looked"]

    def _whole(self, real: RealImages, class_index: int) -> bool:
        return real.class_sizes[class_index] <= self.batch_size

    def _candidates(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        if self.subset is None or self._whole(real, class_index):
            return real.indices_of(class_index)
        return real.random_of_class(class_index, self.subset, key.fold("importance", class_index))

    def _of_class(self, real: RealImages, class_index: int) -> Tensor:
        """Return the probability of each image of a class, ``(N,)`` float64 on the CPU."""
        members = real.indices_of(class_index)
        if self._probabilities is None:
            return torch.full((len(members),), 1 / len(members), dtype=torch.float64)
        return self._probabilities[members]

    def _mixed(self, norms: Tensor, class_name: str) -> Tensor:
        """Return the probabilities of a class's images, ``(N,)``, from the norms of their gradients."""
        total, even = norms.sum(), torch.full_like(norms, 1 / len(norms))
        if not total.isfinite():
            return even  # such a network is for the update to report, by what the set does with non-finite losses
        if total == 0 and self.uniform > 0:
            return even
        probabilities = (1 - self.uniform) * norms / total + self.uniform * even
        never = int((~(probabilities > 0)).sum())  # NaN where all norms are 0
        if never:
            raise SettingsError(
                f"Expected every image of class {class_name} to have a probability above 0, but {never} of "
                f"{len(norms)} have a gradient of norm 0 under the inner network, and Importance.uniform is "
                f"{self.uniform}: they could never be drawn. Raise uniform, for instance to 0.1."
            )
        return probabilities
