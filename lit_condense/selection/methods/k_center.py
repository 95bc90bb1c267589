"""The greedy k-centre selection.

Letters: n candidates, d features, k images to keep.
"""

from __future__ import annotations

from typing import Literal

from lit_condense.errors import check_choice
from lit_condense.functional.geometry import euclidean, farthest_first, mean_feature
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.candidates import finite_features, in_index_order, random_row

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
