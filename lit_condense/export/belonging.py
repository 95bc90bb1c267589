"""Whether a set and its card belong together, and whether a set belongs to data: told by names, shapes, whitening."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn

from lit_condense.data.names import in_one_form
from lit_condense.data.normalization import Normalizer
from lit_condense.data.zca import FAMILY
from lit_condense.errors import ExportError

if TYPE_CHECKING:
    from lit_condense.export.condensed_set import CondensedSet


def insist_on(condensed: CondensedSet, class_names: Sequence[str], image_shape: tuple[int, ...], where: str) -> None:
    """Refuse a set that was made of other classes, of the same in another order, or of images of another shape.

    Args:
        condensed: The set.
        class_names: Of the data that it is to be used with, one a class.
        image_shape: Of their images, ``(C, H, W)``.
        where: The file that the set comes from.

    Raises:
        ExportError: It was; both values are named. A card without class names is warned of.
    """
    shape, wanted = tuple(condensed.images.shape[1:]), in_one_form(class_names)
    if shape != tuple(image_shape):
        raise ExportError(
            f"Expected images of shape {tuple(image_shape)} in {where}, got {shape}. Use a set of such images."
        )
    names = class_names_of(condensed)
    if names is None:
        rank_zero_warn(
            f"The card of {where} does not say the names of its classes (data.class_names): its labels are taken to "
            f"stand for {', '.join(wanted)}, in this order."
        )
    elif names != wanted:
        raise ExportError(
            f"Expected a set of the classes {list(wanted)}, in this order, in {where}; it was made of {list(names)}. "
            "Give the data's `classes` in the order of the set, or use another file."
        )


def insist_on_whitening(condensed: CondensedSet, normalization: Normalizer, where: str) -> None:
    """Refuse a condensed set made under ZCA for data without it or with another one, and the other way round.

    Selected images are real ones, whatever they were selected under. Where the card does not say the normalisation,
    nothing is refused.

    Args:
        condensed: The set.
        normalization: Of the data that it is to be used with.
        where: The file that the set comes from.

    Raises:
        ExportError: The whitening is another; both are named.
    """
    said = _data_of(condensed, "normalization")
    if "selected" in condensed.card or not isinstance(said, dict):
        return
    then, now = _whitening(said), _whitening(normalization.describe())
    if then != now:
        raise ExportError(
            f"Expected a set made under {now} in {where}, for its images mean something else under another whitening; "
            f"it was made under {then}. Use the data and the `normalization` that it was made with, or another file."
        )


def _whitening(described: dict[str, Any]) -> str:
    if described.get("family") != FAMILY:
        return "a normalisation of each channel"
    return f"ZCA (eps {described.get('eps')}, fitted to the training split {described.get('fitted_on')})"


def check_card(condensed: CondensedSet, file: Path) -> None:
    """Refuse a card that is of other images than those it comes with.

    Raises:
        ExportError: It is.
    """
    names, shape, said = class_names_of(condensed), list(condensed.images.shape[1:]), _data_of(condensed, "image_shape")
    if names is not None and len(names) <= int(condensed.labels.max()):
        raise ExportError(
            f"Expected labels below {len(names)}, the classes that the card of {file} names, got labels up to "
            f"{int(condensed.labels.max())}. The card is of another set."
        )
    if said is not None and said != shape:
        raise ExportError(
            f"Expected images of shape {said}, as the card of {file} says, got {shape}. The card is of another set."
        )


def class_names_of(condensed: CondensedSet) -> tuple[str, ...] | None:
    """Return one name a class, where the card says them."""
    names = _data_of(condensed, "class_names")
    return in_one_form(map(str, names)) if isinstance(names, list) else None


def _data_of(condensed: CondensedSet, name: str) -> Any:
    data = condensed.card.get("data")
    return data.get(name) if isinstance(data, dict) else None
