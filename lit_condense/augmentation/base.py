"""What every augmentation offers: draw the parameters once, apply them to any batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_condense.augmentation import operations
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

Draw = dict[str, tuple[Tensor, ...]]
"""The operations to apply, in this order, each with its parameters on the CPU."""

OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "flip": operations.flip,
    "brightness": operations.brightness,
    "saturation": operations.saturation,
    "contrast": operations.contrast,
    "crop": operations.translate,
    "reflected_crop": operations.reflected_translate,
    "scale": operations.scale,
    "rotate": operations.rotate,
    "cutout": operations.cutout,
}


class Augmentation(ABC):
    """Draw random parameters by key, and apply a draw to batches of images.

    A draw of one sample is shared: applied to 256 real and to 10 synthetic images it is the same operation with the
    same parameters (siamese augmentation, Zhao & Bilen, ICML 2021).
    """

    @abstractmethod
    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw parameters.

        Args:
            key: Names the draw.
            image_size: ``(H, W)``.
            samples: 1 for parameters shared by whatever batch they are applied to; n for one set of parameters for
                each of n images.
        """

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        """Apply a draw to normalised images ``(n, C, H, W)``; the result is differentiable twice in the images.

        Raises:
            SettingsError: The draw is for another number of images.
        """
        for name, parameters in draw.items():
            images = OPERATIONS[name](images, *_fitted(name, parameters, images))
        return images


class NoAugmentation(Augmentation):
    """Leave the images as they are."""

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Return the empty draw."""
        return {}


def uniform(key: RandomKey, samples: int) -> Tensor:
    """Return ``(samples,)`` float32 numbers from U(0, 1).

    Raises:
        SettingsError: Fewer than one sample is asked for.
    """
    return torch.rand(_counted(samples), generator=key.generator(), dtype=torch.float32)


def integers(key: RandomKey, low: int, high: int, samples: int) -> Tensor:
    """Return ``(samples,)`` whole numbers, uniform from ``low`` to ``high - 1``.

    Raises:
        SettingsError: Fewer than one sample is asked for.
    """
    return torch.randint(low, high, (_counted(samples),), generator=key.generator())


def check_operations(operations: object, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the operations of a setting as a tuple.

    Raises:
        SettingsError: They are no list, empty, unknown or doubled.
    """
    if not isinstance(operations, list | tuple):
        raise SettingsError(
            f"Expected operations to be a list of names such as [{known[0]}, {known[1]}], got {operations!r}. "
            "Write them as a list."
        )
    unknown = [name for name in operations if name not in known]
    if unknown or not operations or len(set(operations)) < len(operations):
        raise SettingsError(
            f"Expected operations to name, each once, at least one of {', '.join(known)}; got {list(operations)}. "
            f"{'Unknown: ' + ', '.join(map(str, unknown)) + '.' if unknown else 'Name each wanted operation once.'}"
        )
    return tuple(operations)


def check_range(name: str, value: float, low: float, high: float) -> float:
    """Return a setting.

    Raises:
        SettingsError: It is not between ``low`` and ``high``.
    """
    if not low <= value <= high:
        raise SettingsError(f"Expected {name} to be between {low} and {high}, got {value!r}.")
    return value


def _counted(samples: int) -> int:
    if samples < 1:
        raise SettingsError(f"Expected a draw for 1 sample (shared) or for n images, got samples={samples}.")
    return samples


def _fitted(name: str, parameters: tuple[Tensor, ...], images: Tensor) -> list[Tensor]:
    """Return the parameters on the images' device, each for one sample or for every image."""
    for parameter in parameters:
        if parameter.shape[0] not in (1, images.shape[0]):
            raise SettingsError(
                f"Expected a draw of {name!r} for 1 or {images.shape[0]} images, got one for {parameter.shape[0]}. "
                "Draw with samples=1 to share the parameters, or with samples=len(images)."
            )
    return [sent(parameter, images.device) for parameter in parameters]
