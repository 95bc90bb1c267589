"""What a matching loss is: a Lightning callback for its life cycle, a pure function for its mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lightning.pytorch import Callback
from torch import Tensor, nn

from lit_condense.data import CondenseDataModule
from lit_condense.errors import check_least
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import Need
from lit_condense.networks import NetworkFactory
from lit_condense.settings import Plain, settings_of

Scope = Literal["class", "mean", "set", "whole"]
"""``class``: a sum over classes, whose blocks may be compared separately. ``mean``: a function of the mean over all
classes of each class's quantities (gradients only). ``set``: a function of all classes' images at once, which go
through the network in one batch. ``whole``: a function of all that is learned and of the network itself
(:mod:`lit_condense.matching.whole`)."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, in plain numbers that are the same on all ranks."""

    update: int
    """Image updates done before this one."""
    network_index: int
    """Which inner network this is, counted from 0."""
    match_index: int
    """How many updates this network has already served; in a pool, for how many it has been there."""
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)
    """What the inner loop says about this network (:meth:`lit_condense.inner.InnerLoop.numbers`), for instance its
    accuracy on a batch, for the weights of losses to read. Empty where a loss is asked before there is a network."""


class Loss(Callback, ABC):
    """A term of what the images descend on.

    Configured as a Lightning callback (``trainer.callbacks``) and *called* by :class:`lit_condense.SyntheticSet` inside
    its training step. A loss returns a number; it never calls backward or step, never writes to the trainer or the
    module, never reads another callback and never draws from the global generators. Any number of them, in any order,
    therefore gives the same total.

    Args:
        weight: Factor on the loss. 0 skips it.
        name: Tag in the logs (``loss/<name>``); the class name if not given. Two losses of one class need two names.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    """The quantities that ``loss`` reads, on both sides unless the next two say otherwise."""
    needs_real: ClassVar[frozenset[Need] | None] = None
    """Those that it reads of the real side; None: ``needs``. A term on the synthetic images alone says ``frozenset()``:
    no real image is then gathered or sent through the network for it, and the real side holds what others read."""
    needs_synthetic: ClassVar[frozenset[Need] | None] = None
    """Those that it reads of the synthetic side; None: ``needs``."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """Names of the numbers about the network that its weight reads of ``progress.numbers``: the inner loop must give
    them."""
    scope: Scope = "class"
    """What one call of ``loss`` sees."""
    reads_weights: ClassVar[bool] = False
    """Whether ``loss`` weighs what it reads of single real images by ``real.weights``. Gradients are weighted already;
    a loss that reads anything else is refused beside a sampling that weighs its images, unless this is True."""
    least_images: ClassVar[int] = 1
    """Decoded synthetic images that each class must have."""

    def __init__(self, weight: float = 1.0, name: str | None = None) -> None:
        check_least(type(self).__name__, 0, weight=weight)
        self.weight = weight
        self.name = name

    @property
    def tag(self) -> str:
        """The name in logs and checkpoints."""
        return self.name or type(self).__name__

    @property
    def state_key(self) -> str:
        """Key of this loss's state in a checkpoint."""
        return f"matching/{self.tag}"

    def identity(self) -> Plain:
        """Return what decides its values, as plain data, for cards and for runs that go on; by default its settings."""
        found: Plain = settings_of(self)
        return found

    def weight_at(self, progress: Progress) -> float:
        """Return the factor on the loss at this point of the run."""
        return self.weight

    def watched_at(self, progress: Progress) -> bool:
        """Return whether the loss is to be logged at this point even where its weight is 0; by default not."""
        return False

    def largest_at(self, progress: Progress) -> float | None:
        """Return the value, summed over processes, above which an update is not taken; None: whatever it is."""
        return None

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network that has nothing to match, before the run; takes any by default."""

    def check_data(self, data: CondenseDataModule, network: NetworkFactory) -> None:
        """Refuse data and an architecture that the loss cannot be used with, before the run; takes any by default."""


class MatchingLoss(Loss):
    """A loss between what the inner network says about real and about synthetic images.

    Args:
        weight: As in :class:`Loss`.
        name: As in :class:`Loss`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})
    """As in :class:`Loss`."""

    @abstractmethod
    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the 0-dimensional sum over the k blocks, differentiable in ``synthetic``.

        A function of its arguments and of the settings alone: compiled, or recorded on a GPU, it is not run again for
        every update, so that it must not look at a counter of its own or at the values of a tensor.
        """


def real_needs(losses: Sequence[Loss]) -> frozenset[Need]:
    """Return every quantity that some loss reads of the real side."""
    return frozenset().union(*(loss.needs if loss.needs_real is None else loss.needs_real for loss in losses))


def synthetic_needs(losses: Sequence[Loss]) -> frozenset[Need]:
    """Return every quantity that some loss reads of the synthetic side."""
    return frozenset().union(*(loss.needs if loss.needs_synthetic is None else loss.needs_synthetic for loss in losses))


def needs_of(losses: Sequence[Loss]) -> frozenset[Need]:
    """Return every quantity that some loss reads, of whichever side."""
    return real_needs(losses) | synthetic_needs(losses)


def weights_at(losses: Sequence[Loss], progress: Progress, only: str | None = None) -> tuple[float, ...]:
    """Return the factor on each loss at this point of the run; with ``only``, 0 for all but the loss of that tag."""
    return tuple(loss.weight_at(progress) if only in (None, loss.tag) else 0.0 for loss in losses)
