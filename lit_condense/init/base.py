"""What the synthetic images are before the first update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, described
from lit_condense.networks import NetworkFactory
from lit_condense.parametrization.base import Parametrization
from lit_condense.rng import RandomKey


class Initialization(ABC):
    """A rule for the first value of the synthetic images."""

    keyed: ClassVar[bool] = False
    """Whether data and key alone decide the start, on any device, in no time: it is then made again where a set is
    compared with its start, and otherwise kept in checkpoints."""

    @abstractmethod
    def start(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor:
        """Return the stored images, class-major, ``(sum(ipc), C, H, W)`` on the CPU.

        Args:
            parametrization: How they are stored.
            real: The real images.
            ipc: Stored images of each class.
            network: Architecture that the set is condensed with.
            key: Names the draws.
        """

    def label_logits(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor | None:
        """Return logits of these images' first soft labels, ``(sum(ipc), classes)``, for a set that learns them.

        None, as by default: each is as sure of its image's class as the set is told (``Learnables.confidence``).
        """
        return None


class RealStart(Initialization):
    """Starts from some real images of each class, as many as the storage holds."""

    def start(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor:
        """Return encoded real images.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        counts = real_images_to_start(parametrization, real, ipc)
        return encode_classes(parametrization, real, self.chosen(real, counts, network, key))

    @abstractmethod
    def chosen(self, real: RealImages, counts: list[int], network: NetworkFactory, key: RandomKey) -> Sequence[Tensor]:
        """Return indices of different real images of each class, as many as ``counts`` says."""


def real_images_to_start(parametrization: Parametrization, real: RealImages, ipc: Sequence[int]) -> list[int]:
    """Return how many real images each class needs to start from.

    Raises:
        SettingsError: A class holds fewer.
    """
    wanted = [count * parametrization.factor**2 for count in ipc]
    for c, count in enumerate(wanted):
        if count > real.class_sizes[c]:
            raise SettingsError(
                f"Starting from real images (RandomReal or Clustered) takes {count} distinct real images to start "
                f"class {c} ({real.class_names[c]}), which has {real.class_sizes[c]}. Lower its ipc or use init Noise."
            )
    return wanted


def encode_classes(parametrization: Parametrization, real: RealImages, chosen: Sequence[Tensor]) -> Tensor:
    """Store the chosen real images of each class, class by class so that no stored image mixes classes."""
    return torch.cat([parametrization.encode(real.pixels_at(c).cpu(), real.normalization) for c in chosen])


def check_logits(init: Initialization, logits: Any, wanted: tuple[int, int]) -> Tensor:
    """Return the logits of the first soft labels, if they are finite and one row an image."""
    owner = f"{type(init).__name__}.label_logits"
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or tuple(logits.shape) != wanted:
        raise SettingsError(
            f"Expected {owner} to return floating-point logits of shape {wanted}, got {described(logits)}."
        )
    if not bool(logits.isfinite().all()):
        raise SettingsError(f"Expected {owner} to return finite logits, some are NaN or infinite.")
    return logits


def check_start(init: Initialization, images: Any, wanted: tuple[int, ...]) -> Tensor:
    """Return the first images, if they are finite and as many as asked for."""
    owner = f"{type(init).__name__}.start"
    if not isinstance(images, Tensor) or not images.is_floating_point() or tuple(images.shape) != wanted:
        raise SettingsError(
            f"Expected {owner} to return floating-point images of shape {wanted}, got {described(images)}."
        )
    if not bool(images.isfinite().all()):
        raise SettingsError(f"Expected {owner} to return finite images, some are NaN or infinite.")
    return images
