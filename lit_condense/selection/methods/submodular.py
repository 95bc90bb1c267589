"""Submodular selections on the cosine kernel of last-layer gradients (as in Guo et al., *DeepCore*, DEXA 2022)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor

from lit_condense.errors import check_choice, check_least
from lit_condense.functional import greedy
from lit_condense.functional.last_layer_geometry import gradient_products
from lit_condense.selection.base import Candidates, Choice, ProxyOutputs
from lit_condense.selection.candidates import Variant
from lit_condense.selection.gradients import PairwiseSelection


class _CosineKernel(PairwiseSelection):
    """The similarity of i and j is ``(1 + cos(g_i, g_j)) / 2``; a sample without gradient has cosine 0 with all.

    (DeepCore's program has NaN there, and then keeps the first k images of the data; that is not offered here.)
    """

    def _block(self, view: ProxyOutputs, labels: Tensor) -> Callable[[slice], Tensor]:
        gradients = gradient_products(view.features, view.logits, labels)
        return lambda rows: gradients.cosines(rows).add_(1).div_(2)

    def _choose(self, candidates: Candidates, count: int) -> Choice:
        return Choice(self._maximise(self._pairs(candidates.view, candidates.labels), count))

    @abstractmethod
    def _maximise(self, similarity: Tensor, count: int) -> Tensor:
        """Return ``(count,)`` positions."""


class FacilityLocation(_CosineKernel):
    """Images that represent all: each candidate is similar to one of them.

    Maximises ``sum_i max_{j in S} s_ij`` greedily, s the cosine similarity of gradients mapped to [0, 1].
    """

    def _maximise(self, similarity: Tensor, count: int) -> Tensor:
        return greedy.lazy_greedy(greedy.FacilityLocation(similarity), count)


class GraphCut(_CosineKernel):
    """Images similar to all and unlike one another.

    Maximises ``coverage * sum_i sum_{a in S} s_ia - sum_{a != b in S} s_ab`` greedily, s the cosine similarity of
    gradients mapped to [0, 1].

    Args:
        coverage: The weight lambda of the similarity to all candidates (DeepCore: 1).
    """

    def __init__(self, coverage: float = 1.0) -> None:
        check_least("GraphCut", 0, coverage=coverage)
        self.coverage = coverage

    def _maximise(self, similarity: Tensor, count: int) -> Tensor:
        return greedy.lazy_greedy(greedy.GraphCut(similarity, self.coverage), count)


class LogDeterminant(_CosineKernel):
    """Images that differ: the volume their gradients span.

    Maximises ``log det s_S`` greedily, s the cosine similarity of gradients mapped to [0, 1]. Every first image is as
    good as any, so it is the first of the data. Needs ``8 k n`` bytes beside the kernel.

    Args:
        variant: ``deepcore`` adds the image that those chosen explain best, ``s_jS s_S^-1 s_Sj``: the most redundant
            one, where the definition adds the one they explain least.
    """

    def __init__(self, variant: Variant = "definition") -> None:
        check_choice("LogDeterminant.variant", variant, Variant)
        self.variant: Variant = variant

    def _maximise(self, similarity: Tensor, count: int) -> Tensor:
        if self.variant == "deepcore":
            return greedy.naive_greedy(greedy.LogDeterminant(similarity, count, redundancy=True), count)
        return greedy.lazy_greedy(greedy.LogDeterminant(similarity, count), count)
