"""A set that was given: what its file says by itself, what only its owner knows, and both together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from lit_condense.data.normalization import PRESETS, Normalization
from lit_condense.errors import ExportError
from lit_condense.parametrization import MultiFormation, Parametrization, Pixels
from lit_condense.parametrization.multi_formation import Order
from lit_condense.settings import Plain

PIXEL, ZCA, NORMALIZED = "pixel", "zca", "normalized"
SPACES: tuple[str, ...] = (PIXEL, *PRESETS, ZCA)
"""What a value may be: in [0, 1], normalised by the constants of a family, or whitened. This program's own sets say
their constants themselves (``NORMALIZED``)."""
SoftKind = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Packing:
    """How many small images a stored one holds, and how they are counted.

    Args:
        factor: Cells a side; 1: a stored image is one image.
        order: Row by row (IDC, DREAM), or column by column (IDM).
        multi: Whether images are used at every factor from 1 on.
    """

    factor: int = 1
    order: Order = "row"
    multi: bool = False

    def storage(self, space: Literal["normalized", "pixel"]) -> Parametrization:
        """Return the parametrization that reads such images."""
        if self.factor == 1:
            return Pixels(space)
        return MultiFormation(self.factor, space, decoding="multi" if self.multi else "uniform", order=self.order)

    def __str__(self) -> str:
        if self.factor == 1:
            return "--factor 1 (each stored image is one image)"
        multi = " --multi true" if self.multi else ""
        return f"--factor {self.factor} --order {self.order}{multi} ({self.factor**2} small images in each)"


@dataclass(frozen=True)
class Found:
    """What the files of a set say by themselves."""

    layout: str
    """Whose layout it is."""
    images: Tensor
    """``(n, C, H, W)`` float32, as stored."""
    labels: Tensor | None
    """``(n,)`` int64; None: the file has none."""
    files: tuple[Path, ...]
    spaces: tuple[str, ...] = SPACES
    """What the values may be; one: what they are."""
    packings: tuple[Packing, ...] = (Packing(),)
    """How images may be packed; one: how they are."""
    constants: Normalization | None = None
    """Of normalised values, where the file says them."""
    soft_labels: Tensor | None = None
    """``(n, classes)`` probabilities, where labels were learned."""
    weights: Tensor | None = None
    """``(n,)``, where networks are trained with weights of the images."""
    inner_lr: float | None = None
    wants_lr: bool = False
    """Whether networks are to be trained with a learned rate, which may be missing."""
    protocol: str | None = None
    """How the layout's own program evaluates; None: nobody knows."""
    class_names: tuple[str, ...] | None = None
    """Of the labels, where the files say them."""
    told: Plain = field(default_factory=dict)
    """What names of files and folders tell: method, data set, network, images per class."""
    reported: Plain = field(default_factory=dict)
    """Accuracies that the file holds."""
    notes: tuple[str, ...] = ()
    """What the reader should know."""


@dataclass(frozen=True)
class Answers:
    """What the owner of a set says of it; None: nothing.

    Args:
        space: One of ``SPACES``.
        factor: Cells a side of a stored image.
        order: How they are counted.
        multi: Whether images are used at every factor.
        inner_lr: Learning rate to train with.
        labels: File of the labels.
        experiment: Which of several sets in one file, from 0; -1 is the last.
    """

    space: str | None = None
    factor: int | None = None
    order: Order | None = None
    multi: bool | None = None
    inner_lr: float | None = None
    labels: Path | None = None
    experiment: int = -1


@dataclass(frozen=True)
class Given:
    """A set of which everything is known that its images need to mean something."""

    found: Found
    space: str
    packing: Packing

    @property
    def images(self) -> Tensor:
        """``(n, C, H, W)`` float32, as stored."""
        return self.found.images


def answered(found: Found, answers: Answers) -> Given:
    """Put together what files and owner say; the owner's word counts.

    Raises:
        ExportError: A question is open: nobody said it, and it cannot be read off the values. It names the candidates.
    """
    path = found.files[0]
    space = answers.space or (found.spaces[0] if len(found.spaces) == 1 else None)
    if space is None:
        raise ExportError(
            f"Expected to know what the values of {path} are ({found.layout}), which nothing in it says: in [0, 1] "
            f"(--space pixel), normalised by a family's constants (--space dc, mtt, ...) or whitened (--space zca). "
            f"Possible here: {', '.join(found.spaces)}. {_hint(found.images)}"
        )
    if space not in SPACES and answers.space is not None:
        raise ExportError(f"Expected --space to be one of {', '.join(SPACES)}, got {space}.")
    if answers.inner_lr is not None and not 0 <= answers.inner_lr < math.inf:
        raise ExportError(f"Expected --inner_lr to be 0 or more, got {answers.inner_lr}.")
    lr = answers.inner_lr if answers.inner_lr is not None else found.inner_lr
    if found.wants_lr and lr is None:
        raise ExportError(
            f"Expected the learning rate that the images of {path} were learned with ({found.layout}), it is not among "
            "the files. Give it (--inner_lr; the program's log has it, not its 0.01)."
        )
    return Given(replace(found, inner_lr=lr), space, _packing(found, answers))


def _packing(found: Found, answers: Answers) -> Packing:
    if answers.factor is not None:
        if answers.factor < 1:
            raise ExportError(f"Expected --factor to be 1 or more, got {answers.factor}.")
        fitting = [one for one in found.packings if one.factor == answers.factor]
        orders = {one.order for one in fitting}
        order = answers.order or (orders.pop() if len(orders) == 1 else None)
        if order is None and answers.factor > 1:
            raise ExportError(
                f"Expected to know how the cells of {found.files[0]} are counted: --order "
                f"{' or '.join(get_args(Order))} (IDC and DREAM: row, IDM: column)."
            )
        multi = fitting[0].multi if answers.multi is None and fitting else bool(answers.multi)
        return Packing(answers.factor, order or "row", multi)
    if answers.order is not None or answers.multi is not None:
        raise ExportError("Expected --factor beside --order and --multi, got none. Say how many cells a side has.")
    if len(found.packings) == 1:
        return found.packings[0]
    raise ExportError(
        f"Expected to know how many images a stored one of {found.files[0]} holds ({found.layout}), which nothing in "
        f"it says. Give {' or '.join(map(str, found.packings))}."
    )


def _hint(images: Tensor) -> str:
    """Return what the values suggest, which decides nothing."""
    low, high = float(images.min()), float(images.max())
    outside = float(((images < -0.05) | (images > 1.05)).double().mean())
    means = ", ".join(f"{value:.2f}" for value in images.mean((0, 2, 3)).tolist())
    guess = "they are hardly in [0, 1]" if outside > 0.02 else "they may be in [0, 1]"
    return f"The values go from {low:.2f} to {high:.2f}, channel means {means}: {guess}."


def implied_labels(count: int, classes: int, path: Path) -> Tensor:
    """Return labels of images that stand class by class, as many of each.

    Raises:
        ExportError: They cannot stand so.
    """
    if count % classes:
        raise ExportError(
            f"Expected labels for the {count} images of {path}: they are no multiple of the {classes} classes, so that "
            "they could stand class by class. Give the file of the labels (--labels)."
        )
    return torch.arange(classes).repeat_interleave(count // classes)
