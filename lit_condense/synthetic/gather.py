"""Gather the blocks of an image update: real images, stored images, and the way from these to the network's input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_condense.augmentation import Augmentation
from lit_condense.augmentation.contract import applied
from lit_condense.data.real_images import RealImages
from lit_condense.engine.engine import Block
from lit_condense.parametrization import Parametrization
from lit_condense.parametrization.contract import decoded, decoded_labels
from lit_condense.rng import RandomKey
from lit_condense.sampling import Sampling
from lit_condense.sampling.contract import selected, weights
from lit_condense.sharding import Share
from lit_condense.synthetic.blocks import cut_classes
from lit_condense.transfer import sent


@dataclass(frozen=True)
class Gatherer:
    """Makes the blocks of one image update; its draws are named by the run's key, the update and the class alone."""

    real: RealImages
    stored: Tensor
    """All stored images, class-major, off the graph."""
    labels: Tensor
    counts: Sequence[int]
    """Stored images of each class."""
    sampling: Sampling
    parametrization: Parametrization
    augmentation: Augmentation
    key: RandomKey
    update: int
    others: Mapping[str, Tensor] = field(default_factory=dict)
    """What the set learns beside its images, off the graph."""
    step_size: Tensor | None = None
    """Of the set, where it has one that is not learned."""

    def leaves(self) -> dict[str, Tensor]:
        """Return all that is learned, off the graph."""
        return {"images": self.stored, **self.others}

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""
        return self.real.num_classes

    def blocks(self, share: Share, per_block: int) -> list[list[int]]:
        """Return the class indices of each of a rank's blocks.

        Args:
            share: The rank.
            per_block: Most classes in a block.
        """
        sizes = [(self.sampling.size(self.real, c), count) for c, count in enumerate(self.counts)]
        return cut_classes(share.take(range(self.num_classes)), sizes, per_block)

    def rows_of(self, class_index: int) -> slice:
        """Return where the stored images of a class stand."""
        start = sum(self.counts[:class_index])
        return slice(start, start + self.counts[class_index])

    def usual(self) -> tuple[Tensor, int]:
        """Return a real batch ``(n, C, H, W)`` of the size that most classes have, and the images that most match."""
        sizes = [self.sampling.size(self.real, c) for c in range(self.num_classes)]
        usual = sizes.index(Counter(sizes).most_common(1)[0][0])
        chosen = self.sampling.select(self.real, usual, self.key.fold("shape"))
        matched = Counter(map(self.parametrization.matched_count, self.counts)).most_common(1)[0][0]
        return self.real.at(chosen).to(self.stored.dtype), matched

    def block(self, classes: Sequence[int], with_real: bool = True) -> Block:
        """Gather a block of classes that have the same sizes, with its real images or without."""
        size = (self.real.image_shape[1], self.real.image_shape[2])
        # One draw for both sides of a class: the augmentation is siamese (Zhao and Bilen, ICML 2021).
        draws = [self.augmentation.draw(self.key.fold("augment", self.update, c), size, samples=1) for c in classes]
        counts = [self.counts[c] for c in classes]

        def augmented(images: Sequence[Tensor]) -> Tensor:
            pairs = zip(images, draws, strict=True)
            return torch.stack([applied(self.augmentation, x, draw) for x, draw in pairs])

        def to_network_input(stored: Tensor) -> Tensor:
            per_class = zip(classes, torch.split(stored, counts), strict=True)
            return augmented([self._decoded(c, images) for c, images in per_class])

        real_images = real_labels = real_weights = None
        if with_real:
            keys = [self.key.fold("real", self.update, c) for c in classes]
            chosen = torch.stack([self.chosen(c, key) for c, key in zip(classes, keys, strict=True)])
            real_weights = self._weights(classes, chosen)
            real_images = augmented(self.real.at(chosen).to(self.stored.dtype).unbind())
            real_labels = self.real.labels_at(chosen)
        return Block(
            real_images=real_images,
            real_labels=real_labels,
            stored=torch.cat([self.stored[self.rows_of(c)] for c in classes]).requires_grad_(),
            to_network_input=to_network_input,
            synthetic_labels=torch.stack([self._decoded_labels(c) for c in classes]),
            keys=tuple(self.key.fold("layers", self.update, c) for c in classes),
            real_weights=real_weights,
        )

    def chosen(self, class_index: int, key: RandomKey) -> Tensor:
        """Return which real images stand for a class."""
        found = self.sampling.select(self.real, class_index, key)
        return selected(self.sampling, found, self.real, class_index)

    def _weights(self, classes: Sequence[int], chosen: Tensor) -> Tensor | None:
        """Return what the chosen images of classes count, ``(k, n)``, or None where all count alike."""
        found = [weights(self.sampling, self.real, c, one) for c, one in zip(classes, chosen, strict=True)]
        if all(one is None for one in found):
            return None
        told = [torch.ones(chosen.shape[1]) if one is None else one for one in found]
        return sent(torch.stack([one.to(self.stored.dtype) for one in told]), self.real.device)

    def whole(self) -> Block:
        """Gather one block of all images of all classes, for losses that see the whole set at once."""
        blocks = [self.block([c]) for c in range(self.num_classes)]

        def to_network_input(stored: Tensor) -> Tensor:
            parts = zip(blocks, torch.split(stored, list(self.counts)), strict=True)
            return torch.cat([block.to_network_input(part) for block, part in parts], dim=1)

        return Block(
            real_images=torch.cat([block.real_images for block in blocks if block.real_images is not None], dim=1),
            real_labels=torch.cat([block.real_labels for block in blocks if block.real_labels is not None], dim=1),
            stored=torch.cat([block.stored.detach() for block in blocks]).requires_grad_(),
            to_network_input=to_network_input,
            synthetic_labels=torch.cat([block.synthetic_labels for block in blocks], dim=1),
            keys=(self.key.fold("layers", self.update),),
            classes=len(blocks),
            real_weights=_joined_weights(blocks),
        )

    def scatter(self, found: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
        """Add up what belongs to the stored images of blocks of classes, in the order of all stored images."""
        total = torch.zeros_like(self.stored)
        for classes, values in found:
            rows = [self.rows_of(c) for c in classes]
            for row, part in zip(rows, torch.split(values, [row.stop - row.start for row in rows]), strict=True):
                total[row] += part
        return total

    def _decoded(self, class_index: int, stored: Tensor) -> Tensor:
        found = self.parametrization.decode(stored, self.real.normalization)
        images = decoded(self.parametrization, stored, found)
        matched = self._matched(class_index)
        return images if matched is None else images[sent(matched, images.device)]

    def _decoded_labels(self, class_index: int) -> Tensor:
        stored = self.labels[self.rows_of(class_index)]
        labels = decoded_labels(self.parametrization, stored, self.parametrization.decode_labels(stored))
        matched = self._matched(class_index)
        return labels if matched is None else labels[sent(matched, labels.device)]

    def _matched(self, class_index: int) -> Tensor | None:
        """Return which decoded images of a class the update matches, or None for all."""
        decoded = self.parametrization.decoded_count(self.counts[class_index])
        matched = self.parametrization.matched_count(self.counts[class_index])
        if matched == decoded:
            return None
        key = self.key.fold("decoded", self.update, class_index)
        return torch.randperm(decoded, generator=key.generator())[:matched]


def _joined_weights(blocks: Sequence[Block]) -> Tensor | None:
    """Return what the real images of several blocks count, in a row, or None where all count alike."""
    if all(block.real_weights is None for block in blocks):
        return None
    images = [(block, block.real_images) for block in blocks if block.real_images is not None]
    return torch.cat(
        [x.new_ones(x.shape[:2]) if block.real_weights is None else block.real_weights for block, x in images], dim=1
    )
