"""One image update over all of a rank's class blocks, whatever the scopes of its losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_condense.engine.engine import BlockResult, RunningEngine
from lit_condense.matching.base import Loss, MatchingLoss, Progress, real_needs, weights_at
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import GRADIENTS, Need
from lit_condense.matching.whole import WholeSetLoss
from lit_condense.sharding import Share
from lit_condense.synthetic.gather import Gatherer
from lit_condense.synthetic.whole_set import match_whole


@dataclass(frozen=True)
class UpdateResult:
    """A rank's part of an update."""

    gradients: dict[str, Tensor]
    """In each leaf of the set: in ``images`` those of other ranks' classes have none."""
    losses: dict[str, Tensor]
    """Unweighted losses by tag; their sum over ranks is the loss of the update."""
    weighted: Tensor | None = None
    """Their weighted sum, where several networks, with weights of their own, are in it."""


def summed(results: Sequence[UpdateResult], weights: Sequence[Mapping[str, float]] = ()) -> UpdateResult:
    """Return the sum of what an update gives on each of its networks.

    Args:
        results: One for each network.
        weights: Of the losses on each network, by tag; without them no weighted sum is formed.
    """
    if len(results) == 1:
        return results[0]
    gradients = {name: sum((r.gradients[name] for r in results[1:]), g) for name, g in results[0].gradients.items()}
    tags = dict.fromkeys(tag for result in results for tag in result.losses)
    losses = {tag: torch.stack([r.losses[tag] for r in results if tag in r.losses]).sum() for tag in tags}
    each = zip(results, weights, strict=False)
    weighted = [factors[tag] * value for result, factors in each for tag, value in result.losses.items()]
    return UpdateResult(gradients, losses, torch.stack(weighted).sum() if weighted else None)


def match(
    engine: RunningEngine,
    gatherer: Gatherer,
    share: Share,
    losses: Sequence[Loss],
    progress: Progress,
    only: str | None = None,
) -> UpdateResult:
    """Return the gradients and the losses of this rank's classes.

    Losses of scope ``class`` are evaluated block by block. Those of scope ``mean`` take two passes: first the mean over
    all classes (and ranks) without a graph, then their constant vector goes back through each block. Those of scope
    ``set`` and ``whole`` are evaluated by the first rank, or by all if they share their work. So the result depends
    neither on how classes are cut nor on the ranks.

    Args:
        engine: Bound to the inner network.
        gatherer: Makes the blocks of the update.
        share: The rank.
        losses: Those whose weight is not 0 now, and those that are to be logged even so.
        progress: Where the run stands.
        only: Tag of the one loss whose gradient is wanted, by the same plan; by default of all, weighted.
    """
    zero = gatherer.stored.new_zeros(())
    totals = {loss.tag: zero.clone() for loss in losses}
    blocks = gatherer.blocks(share, engine.plan.classes_per_block)
    matched = [loss for loss in losses if isinstance(loss, MatchingLoss)]
    separable = [loss for loss in matched if loss.scope == "class"]
    real_sides: list[Quantities] | None = None
    vectors: dict[str, Tensor] | None = None
    means = [loss for loss in matched if loss.scope == "mean"]
    if means:
        real_sides, real_mean, synthetic_mean = _class_means(
            engine, gatherer, share, blocks, real_needs(separable) | GRADIENTS
        )
        weights = weights_at(means, progress, only)
        values, vectors = _mean_vectors(means, weights, real_mean, synthetic_mean, gatherer.num_classes)
        if share.rank == 0:  # every rank has the same values: they count once
            totals.update(values)
    done: list[tuple[Sequence[int], Tensor]] = []
    if separable or means:
        for position, classes in enumerate(blocks):
            real = None if real_sides is None else real_sides[position]
            block = gatherer.block(classes, with_real=real is None and bool(real_needs(separable)))
            _add(totals, done, classes, engine.run(block, separable, progress, real, vectors, only))
    joint = [loss for loss in matched if loss.scope == "set"]
    if joint and share.rank == 0:
        _add(totals, done, range(gatherer.num_classes), engine.run(gatherer.whole(), joint, progress, only=only))
    gradients = {"images": gatherer.scatter(done)}
    gradients |= {name: torch.zeros_like(leaf) for name, leaf in gatherer.others.items()}
    whole = [loss for loss in losses if isinstance(loss, WholeSetLoss)]
    if whole:
        weighted = list(zip(whole, weights_at(whole, progress, only), strict=True))
        values, found = match_whole(gatherer, engine.network, share, weighted, progress, engine.unroller)
        totals.update(values)
        gradients |= {name: gradients[name] + gradient for name, gradient in found.items()}
    return UpdateResult(gradients, totals)


def _add(
    totals: dict[str, Tensor], done: list[tuple[Sequence[int], Tensor]], classes: Sequence[int], result: BlockResult
) -> None:
    done.append((classes, result.gradient))
    for tag, value in result.losses.items():
        totals[tag] = totals[tag] + value


def _class_means(
    engine: RunningEngine,
    gatherer: Gatherer,
    share: Share,
    blocks: Sequence[Sequence[int]],
    needs: frozenset[Need],
) -> tuple[list[Quantities], Quantities, Quantities]:
    """Return the real side of each block, and the mean over all classes of the gradients of both sides.

    Keeping the real side costs the rank a gradient for each of its classes; computing it again would double the update.
    """
    real_sides: list[Quantities] = []
    sums: list[dict[str, Tensor]] = [{}, {}]
    for classes in blocks:
        block = gatherer.block(classes)
        real_sides.append(engine.real_side(block, needs))
        synthetic = engine.synthetic_side(block, GRADIENTS)
        for total, side in zip(sums, (real_sides[-1], synthetic), strict=True):
            for name, gradient in side.gradients.items():
                total[name] = total.get(name, 0) + gradient.detach().sum(0)
    names = {name: p.shape for name, p in engine.network.named_parameters() if p.requires_grad}
    real, synthetic_mean = (_over_ranks(total, names, engine, share, gatherer.num_classes) for total in sums)
    return real_sides, real, synthetic_mean


def _over_ranks(
    total: dict[str, Tensor], shapes: dict[str, torch.Size], engine: RunningEngine, share: Share, num_classes: int
) -> Quantities:
    parameter = next(engine.network.parameters())
    flat = torch.cat([total.get(name, parameter.new_zeros(shape)).flatten() for name, shape in shapes.items()])
    mean = share.sum(flat) / num_classes
    parts = torch.split(mean, [shape.numel() for shape in shapes.values()])
    gradients = {name: part.view(1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    return Quantities({"gradients": gradients}, classes=num_classes)


def _mean_vectors(
    losses: Sequence[MatchingLoss],
    weights: Sequence[float],
    real: Quantities,
    synthetic: Quantities,
    num_classes: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the losses of the means, and the constant vector each class's gradients get from them."""
    copies = synthetic.detached(requires_grad=True)
    values = {loss.tag: loss.loss(real, copies) for loss in losses}
    total = torch.stack([weight * value for weight, value in zip(weights, values.values(), strict=True)]).sum()
    found = torch.autograd.grad(total, list(copies.gradients.values()), allow_unused=True)
    vectors = {
        name: vector.squeeze(0) / num_classes
        for name, vector in zip(copies.gradients, found, strict=True)
        if vector is not None
    }
    return {tag: value.detach() for tag, value in values.items()}, vectors
