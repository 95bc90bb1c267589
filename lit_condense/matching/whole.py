"""Losses that see everything at once: all that is learned, the network as a function, and the real images.

For methods that train the network on the set inside the loss (trajectory matching), or that define a gradient of their
own. What is compared class by class or in one pass is a :class:`~lit_condense.matching.MatchingLoss`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from torch import Tensor

from lit_condense.augmentation import Augmentation
from lit_condense.data.real_images import RealImages
from lit_condense.matching.base import Loss, Progress, Scope
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share

Leaves: TypeAlias = Mapping[str, Tensor]
Parameters: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Whole:
    """What a loss of scope ``whole`` may use in an update."""

    leaves: Leaves
    """All that is learned, differentiable: ``images`` as they are stored, ``(n, C, H, W)``, and where the set has them
    ``label_logits`` ``(n, classes)`` and ``inner_lr`` ``()``."""
    decode: Callable[[Leaves], tuple[Tensor, Tensor]]
    """From leaves to what networks are trained on, with the graph: normalised images ``(N, C, H, W)``, and targets as
    cross-entropy takes them, ``(N,)`` or soft ``(N, classes)``. Not augmented."""
    forward: Callable[[Parameters, Tensor], Tensor]
    """From weights by name and images ``(b, C, H, W)`` to logits ``(b, classes)``, differentiable in both as often as
    wanted. Statistics that layers keep are copies, which all calls of an update share."""
    parameters: Parameters
    """The inner network's weights as they are now, by name; leaves that a graph may start from."""
    real: RealImages
    augmentation: Augmentation
    """Of the run; draws are named by ``key``."""
    key: RandomKey
    """Names this loss's draws in this update."""
    progress: Progress
    share: Share
    """The part of the work that is this process's: all of it, unless the loss is ``shared``."""
    step_size: Tensor | None = None
    """The set's step size, learned or not; None where it has none."""


@dataclass(frozen=True)
class WithGradient:
    """A loss whose method defines its own gradient, in place of a graph."""

    value: Tensor
    """``()``, off the graph."""
    gradients: Mapping[str, Tensor]
    """Name of a leaf -> gradient of its shape; leaves that are left out have none."""


class WholeSetLoss(Loss):
    """A loss on the whole synthetic set.

    Like every loss it is a callback that returns a number and never steps, and it draws from ``whole.key`` alone.
    It runs eager, in float32, with attention that can be differentiated twice.
    """

    scope: Scope = "whole"
    shared: ClassVar[bool] = False
    """Whether every process is called, each for its ``whole.share`` of the work, and values and gradients are added up.
    By default the first process alone is."""

    @abstractmethod
    def loss(self, whole: Whole) -> Tensor | WithGradient:
        """Return the 0-dimensional loss with a graph to the leaves, or its value and its own gradient."""
