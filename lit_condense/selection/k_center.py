"""The greedy k-centre selection.

Letters: n candidates, d features, k images to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lit_condense.errors import check_choice
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.herding import euclidean, finite_features, mean_feature
from lit_condense.selection.scores import in_index_order

Start = Literal["random", "medoid"]


class KCenterGreedy(Selection):
    """Images that cover all candidates: each next one is the farthest from its nearest chosen one, in features.

    The covering radius, the largest Euclidean distance of a candidate to its nearest chosen one, is at most twice the
    smallest possible. Of equals, the first image of the data is taken.
    Source: Sener and Savarese, *Active Learning for CNNs: A Core-Set Approach*, ICLR 2018, algorithm 1.

    Args:
        start: The first image: ``random`` (published), or the ``medoid``, the candidate with the smallest sum of
            squared distances to all others (the nearest to their mean), for which nothing is drawn.
    """

    tag = "k_center_greedy"

    def __init__(self, start: Start = "random") -> None:
        check_choice("KCenterGreedy.start", start, Start)
        self.start: Start = start

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return ``count`` candidates in the order they were picked; the key draws the first.

        Raises:
            DataError: Features are NaN or infinite.
        """
        ordered, order = in_index_order(candidates)
        features = finite_features(ordered, "KCenterGreedy")
        if self.start == "medoid":
            first = int(euclidean(features, mean_feature(features)).argmin())
        else:
            first = random_row(len(features), key)
        return Choice(order[farthest_first(lambda index: euclidean(features, features[index]), first, count)])


def random_row(n: int, key: RandomKey) -> int:
    """Draw a number from 0 to ``n - 1``."""
    return int(torch.randint(n, (1,), generator=key.generator()))


def farthest_first(distances_to: Callable[[int], Tensor], first: int, count: int) -> Tensor:
    """Return rows that each are the farthest from the nearest row before them.

    Args:
        distances_to: Gives the distances ``(n,)`` of all rows to one row, 0 or more.
        first: The first row.
        count: Rows to return, at most n.

    Returns:
        ``(count,)`` different rows, on the CPU; of equally far ones, the first.
    """
    chosen = [first]
    nearest = distances_to(first)
    nearest[first] = -1  # below every distance: never again, not even among duplicates
    while len(chosen) < count:
        index = int(nearest.argmax())
        chosen.append(index)
        nearest = torch.minimum(nearest, distances_to(index))
        nearest[index] = -1
    return torch.tensor(chosen)
