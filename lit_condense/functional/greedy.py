"""Greedy maximisation of submodular set functions: facility location, graph cut, log-determinant.

Letters: n candidates, m samples to cover, A the set chosen so far, s a similarity.

A set function says what each candidate would add (``gains``) and takes one in (``add``). Gains are computed in float64
and given in float32, so that rounding does not decide between equal ones (two candidates that cover each other and
nothing else are equally good) and nothing depends on how many are computed at once. Ties go to the lowest index.
Nemhauser et al. (1978): on a monotone submodular function the greedy set reaches at least ``1 - 1/e`` of the best
value.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BLOCK = 64
"""Candidates whose gains are computed at a time: one ``(BLOCK, m)`` block, small enough for a processor's cache."""

SINGULAR = 1e-6
"""Share of the largest ``s_jj`` below which what is left of a candidate is the rounding of a float32 kernel."""


class SetFunction(Protocol):
    """A set function that grows by one candidate at a time."""

    def __len__(self) -> int:
        """Return n."""

    @property
    def device(self) -> torch.device:
        """Where candidates are indexed and gains are given."""

    def gains(self, candidates: Tensor) -> Tensor:
        """Return ``(B,)`` float32, what each of ``(B,)`` candidates would add to the value."""

    def add(self, candidate: int) -> None:
        """Put one candidate into the set."""


class FacilityLocation:
    """The coverage ``f(A) = sum_i max(0, max_{j in A} s_ij)``.

    Args:
        similarity: ``(n, m)``: row j says how well candidate j covers each sample (for a symmetric kernel, n = m).
    """

    def __init__(self, similarity: Tensor) -> None:
        self.similarity = similarity
        self.covered = similarity.new_zeros(similarity.shape[1])

    def __len__(self) -> int:
        return len(self.similarity)

    @property
    def device(self) -> torch.device:
        """That of the similarities."""
        return self.similarity.device

    def gains(self, candidates: Tensor) -> Tensor:
        """Return ``sum_i max(0, s_ij - covered_i)``."""
        return torch.cat([self._gains(block) for block in torch.split(candidates, BLOCK)])

    def add(self, candidate: int) -> None:
        """Cover what the candidate covers better."""
        torch.maximum(self.covered, self.similarity[candidate], out=self.covered)

    def _gains(self, candidates: Tensor) -> Tensor:
        better = self.similarity[candidates].double().sub_(self.covered).clamp_(min=0)
        return better.sum(1).float()


class GraphCut:
    """Coverage less redundancy: ``f(A) = coverage * sum_i sum_{a in A} s_ia - sum_{a != b in A} s_ab``.

    Submodular for non-negative similarities; monotone as well for ``coverage`` 2 or more.

    Args:
        similarity: ``(n, n)``, symmetric.
        coverage: The weight lambda of the first sum.
    """

    def __init__(self, similarity: Tensor, coverage: float = 1.0) -> None:
        self.similarity = similarity
        sums = [block.sum(1, dtype=torch.float64) for block in torch.split(similarity, BLOCK)]
        self.current = coverage * torch.cat(sums)

    def __len__(self) -> int:
        return len(self.similarity)

    @property
    def device(self) -> torch.device:
        """That of the similarities."""
        return self.similarity.device

    def gains(self, candidates: Tensor) -> Tensor:
        """Return ``coverage * sum_i s_ij - 2 sum_{a in A} s_aj``."""
        return self.current[candidates].float()

    def add(self, candidate: int) -> None:
        """Count the candidate's similarity to the others as redundant."""
        self.current -= 2 * self.similarity[candidate]


class LogDeterminant:
    """The volume ``f(A) = log det S_A``, by a Cholesky factor that grows with A.

    What is left of ``s_jj`` once A explains candidate j, ``s_jj - s_jA S_A^-1 s_Aj``, is kept for all candidates; it is
    held at ``SINGULAR`` of the largest ``s_jj`` or more, so that a copy of a chosen candidate has a finite gain.

    Args:
        kernel: ``(n, n)``, symmetric and positive semi-definite.
        count: Most candidates to be added: the factor takes ``count * n`` float64 numbers.
        redundancy: Give as gain what A *explains*, ``s_jA S_A^-1 s_Aj``, as DeepCore's program does. That is not
            submodular: use :func:`naive_greedy`.
    """

    def __init__(self, kernel: Tensor, count: int, redundancy: bool = False) -> None:
        self.kernel = kernel
        self.redundancy = redundancy
        self.size = 0
        self.left = kernel.diagonal().double()
        self.floor = max(SINGULAR * float(self.left.max()), torch.finfo(torch.float64).tiny)
        self.factor = torch.zeros(count, len(kernel), dtype=torch.float64, device=kernel.device)

    def __len__(self) -> int:
        return len(self.kernel)

    @property
    def device(self) -> torch.device:
        """That of the kernel."""
        return self.kernel.device

    def gains(self, candidates: Tensor) -> Tensor:
        """Return ``log(s_jj - s_jA S_A^-1 s_Aj)``, or what A explains."""
        if self.redundancy:
            return (self.kernel.diagonal()[candidates] - self.left[candidates]).float()
        return self.left[candidates].clamp(min=self.floor).log().float()

    def add(self, candidate: int) -> None:
        """Let the candidate explain its share of the others; a copy of what was chosen explains nothing new."""
        pivot = float(self.left[candidate])
        if pivot > self.floor:
            known = self.factor[: self.size]
            row = (self.kernel[candidate].double() - known[:, candidate] @ known) / pivot**0.5
            self.left = (self.left - row.square()).clamp(min=0)
            self.factor[self.size] = row
            self.size += 1


def naive_greedy(function: SetFunction, count: int) -> Tensor:
    """Add the candidate with the largest gain, ``count`` times, computing every gain anew each time.

    Returns:
        ``(count,)`` different candidates in the order they were added, int64 on the CPU.
    """
    everyone = torch.arange(len(function), device=function.device)
    chosen: list[int] = []
    for _ in range(count):
        gains = function.gains(everyone)
        gains[chosen] = -torch.inf
        chosen.append(int(gains.argmax()))
        function.add(chosen[-1])
    return torch.tensor(chosen)


def lazy_greedy(function: SetFunction, count: int) -> Tensor:
    """Return what :func:`naive_greedy` returns, computing few gains: one that was smaller before stays smaller.

    Minoux's accelerated greedy (1978). Equal to the naive one for submodular functions, whose gains never grow.

    Returns:
        ``(count,)`` different candidates in the order they were added, int64 on the CPU.
    """
    bounds = function.gains(torch.arange(len(function), device=function.device))
    known = torch.ones_like(bounds, dtype=torch.bool)
    chosen: list[int] = []
    for _ in range(count):
        while not known[best := int(bounds.argmax())]:
            stale = bounds.masked_fill(known, -torch.inf)
            largest = stale.topk(min(BLOCK, len(function) - int(known.sum()))).indices
            bounds[largest] = function.gains(largest)
            known[largest] = True
        chosen.append(best)
        function.add(best)
        bounds[best] = -torch.inf
        known.zero_()
        known[chosen] = True
    return torch.tensor(chosen)


def assignments(similarity: Tensor, chosen: Tensor) -> Tensor:
    """Return which of the chosen covers each sample best, each chosen one covering itself.

    Args:
        similarity: ``(n, n)``.
        chosen: ``(k,)``, different.

    Returns:
        ``(n,)`` positions in ``chosen``, on the CPU; the first among equals.
    """
    owner = similarity[chosen.to(similarity.device)].argmax(0).cpu()
    owner[chosen] = torch.arange(len(chosen))
    return owner
