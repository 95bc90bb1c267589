"""How many real images a selection keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.data.sizes import counts_of, images_per_class
from lit_condense.errors import SettingsError


@dataclass(frozen=True)
class Budget:
    """A number of images, and whether each class gets its own share of it.

    A balanced budget keeps ``round(n_c * fraction)`` images of class c, which has n_c; an unbalanced one keeps
    ``round(n * fraction)`` of all n, whatever their classes. Halves go to the even number, as in Python and NumPy.

    Args:
        ipc: Images per class, one number or one for each class. Unbalanced, only their sum counts.
        fraction: Share of the real images in (0, 1]; give either this or ``ipc``.
        balanced: Choose inside each class, or among all images at once.

    Raises:
        SettingsError: Both or neither are given, or a number is out of range.
    """

    ipc: int | list[int] | None = None
    fraction: float | None = None
    balanced: bool = True

    def __post_init__(self) -> None:
        if (self.ipc is None) == (self.fraction is None):
            raise SettingsError(
                f"Expected either ipc (images per class) or fraction (of the real images), got ipc={self.ipc} and "
                f"fraction={self.fraction}. Give one of them."
            )
        if self.ipc is not None:
            images_per_class(self.ipc)
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SettingsError(f"Expected fraction to be above 0 and at most 1, got {self.fraction}.")

    def groups(self, real: RealImages) -> list[tuple[Tensor, int]]:
        """Return what is chosen from: ``(indices into real, int64 on the CPU; how many of them to keep)``.

        One group for each class, or a single one of all images.

        Raises:
            SettingsError: A group would keep nothing, or more images than it has.
        """
        members = [real.indices_of(c) for c in range(real.num_classes)]
        names = [f"class {c} ({name})" for c, name in enumerate(real.class_names)]
        if not self.balanced:
            members, names = [torch.arange(len(real))], ["the data set"]
        groups = list(zip(members, self._counts(real, [len(m) for m in members]), strict=True))
        for name, (indices, count) in zip(names, groups, strict=True):
            if count < 1:
                raise SettingsError(
                    f"fraction={self.fraction} keeps no image of {name}, which has {len(indices)}. Raise it, give ipc, "
                    f"or leave the class out."
                )
            if count > len(indices):
                raise SettingsError(f"{count} images are to be kept of {name}, which has {len(indices)}. Lower ipc.")
        return groups

    def total(self, real: RealImages) -> int:
        """Return how many images are kept."""
        return sum(count for _, count in self.groups(real))

    def _counts(self, real: RealImages, sizes: list[int]) -> list[int]:
        if self.fraction is not None:
            return [round(size * self.fraction) for size in sizes]
        assert self.ipc is not None  # __post_init__ checked
        counts = counts_of(self.ipc, real)
        return counts if self.balanced else [sum(counts)]
