"""How the synthetic images are stored: as plain pixels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_condense.data.normalization import Normalization
from lit_condense.errors import SettingsError, check_choice
from lit_condense.settings import Plain, settings_of

Space = Literal["normalized", "pixel"]
Clamp = Literal["never", "every_update", "every_network"]


class Pixels:
    """Each stored image is one image, in normalised or in [0, 1] pixel space.

    Args:
        space: ``normalized`` stores what networks see (DC, DSA, EGM); ``pixel`` stores [0, 1] images (IDC, DREAM).
        clamp: When stored values are brought back to the range of real pixels: ``never`` (DC), ``every_update``, or
            ``every_network`` (IDC: before each new network).
        most_matched: Most decoded images of a class that an update matches, drawn anew for each; by default all (IDC's
            program: 128, its ``batch_syn_max``). Networks are trained on all of them even so.
    """

    factor: int = 1
    """Images per side that one stored image is packed from: ``factor**2`` real images make one."""
    of_updates: ClassVar[tuple[str, ...]] = ("clamp", "most_matched")
    """Settings that matter while images are learned, and not to what stored ones stand for."""

    def __init__(self, space: Space = "normalized", clamp: Clamp = "never", most_matched: int | None = None) -> None:
        check_choice("Pixels.space", space, Space)
        check_choice("Pixels.clamp", clamp, Clamp)
        if most_matched is not None and most_matched < 1:
            raise SettingsError(f"Expected {type(self).__name__}.most_matched to be 1 or more, got {most_matched}.")
        self.space = space
        self.clamp = clamp
        self.most_matched = most_matched

    @property
    def for_training(self) -> Pixels:
        """The storage as networks are trained on it: in evaluations, inner training and exports."""
        return self

    @property
    def meaning(self) -> Plain:
        """What decides which images the stored ones stand for, as plain data."""
        plain: Plain = settings_of(self.for_training)
        kept = {name: value for name, value in plain["init_args"].items() if name not in self.of_updates}
        return {"class_path": plain["class_path"], "init_args": kept}

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Refuse images ``(H, W)`` that cannot be stored so; plain pixels take all."""

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return a start from noise: N(0, 1) in normalised space (DC), N(0.5, 0.25) clamped to [0, 1] else (IDC)."""
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        return noise if self.space == "normalized" else (noise / 4 + 0.5).clamp(0, 1)

    def encode(self, pixels: Tensor, normalization: Normalization) -> Tensor:
        """Return the stored form of ``(n, C, H, W)`` images in [0, 1]."""
        return normalization.normalize(pixels) if self.space == "normalized" else pixels.clone()

    def decode(self, stored: Tensor, normalization: Normalization) -> Tensor:
        """Return the normalised images that n stored images of a class stand for, differentiable in ``stored``.

        Args:
            stored: ``(n, C, H, W)``.
            normalization: Of the real images.

        Returns:
            ``(decoded_count(n), C, H, W)``.
        """
        return stored if self.space == "normalized" else normalization.normalize(stored)

    def decode_labels(self, labels: Tensor) -> Tensor:
        """Return the labels of the decoded images, in their order."""
        return labels

    def decoded_count(self, stored: int) -> int:
        """Return how many images ``stored`` images of a class decode to."""
        return stored

    def matched_count(self, stored: int) -> int:
        """Return how many of them an update matches."""
        decoded = self.decoded_count(stored)
        return decoded if self.most_matched is None else min(decoded, self.most_matched)

    def project_(self, stored: Tensor, normalization: Normalization) -> None:
        """Bring the stored values back, in place, to the range of real pixels."""
        channels = stored.shape[1]
        low, high = stored.new_zeros(channels, 1, 1), stored.new_ones(channels, 1, 1)
        if self.space == "normalized":
            low, high = normalization.normalize(low), normalization.normalize(high)
        stored.copy_(torch.minimum(torch.maximum(stored, low), high))
