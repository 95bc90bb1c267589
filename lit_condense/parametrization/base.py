"""The axis "how images are stored": what a parametrization must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from lit_condense.data.normalization import Normalizer
from lit_condense.errors import check_choice, check_least
from lit_condense.settings import Plain, settings_of

if TYPE_CHECKING:
    from typing_extensions import Self

Clamp = Literal["never", "every_update", "every_network"]


class Parametrization(ABC):
    """A way to store images so that ``n`` stored ones of a class decode to some that networks see.

    Args:
        clamp: When stored values are brought back to the range of real pixels: ``never`` (DC), ``every_update``, or
            ``every_network`` (IDC: before each new network).
        most_matched: Most decoded images of a class that an update matches, drawn anew for each; by default all (IDC's
            program: 128, its ``batch_syn_max``). Networks are trained on all of them even so.
    """

    factor: int = 1
    """Images per side that one stored image is packed from: ``factor**2`` real images make one."""
    of_updates: ClassVar[tuple[str, ...]] = ("clamp", "most_matched")
    """Settings that matter while images are learned, and not to what stored ones stand for."""

    def __init__(self, clamp: Clamp = "never", most_matched: int | None = None) -> None:
        owner = type(self).__name__
        check_choice(f"{owner}.clamp", clamp, Clamp)
        check_least(owner, 1, most_matched=most_matched)
        self.clamp = clamp
        self.most_matched = most_matched

    @property
    def for_training(self) -> Self:
        """The storage as networks are trained on it: in evaluations, inner training and exports."""
        return self

    @property
    def meaning(self) -> Plain:
        """What decides which images the stored ones stand for, as plain data."""
        plain: Plain = settings_of(self.for_training)
        kept = {name: value for name, value in plain["init_args"].items() if name not in self.of_updates}
        return {"class_path": plain["class_path"], "init_args": kept}

    def check_size(self, image_size: tuple[int, int]) -> None:  # noqa: B027 - most take all
        """Refuse images ``(H, W)`` that cannot be stored so; takes all by default."""

    def check_normalization(self, normalization: Normalizer) -> None:  # noqa: B027 - most take all
        """Refuse a normalisation under which images cannot be stored so; takes all by default.

        Args:
            normalization: Of the real images.
        """

    @abstractmethod
    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return stored images ``shape`` of noise, to start from."""

    @abstractmethod
    def encode(self, pixels: Tensor, normalization: Normalizer) -> Tensor:
        """Return the stored form of ``(factor**2 * n, C, H, W)`` images in [0, 1], ``(n, C, H, W)``."""

    @abstractmethod
    def decode(self, stored: Tensor, normalization: Normalizer) -> Tensor:
        """Return the normalised images that n stored images of a class stand for, differentiable in ``stored``.

        Args:
            stored: ``(n, C, H, W)``.
            normalization: Of the real images.

        Returns:
            ``(decoded_count(n), C, H, W)``.
        """

    @abstractmethod
    def project_(self, stored: Tensor, normalization: Normalizer) -> None:
        """Bring the stored values back, in place, to the range of real pixels."""

    def decode_labels(self, labels: Tensor) -> Tensor:
        """Return the labels of the decoded images, in their order; by default one for each stored image."""
        return labels

    def decoded_count(self, stored: int) -> int:
        """Return how many images ``stored`` images of a class decode to; by default as many."""
        return stored

    def matched_count(self, stored: int) -> int:
        """Return how many of them an update matches."""
        decoded = self.decoded_count(stored)
        return decoded if self.most_matched is None else min(decoded, self.most_matched)
