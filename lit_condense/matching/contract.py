"""What a matching loss of one's own must declare and return."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, check_same_kind, described
from lit_condense.matching.base import Loss, MatchingLoss, Progress, Scope, needs_of, real_needs, synthetic_needs
from lit_condense.matching.quantity import GRADIENTS, Quantity, Value, known_quantities
from lit_condense.matching.whole import Student, Whole, WholeSetLoss, WithGradient
from lit_condense.networks import NetworkFactory, build_network
from lit_condense.rng import RandomKey

START = Progress(0, 0, 0)


def declared(loss: Loss) -> None:
    """Refuse a loss that reads or sees what there is not, or whose weight is no number."""
    name = type(loss).__name__
    _check_needs(f"{name}.needs", loss.needs)
    for side in ("needs_real", "needs_synthetic"):
        if getattr(loss, side) is not None:
            _check_needs(f"{name}.{side}", getattr(loss, side))
    if loss.scope not in get_args(Scope):
        raise SettingsError(f"Expected {name}.scope to be one of {sorted(get_args(Scope))}, got {loss.scope!r}.")
    if isinstance(loss, WholeSetLoss) != (loss.scope == "whole") or not isinstance(loss, MatchingLoss | WholeSetLoss):
        raise SettingsError(
            f"Expected {name}, of scope {loss.scope!r}, to derive from WholeSetLoss where its scope is 'whole' and "
            "from MatchingLoss otherwise. Change one of the two."
        )
    if loss.scope == "mean" and (real_needs([loss]), synthetic_needs([loss])) != (GRADIENTS, GRADIENTS):
        raise SettingsError(
            f"Expected {name}, of scope 'mean', to need gradients only, got {sorted(needs_of([loss]))}. Choose scope "
            "'class' or 'set' for the others."
        )
    weight: object = loss.weight_at(START)
    if not isinstance(weight, int | float) or not math.isfinite(weight):
        raise SettingsError(f"Expected {name}.weight_at to return a finite number, got {described(weight)}.")


def _check_needs(owner: str, needs: object) -> None:
    known = known_quantities()
    if not isinstance(needs, frozenset | set) or not needs <= set(known):
        raise SettingsError(
            f"Expected {owner} to be a frozenset of some of {known}, got {needs!r}. Others are made known by "
            "lit_condense.matching.register."
        )


def formed(quantity: Quantity, value: Any) -> Value:
    """Return what a quantity of one's own was formed to, if it is a tensor or tensors by name."""
    tensors = list(value.values()) if isinstance(value, dict) else [value]
    if not tensors or any(not isinstance(t, Tensor) or not t.is_floating_point() for t in tensors):
        got = described(next((t for t in tensors if not isinstance(t, Tensor) or not t.is_floating_point()), value))
        raise SettingsError(
            f"Expected {type(quantity).__name__}.form to return a floating-point tensor or a dict of them, got {got}."
        )
    return value  # type: ignore[no-any-return]


def loss_value(loss: Loss, value: Any, like: Tensor) -> Tensor:
    """Return what a loss gave for quantities that are differentiated in, if it is one number with a graph.

    Args:
        loss: The loss.
        value: What it returned.
        like: A tensor of the device it should be on.
    """
    return _number_with_graph(
        loss,
        value,
        like,
        wanted="one floating-point number",
        advice=" Sum over the blocks, not with .item() or float().",
        without_graph="return a number that can be differentiated in the synthetic quantities, got one without a "
        "graph. Leave out detach(), item(), no_grad and whatever rounds or compares.",
    )


def whole_value(loss: Loss, value: Any, leaves: Mapping[str, Tensor]) -> Tensor:
    """Return what a loss of scope ``whole`` gave, if it is one number with a graph."""
    return _number_with_graph(
        loss,
        value,
        leaves["images"],
        wanted="a WithGradient, or one floating-point number",
        without_graph="return a number with a graph to the leaves, got one without. Leave out detach() and no_grad, "
        "build on whole.leaves, or return a WithGradient.",
    )


