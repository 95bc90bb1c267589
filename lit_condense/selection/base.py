"""The axis "which real images are kept": what a selection method must offer, and what it is shown.

Letters: n candidates, d features (the input of the last linear layer), K classes, k images to keep.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from lit_condense.data.real_images import RealImages
from lit_condense.rng import RandomKey


@dataclass(frozen=True)
class ProxyOutputs:
    """What one trained proxy model says of the candidates."""

    network: nn.Module
    """In evaluation mode; only methods that differentiate in the images need it."""
    features: Tensor
    """``(n, d)`` float32, the input of the last linear layer."""
    logits: Tensor
    """``(n, K)`` float32."""
    lr: float = 0.1
    """Learning rate that the network was trained at."""
    batch_size: int = 128
    """Images in a step of its training."""


@dataclass(frozen=True)
class Validation:
    """Images whose loss a choice is to lower."""

    labels: Tensor
    """``(N,)`` int64, beside the features."""
    view: ProxyOutputs
    """What the first proxy model says of them."""


@dataclass(frozen=True)
class Candidates:
    """The images that a method chooses among: those of one class, or of all classes where a budget is not balanced."""

    real: RealImages
    indices: Tensor
    """``(n,)`` int64 on the CPU, into ``real``."""
    labels: Tensor
    """``(n,)`` int64, beside the features."""
    views: Sequence[ProxyOutputs] = ()
    """One for each proxy model; none for methods that look through no network."""
    forgetting: Tensor | None = None
    """``(n,)`` int64: how often the first proxy model went from right to wrong on a candidate between two epochs of
    its training; -1 where it never was right."""
    validation: Validation | None = None
    """All training images as the first proxy model sees them, for methods that ask for them."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def view(self) -> ProxyOutputs:
        """The first proxy model's view."""
        return self.views[0]


@dataclass(frozen=True)
class Choice:
    """What a method keeps of its candidates."""

    positions: Tensor
    """``(k,)`` different positions among the candidates, int64 on the CPU, in the order they were picked."""
    weights: Tensor | None = None
    """``(k,)`` float32, non-negative: how much each kept image stands for; None where the method has no weights."""


class Selection(ABC):
    """A rule that keeps a few of the real images.

    Every constructor argument is kept under an attribute of the same name.
    """

    networks: int = 1
    """Proxy models it looks through; 0 where it needs none."""
    tracks_forgetting: ClassVar[bool] = False
    """Whether it reads ``Candidates.forgetting``."""
    weighted: bool = False
    """Whether its choices have weights."""
    validates: bool = False
    """Whether it reads ``Candidates.validation``."""

    @property
    def tag(self) -> str:
        """Name in logs and cards: the class name in lower case, words joined by underscores."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return exactly ``count`` candidates.

        Args:
            candidates: At least ``count`` of them.
            count: k, 1 or more.
            key: Names every random draw; the same key gives the same choice.
        """
