"""The first update, tried on one class before it is taken: the losses and the network's two derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast, get_args

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.engine.engine import Block, RunningEngine, keys_of
from lit_condense.engine.execution_plan import ExecutionPlan
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import observe
from lit_condense.engine.unrolling import Unrolled, Unroller
from lit_condense.engine.whole_set import whole_set_gradient
from lit_condense.errors import SettingsError, first_line
from lit_condense.functional.attention import plain_attention
from lit_condense.inner import InnerLoop, InnerNetwork
from lit_condense.matching import Loss, MatchingLoss, Quantities, WholeSetLoss
from lit_condense.matching.base import Scope, needs_of, real_needs, synthetic_needs
from lit_condense.matching.contract import START, loss_value
from lit_condense.matching.quantity import Need, differentiate, read_features
from lit_condense.matching.whole import Student
from lit_condense.networks import FeaturesAndLogits
from lit_condense.networks.factory import explained
from lit_condense.sampling.contract import of_classes
from lit_condense.sharding import Share
from lit_condense.synthetic.gather import Gatherer
from lit_condense.synthetic.whole_set import whole_of
from lit_condense.trial.evaluations import extremes, learns

FEW_REAL = 16
"""Real images of a class that are enough for the trial."""


def first_blocks(gatherer: Gatherer) -> list[Block]:
    """Try what the first update gathers, and return the blocks of its smallest classes, with a few real images.

    Args:
        gatherer: Of the first update.

    Raises:
        SettingsError: Sampling, parametrization or augmentation do not do what they must.
    """
    of_classes(gatherer.sampling, gatherer.real, gatherer.key.fold("real", 0))
    blocks = [_with_few(gatherer.block([c])) for c in _smallest(gatherer)]
    for block in blocks:
        block.to_network_input(block.stored)
    return blocks


def losses(
    gatherer: Gatherer,
    blocks: Sequence[Block],
    inner: InnerNetwork,
    matched: Sequence[Loss],
    needs: frozenset[Need],
    real_chunk: int | None,
) -> None:
    """Try each loss, eager.

    Args:
        gatherer: Makes the blocks of the first update.
        blocks: Those of the smallest classes.
        inner: A network of the trial's own, in the state in which images are matched.
        matched: The losses whose weight is not 0.
        needs: All quantities that the run reads.
        real_chunk: The engine's.

    Raises:
        SettingsError: Something does not do what it must.
    """
    trial = _Trial(gatherer, inner, blocks, needs, real_chunk)
    for scope in get_args(Scope):
        trial.of_scope(scope, [loss for loss in matched if isinstance(loss, MatchingLoss) and loss.scope == scope])
    for loss in matched:
        if isinstance(loss, WholeSetLoss):
            trial.of_whole_set(loss)


def inner_training(inner: InnerNetwork, loop: InnerLoop, images: Tensor, labels: Tensor, real: RealImages) -> None:
    """Train on a batch of the smallest size (and on a GPU of the largest) that the inner loop will meet.

    Args:
        inner: A network of the trial's own.
        loop: The inner loop.
        images: Of the set, as the network sees them.
        labels: Theirs.
        real: The real images.

    Raises:
        SettingsError: The network cannot be trained so.
    """
    loss = FirstOrderLoss(Forward(inner.network, "exact"), compiled=False)
    inner.network.train()
    sizes = extremes(loop.batch_sizes(len(labels), len(real)), images.device)
    for size in sizes or [2]:
        chosen = torch.arange(size, device=images.device) % len(labels)
        purpose = f"the training of the inner network ({type(loop).__name__})" if sizes else "an update"
        learns(inner.network, inner.name, images[chosen], labels[chosen], real.num_classes, purpose)
        if sizes:
            with explained(f"The optimizer of {type(loop).__name__} does not step"):
                inner.train_step(loss, images[:2], labels[:2])


class _Trial:
    """Tries losses on the network.

    Args:
        gatherer: Makes the blocks of the first update.
        inner: A network of its own.
        blocks: Those of the smallest classes.
        needs: All quantities that the run reads.
        real_chunk: The engine's.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        inner: InnerNetwork,
        blocks: Sequence[Block],
        needs: frozenset[Need],
        real_chunk: int | None,
    ) -> None:
        outputs = FeaturesAndLogits(inner.network) if read_features(needs) else None  # type: ignore[arg-type]
        plan = ExecutionPlan("exact", False, False, False, 1, real_chunk)
        self.name, self.network = inner.name, inner.network
        self.gatherer, self.blocks = gatherer, blocks
        self.engine = RunningEngine(inner.network, outputs, plan, gatherer.stored[:1], 1)

    def of_scope(self, scope: Scope, losses: Sequence[MatchingLoss]) -> None:
        """Try the losses of a scope on what they will be called with; a class stands in for the mean over all."""
        if not losses:
            return
        real_side, synthetic_side = real_needs(losses), synthetic_needs(losses)
        for block in [self.gatherer.whole()] if scope == "set" else self.blocks:
            seen_by_network = block.to_network_input(block.stored)
            images = seen_by_network.detach().requires_grad_()
            with explained(f"{self.name} does not run on the batches that are matched, in training mode"):
                real = self.engine.real_side(block, real_side) if real_side else Quantities(classes=block.classes)
                seen = self._observed(block, images, synthetic_side)
            if scope == "mean":
                real = replace(real, labels=None, classes=self.gatherer.num_classes, weights=None)
            for loss in losses:
                self._tried(loss, real, seen, images)
            what = "The way from stored images to the network's input (parametrization, augmentation)"
            with explained(f"{what} has no derivative"):
                ones = torch.ones_like(seen_by_network)
                torch.autograd.grad(seen_by_network, block.stored, grad_outputs=ones)

    def of_whole_set(self, loss: WholeSetLoss) -> None:
        """Try a loss on the whole set: its value, and that something is learned from it."""
        whole = whole_of(self.gatherer, self.network, loss, START, Share())
        with explained(f"{type(loss).__name__} cannot be tried on {self.name}"):
            _, gradients = whole_set_gradient(loss, whole, 1.0, True, FewSteps(self.network))
        if not gradients:
            raise SettingsError(
                f"Expected the value of {type(loss).__name__}.loss to depend on something that is learned "
                f"({', '.join(self.gatherer.leaves())}), it does not. Build it on whole.leaves."
            )

    def _observed(self, block: Block, images: Tensor, needs: frozenset[Need]) -> Quantities:
        with plain_attention():
            seen = observe(self.engine.eager, images, block.synthetic_labels, needs, True, keys_of(block, "synthetic"))
        return replace(seen, classes=block.classes)

    def _tried(self, loss: MatchingLoss, real: Quantities, seen: Quantities, images: Tensor) -> None:
        leaves = seen.detached(requires_grad=True)
        of_means = replace(leaves, labels=None, classes=self.gatherer.num_classes)
        shown = of_means if loss.scope == "mean" else leaves.each(Tensor.clone)  # a loss may write into its arguments
        loss.weight_at(START)  # as in an update, where it is asked first
        value = loss_value(loss, loss.loss(real, shown), images)
        with explained(f"The value of {type(loss).__name__}.loss has no derivative"):
            slopes = torch.autograd.grad(value, leaves.tensors(), allow_unused=True)
        found = [(leaf, slope) for leaf, slope in zip(seen.tensors(), slopes, strict=True) if slope is not None]
        if not found:
            raise SettingsError(
                f"Expected the value of {type(loss).__name__}.loss to depend on the synthetic quantities that it "
                f"needs ({', '.join(sorted(synthetic_needs([loss]))) or 'none'}), it does not. Use its second argument."
            )
        self._differentiated(found, images, differentiate(needs_of([loss])))

    def _differentiated(self, found: Sequence[tuple[Tensor, Tensor]], images: Tensor, twice: bool) -> None:
        """Carry the derivatives of a loss in the synthetic quantities back to the images."""
        kept = [(leaf, slope) for leaf, slope in found if leaf.requires_grad]
        images.grad = None
        try:
            with plain_attention():
                # not autograd.grad, which passes over the node of a function that is marked once_differentiable
                torch.autograd.backward([leaf for leaf, _ in kept], [slope for _, slope in kept], retain_graph=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            remedy = (
                "Gradient matching differentiates the network's gradient again: write that layer with operations that "
                "have a second derivative, or match features (FeatureMatching), which needs the first alone."
                if twice
                else "Write that layer with operations that have a derivative."
            )
            what = "second derivative" if twice else "derivative"
            raise SettingsError(f"{self.name} has no {what} in the images ({first_line(error)}). {remedy}") from error
        if images.grad is None:
            raise SettingsError(
                f"{self.name} cuts the way from what is matched back to the images: nothing would be learned. Leave "
                "out detach(), no_grad and functions whose backward pass is not itself differentiable."
            )


class FewSteps(Unroller):
    """Takes two steps of a student's training: enough to see whether they can be taken."""

    def __call__(self, student: Student, *others: Any) -> Unrolled:
        """Train a student for a start."""
        return super().__call__(replace(student, batches=student.batches[:2]), *others)


def _with_few(block: Block) -> Block:
    """Return a block with its first real images only: most of an update's time is spent on them."""
    images, labels = cast(Tensor, block.real_images), cast(Tensor, block.real_labels)
    weights = None if block.real_weights is None else block.real_weights[:, :FEW_REAL]
    return replace(block, real_images=images[:, :FEW_REAL], real_labels=labels[:, :FEW_REAL], real_weights=weights)


def _smallest(gatherer: Gatherer) -> list[int]:
    """Return the class with the fewest synthetic and that with the fewest real images of an update."""
    classes = range(gatherer.num_classes)
    synthetic = [gatherer.parametrization.matched_count(count) for count in gatherer.counts]
    real = [gatherer.sampling.size(gatherer.real, c) for c in classes]
    return sorted({min(classes, key=synthetic.__getitem__), min(classes, key=real.__getitem__)})