def _number_with_graph(
    loss: Loss, value: Any, like: Tensor, *, wanted: str, without_graph: str, advice: str = ""
) -> Tensor:
    """Return a value if it is one number with a graph, on the device of ``like``; the words are for the refusal."""
    owner = f"{type(loss).__name__}.loss"
    if not isinstance(value, Tensor) or value.ndim > 0 or not value.is_floating_point() or value.device != like.device:
        raise SettingsError(
            f"Expected {owner} to return {wanted}, a tensor of shape () on {like.device}, got {described(value)}."
            f"{advice}"
        )
    if not value.requires_grad:
        raise SettingsError(f"Expected {owner} to {without_graph}")
    return value


def own_gradient(loss: Loss, found: WithGradient, leaves: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return value and gradients that a method defines itself, if they are of leaves that there are."""
    owner = f"{type(loss).__name__}.loss"
    if not isinstance(found.value, Tensor) or found.value.ndim > 0:
        raise SettingsError(f"Expected {owner} to say its value as a tensor of shape (), got {described(found.value)}.")
    unknown = sorted(set(found.gradients) - set(leaves))
    if unknown:
        raise SettingsError(
            f"Expected {owner} to give gradients of {', '.join(leaves)}, which is learned, got one of "
            f"{', '.join(unknown)} too. Leave it out, or learn it (model.learnables)."
        )
    for name, gradient in found.gradients.items():
        like = leaves[name].detach()
        check_same_kind(f"{owner}, gradient of {name},", gradient, tuple(like.shape), like)
    return found.value, {name: gradient.detach() for name, gradient in found.gradients.items()}


def checked_students(loss: Loss, found: Sequence[Any], whole: Whole) -> Sequence[Student]:
    """Return the students of a loss, if they can be trained."""
    owner = f"{type(loss).__name__}.loss"
    for student in found:
        if not isinstance(student, Student):
            raise SettingsError(
                f"Expected {owner} to return students alone where it returns several things, got {described(student)}."
            )
        shapes = {name: tuple(weights.shape) for name, weights in student.start.items()}
        wanted = {name: tuple(weights.shape) for name, weights in whole.parameters.items()}
        if shapes != wanted:
            raise SettingsError(
                f"Expected {owner} to start students from weights like whole.parameters, got others. Give each name "
                "one tensor of its shape."
            )
    if whole.step_size is None:
        raise SettingsError(
            f"Expected a set with a step size for {type(loss).__name__}, whose students are trained with it, got none. "
            "Say where it starts: model.learnables.inner_lr, for instance 0.01."
        )
    return found


def check_losses(losses: Sequence[Loss], synthetic_images: int, real_images: int) -> None:
    """Refuse a run that matches nothing, two losses with one name, or a loss that needs more images of each class."""
    if not losses:
        raise SettingsError(
            "Expected at least one matching loss among trainer.callbacks, got none. Add for instance "
            "lit_condense.matching.GradientMatching."
        )
    for loss in losses:
        declared(loss)
    tags = [loss.tag for loss in losses]
    if len(set(tags)) < len(tags):
        raise SettingsError(f"Expected matching losses with different names, got {tags}. Give one a `name`.")
    if all(loss.weight == 0 for loss in losses):
        raise SettingsError(f"Expected a matching loss with a weight above 0, got only 0 ({tags}). Nothing is matched.")
    for loss in losses:
        if loss.least_images > synthetic_images:
            raise SettingsError(
                f"{loss.tag} needs at least {loss.least_images} decoded synthetic images of each class, a class has "
                f"{synthetic_images}. Raise ipc or the parametrization's factor."
            )
        if loss.least_images > real_images:
            raise SettingsError(
                f"{loss.tag} needs at least {loss.least_images} real images of each class in an update, a class has "
                f"{real_images}. Raise the sampling's batch_size or leave the class out."
            )


def check_network(losses: Sequence[Loss], factory: NetworkFactory, real: RealImages, key: RandomKey) -> None:
    """Refuse a network that does not fit the images, or in which a loss finds nothing to match."""
    channels, height, width = real.image_shape
    built = build_network(factory, channels, (height, width), real.num_classes, key)
    for loss in losses:
        loss.check_network(built)
