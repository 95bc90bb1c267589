"""What the images of a set mean: compared wherever a set meets data, because under other settings they mean others."""

from __future__ import annotations

from lit_condense.errors import CheckpointError
from lit_condense.settings import Plain, differences

OTHER_DATA = (
    " To evaluate a set on purpose on data that it was not made from, set model.evaluation.other_data: true; class "
    "names, image shape and normalisation must be those of the set even so."
)

OTHER_WHITENING = (
    " A set goes with the ZCA that it was made under, fitted to its own training images, or with none if it was made "
    "so: model.evaluation.other_data does not change that."
)


def of_data(described: Plain) -> Plain:
    """Return what of the data decides the meaning of a set, from the data module's description of itself."""
    kept = {name: described[name] for name in ("class_names", "image_shape", "train")}
    normalization = described["normalization"]
    if "mean" in normalization:  # the same constants are the same, whatever family they are taken from
        normalization = {name: normalization[name] for name in ("mean", "std")}
    return {**kept, "normalization": normalization}


def insist_on_same(then: Plain, now: Plain, same_training_split: bool, advice: str = "") -> None:
    """Refuse data and a parametrization under which a set would mean something else.

    Args:
        then: What the set was made under.
        now: What it meets.
        same_training_split: Whether the real images must be those that it was made from. The test split may always be
            another.
        advice: What to do where they may differ, as a sentence after a space.

    Raises:
        CheckpointError: Something differs; each difference is named with both values.
    """
    if not same_training_split:
        then, now = _without_training_split(then), _without_training_split(now)
    lines = differences(then, now)
    if lines:
        raise CheckpointError(
            "Expected the data and settings that the set was made with, for its images mean something else under "
            "others, got:\n  " + "\n  ".join(lines) + "\nPut them back." + _advice(lines, advice)
        )


def _advice(lines: list[str], of_other_data: str) -> str:
    """Return what to do about differences, as a sentence after a space; empty where nothing helps."""
    if any(line.startswith("data.normalization.fitted_on") for line in lines):
        return OTHER_WHITENING
    return of_other_data if any(line.startswith("data.train.") for line in lines) else ""


def _without_training_split(meaning: Plain) -> Plain:
    return {**meaning, "data": {name: part for name, part in meaning["data"].items() if name != "train"}}
