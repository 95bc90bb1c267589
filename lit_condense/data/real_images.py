"""One split of the real data, as the rest of the library knows it: drawn from by key, wherever the images are kept.

Shapes: N images, C channels, H and W pixels; ``*`` stands for any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from lit_condense.data.batching import batches
from lit_condense.data.normalization import Normalizer
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey


class RealImages(Protocol):
    """The images and labels of one split, normalised only when asked for.

    :class:`~lit_condense.data.TensorImages` keeps them in one tensor. A store of one's own, images in a memory map or
    decoded on demand for instance, has these members; it may derive from this class to get those that follow from the
    others, and is handed over by :meth:`~lit_condense.data.CondenseDataModule.stores`.

    Every draw is keyed and made on the CPU: the same key gives the same indices on every rank and device. The caller
    folds into the key what the draw is for (update, class).
    """

    labels: Tensor
    """``(N,)`` int64, from 0; held on any device."""
    num_classes: int
    """Each of which has an image."""
    normalization: Normalizer
    """What ``at`` applies."""
    class_names: tuple[str, ...]
    """One name a class."""
    split: str
    """Name of the split, for messages."""
    device: torch.device
    """Where ``at``, ``pixels_at`` and ``labels_at`` deliver."""
    image_shape: tuple[int, int, int]
    """``(C, H, W)``."""
    class_sizes: list[int]
    """Number of images of each class."""

    def indices_of(self, class_index: int) -> Tensor:
        """Return where the images of a class stand, ascending, int64 on the CPU. Do not write into it.

        Raises:
            SettingsError: There is no such class.
        """

    def pixels_at(self, indices: Tensor) -> Tensor:
        """Return the images at ``indices`` (any shape ``*``) in [0, 1]: ``(*, C, H, W)`` float32 on ``device``."""

    def labels_at(self, indices: Tensor) -> Tensor:
        """Return the labels at ``indices`` (any shape): int64 of that shape on ``device``."""

    def to(self, device: torch.device | str) -> RealImages:
        """Return this split delivering on ``device``; self where it already does."""

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that name the data: the same for the same images and labels everywhere."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, indices: Tensor) -> Tensor:
        """Return the normalised images at ``indices`` (any shape ``*``): ``(*, C, H, W)`` float32 on ``device``."""
        return self.normalization.normalize(self.pixels_at(indices))

    def random_of_class(self, class_index: int, size: int, key: RandomKey) -> Tensor:
        """Draw ``size`` different images of a class; a smaller class is used whole.

        Returns:
            Indices into the split, int64 ``(min(size, class size),)`` on the CPU, in drawn order.
        """
        _check_size(size)
        members = self.indices_of(class_index)
        return members[torch.randperm(len(members), generator=key.generator())[:size]]

    def mixed(self, size: int, key: RandomKey) -> Tensor:
        """Draw ``size`` different images of the whole split, or all of them where it holds fewer.

        Returns:
            Indices into the split, int64 ``(min(size, N),)`` on the CPU, in drawn order.
        """
        _check_size(size)
        return torch.randperm(len(self), generator=key.generator())[:size]

    def batches(self, batch_size: int, key: RandomKey) -> Iterator[Tensor]:
        """Cut one shuffled pass over the split into batches of indices on the CPU (:mod:`.batching`)."""
        _check_size(batch_size)
        return iter(batches(torch.randperm(len(self), generator=key.generator()), batch_size))


def _check_size(size: int) -> None:
    if size < 1:
        raise SettingsError(f"A draw of real images needs a size of 1 or more but got {size}.")
