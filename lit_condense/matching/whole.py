"""Losses that see everything at once: all that is learned, the network as a function, and the real images.

For methods that train the network on the set inside the loss (trajectory matching), or that define a gradient of their
own. What is compared class by class or in one pass is a :class:`~lit_condense.matching.MatchingLoss`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from torch import Tensor

from lit_condense.augmentation import Augmentation
from lit_condense.data.real_images import RealImages
from lit_condense.matching.base import Loss, Progress, Scope
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share

IMAGES, LABEL_LOGITS, INNER_LR = "images", "label_logits", "inner_lr"
"""Names of what a set may learn."""

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
    decoded: int
    """N, the images that networks are trained on."""
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
    run_key: RandomKey
    """Names those that hold for longer than an update."""
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


Unroll = Literal["full", "constant_memory"]
"""``full``: the gradient through all steps of a student's training (Cazenavette et al., CVPR 2022).
``constant_memory``: each step's own part of it, as if the weights that a step starts from did not depend on the set
(Cui et al., ICML 2023): the cross terms between steps are left out, and memory does not grow with their number. The two
are equal for one step."""


@dataclass(frozen=True)
class Student:
    """A network that is trained on the set by plain SGD with the set's step size, and what its training is worth.

    A loss returns students in place of a number. The engine trains them and carries the derivative of their value back
    through the training to all that is learned.
    """

    start: Parameters
    """Weights by name, as in ``whole.parameters``, off the graph."""
    batches: Sequence[Tensor]
    """For each step which of the decoded images it sees, ``(b,)`` int64 on the CPU."""
    augmented: Callable[[Tensor, int], Tensor]
    """From the images of a step ``(b, C, H, W)`` and its number to what the network sees, with the graph; the same
    whenever it is called."""
    value: Callable[[Parameters], Tensor]
    """From the weights that are reached to a number ``()``, with the graph."""
    key: RandomKey
    """Names what its layers draw."""
    unroll: Unroll = "full"
    checkpointing: bool | None = None
    """With ``full``: whether each step is computed again for its derivative, one at a time, in place of a graph of all
    steps: the same gradient from less memory. None: where steps are compiled, where that is faster too."""


class WholeSetLoss(Loss):
    """A loss on the whole synthetic set.

    Like every loss it is a callback that returns a number and never steps, and it draws from ``whole.key`` alone.
    It runs eager, in float32, with attention that can be differentiated twice.
    """

    scope: Scope = "whole"
    shared: ClassVar[bool] = False
    """Whether every process is called, each for its ``whole.share`` of the work, and values and gradients are added up.
    By default the first process alone is."""

    def student_images(self, decoded: int) -> int | None:
        """Return how many images most steps of its students see, of so many decoded ones; None: it has no students."""
        return None

    @abstractmethod
    def loss(self, whole: Whole) -> Tensor | WithGradient | Sequence[Student]:
        """Return the loss, in one of three forms.

        The 0-dimensional loss with a graph to the leaves; or its value and its own gradient; or students, whose values
        are added up (none where other processes have them all).
        """
