"""How a rank's classes are cut into blocks that go through the engine together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def cut_classes(classes: Sequence[int], sizes: Sequence[tuple[int, int]], per_block: int) -> list[list[int]]:
    """Cut classes into blocks of at most ``per_block`` that can be stacked.

    Args:
        classes: The rank's class indices, in order.
        sizes: For every class of the data set, how many real and how many synthetic images it brings.
        per_block: Largest number of classes in a block. Classes with different sizes never share one.

    Returns:
        Blocks in the order of ``classes``. The result of an update does not depend on how they are cut.
    """
    blocks: list[list[int]] = []
    for _, run in groupby(classes, key=lambda c: sizes[c]):
        same = list(run)
        blocks += [same[i : i + per_block] for i in range(0, len(same), per_block)]
    return blocks
