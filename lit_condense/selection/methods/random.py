"""Random real images: the baseline of everything."""

from __future__ import annotations

import torch

from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection


class RandomSubset(Selection):
    """Uniformly random images, without replacement ("Uniform" or "Random" in the papers)."""

    networks = 0
    tag = "random"

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return ``count`` random candidates."""
        return Choice(torch.randperm(len(candidates), generator=key.generator())[:count])
