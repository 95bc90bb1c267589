"""What parts of one's own must return: held to it where they are used, in one sentence each."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from lit_condense.augmentation import Augmentation
from lit_condense.augmentation.base import OPERATIONS
from lit_condense.errors import SettingsError
from lit_condense.matching.base import MatchingLoss, Need, Progress, Scope

if TYPE_CHECKING:
    from lit_condense.data.store import RealImages
    from lit_condense.inner import InnerLoop
    from lit_condense.parametrization import Initialization, Pixels
    from lit_condense.rng import RandomKey
    from lit_condense.sampling import Sampling

START = Progress(0, 0, 0)


# ------------------------------------------------------------------------------------------------------ losses


def declared(loss: MatchingLoss) -> None:
    """Refuse a loss that reads or sees what there is not, or whose weight is no number."""
    known, name = sorted(get_args(Need)), type(loss).__name__
    needs: object = loss.needs
    if not isinstance(needs, frozenset | set) or not needs <= set(known):
        raise SettingsError(f"Expected {name}.needs to be a frozenset of some of {known}, got {needs!r}.")
    if loss.scope not in get_args(Scope):
        raise SettingsError(f"Expected {name}.scope to be one of {sorted(get_args(Scope))}, got {loss.scope!r}.")
    if loss.scope == "mean" and needs != {"gradients"}:
        raise SettingsError(
            f"Expected {name}, of scope 'mean', to need gradients only, got {sorted(needs)}. Choose scope 'class' or "
            "'set' for the others."
        )
    weight: object = loss.weight_at(START)
    if not isinstance(weight, int | float) or not math.isfinite(weight):
        raise SettingsError(f"Expected {name}.weight_at to return a finite number, got {_described(weight)}.")


def loss_value(loss: MatchingLoss, value: Any, like: Tensor) -> Tensor:
    """Return what a loss gave for quantities that are differentiated in, if it is one number with a graph.

    Args:
        loss: The loss.
        value: What it returned.
        like: A tensor of the device it should be on.
    """
    owner = f"{type(loss).__name__}.loss"
    if not isinstance(value, Tensor) or value.ndim > 0 or not value.is_floating_point() or value.device != like.device:
        raise SettingsError(
            f"Expected {owner} to return one floating-point number, a tensor of shape () on {like.device}, got "
            f"{_described(value)}. Sum over the blocks, not with .item() or float()."
        )
    if not value.requires_grad:
        raise SettingsError(
            f"Expected {owner} to return a number that can be differentiated in the synthetic quantities, got one "
            "without a graph. Leave out detach(), item(), no_grad and whatever rounds or compares."
        )
    return value


# ------------------------------------------------------------------------------------------------------ images


def applied(augmentation: Augmentation, images: Tensor, draw: Any) -> Tensor:
    """Return augmented images, as many and of the same kind as before."""
    owner = type(augmentation).__name__
    own_draw = type(augmentation).apply is Augmentation.apply
    if own_draw and not _is_draw(draw):
        raise SettingsError(
            f"Expected {owner}.draw to return a dict from names of operations to tuples of tensors, got "
            f"{_described(draw)}. Return such a dict, or define apply for what it returns."
        )
    if own_draw and (unknown := sorted(map(str, draw.keys() - OPERATIONS.keys()))):
        raise SettingsError(f"Expected {owner}.draw to name some of {sorted(OPERATIONS)}, got {unknown}.")
    found = augmentation.apply(images, draw)
    _same_kind(f"{owner}.apply", found, tuple(images.shape), images)
    return found


def _is_draw(draw: Any) -> bool:
    if not isinstance(draw, dict) or not all(isinstance(values, tuple) for values in draw.values()):
        return False
    return all(isinstance(v, Tensor) and v.ndim > 0 for values in draw.values() for v in values)


def decoded(parametrization: Pixels, stored: Tensor, found: Any) -> Tensor:
    """Return what stored images of a class were decoded to, if it is what the parametrization announced."""
    count = parametrization.decoded_count(len(stored))
    _same_kind(f"{type(parametrization).__name__}.decode", found, (count, *stored.shape[1:]), stored)
    return found  # type: ignore[no-any-return]


def decoded_labels(parametrization: Pixels, labels: Tensor, found: Any) -> Tensor:
    """Return the labels of decoded images of a class."""
    count = parametrization.decoded_count(len(labels))
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or tuple(found.shape) != (count,):
        raise SettingsError(
            f"Expected {type(parametrization).__name__}.decode_labels to return {count} int64 labels, one for each "
            f"decoded image, got {_described(found)}."
        )
    return found


def counts(parametrization: Pixels, stored: int) -> None:
    """Refuse a parametrization whose numbers of images do not fit one another."""
    owner = type(parametrization).__name__
    decoded, matched = parametrization.decoded_count(stored), parametrization.matched_count(stored)
    if not _is_count(decoded) or not _is_count(matched) or matched > decoded:
        raise SettingsError(
            f"Expected {owner}.decoded_count and matched_count to return whole numbers, 1 or more, the second at most "
            f"the first, got {decoded!r} and {matched!r} for {stored} stored images."
        )


def start(init: Initialization, images: Any, wanted: tuple[int, ...]) -> Tensor:
    """Return the first images, if they are finite and as many as asked for."""
    owner = f"{type(init).__name__}.start"
    if not isinstance(images, Tensor) or not images.is_floating_point() or tuple(images.shape) != wanted:
        raise SettingsError(
            f"Expected {owner} to return floating-point images of shape {wanted}, got {_described(images)}."
        )
    if not bool(images.isfinite().all()):
        raise SettingsError(f"Expected {owner} to return finite images, some are NaN or infinite.")
    return images


def _same_kind(owner: str, found: Any, shape: tuple[int, ...], like: Tensor) -> None:
    right = isinstance(found, Tensor) and (found.dtype, found.device) == (like.dtype, like.device)
    if not right or tuple(found.shape) != shape:
        raise SettingsError(
            f"Expected {owner} to return a {_kind(like.dtype)} tensor of shape {shape} on {like.device}, got "
            f"{_described(found)}."
        )
    if like.requires_grad and torch.is_grad_enabled() and not found.requires_grad:
        raise SettingsError(
            f"Expected {owner} to be differentiable in the images, got a tensor without a graph. Leave out detach(), "
            "no_grad, and whatever rounds or compares pixels."
        )


# ------------------------------------------------------------------------------------------------------ sampling


def size(sampling: Sampling, real: RealImages, class_index: int) -> int:
    """Return how many real images of a class an update sees."""
    found: object = sampling.size(real, class_index)
    if not _is_count(found):
        raise SettingsError(
            f"Expected {type(sampling).__name__}.size to return a whole number, 1 or more, got {found!r} for class "
            f"{class_index}."
        )
    return int(found)  # type: ignore[call-overload, no-any-return]


def selected(sampling: Sampling, found: Any, real: RealImages, class_index: int) -> Tensor:
    """Return the chosen real images of a class, if they are as many indices as the sampling announced."""
    wanted = sampling.size(real, class_index)
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or tuple(found.shape) != (wanted,):
        raise SettingsError(
            f"Expected {type(sampling).__name__}.select to return {wanted} indices into the real images (as its size "
            f"says) as an int64 tensor of shape {(wanted,)}, got {_described(found)}."
        )
    return found


def of_classes(sampling: Sampling, real: RealImages, key: RandomKey) -> None:
    """Refuse a sampling that chooses images of another class, or none at all; looks at every index.

    Args:
        sampling: The sampling.
        real: The real images.
        key: Names the draws of an update; a class is folded into it.
    """
    for c in range(real.num_classes):
        found = selected(sampling, sampling.select(real, c, key.fold(c)), real, c).cpu()
        strangers = found[~torch.isin(found, real.indices_of(c))]
        if len(strangers):
            raise SettingsError(
                f"Expected {type(sampling).__name__}.select to return indices of images of class {c}, got "
                f"{strangers.tolist()[:5]} ({len(strangers)} of {len(found)}), which are not. Choose among "
                "real.indices_of(class_index)."
            )


# ------------------------------------------------------------------------------------------------------ networks


def updates(loop: InnerLoop, found: Any) -> int:
    """Return how many updates a network serves."""
    if not _is_count(found):
        raise SettingsError(
            f"Expected {type(loop).__name__}.updates_per_network to return a whole number, 1 or more, got {found!r}."
        )
    return int(found)


def trained_in_place(loop: InnerLoop, method: str, result: object, network: nn.Module, now: nn.Module) -> None:
    """Refuse an inner loop that did not leave the network where and as it was, but for its weights.

    Args:
        loop: The loop.
        method: What was called.
        result: What it returned.
        network: The inner network before.
        now: And after.
    """
    owner = f"{type(loop).__name__}.{method}"
    if result is not None:
        raise SettingsError(
            f"Expected {owner} to train the network in place and to return nothing, got {_described(result)}."
        )
    if now is not network:
        raise SettingsError(
            f"Expected {owner} to train the network that it is given, it put another {type(now).__name__} in its "
            "place. Load new weights into the network that is there."
        )
    if not network.training:
        raise SettingsError(
            f"Expected {owner} to leave the network in training mode, it left it in evaluation mode. Call "
            "network.train(), or look through lit_condense.networks.evaluating."
        )


def steps_alone(optimizer: object, of: str) -> torch.optim.Optimizer:
    """Return an optimizer, if it steps along the gradients that it finds.

    Args:
        optimizer: As a factory made it.
        of: What it steps, for the message.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SettingsError(f"Expected a torch optimizer of {of}, got {_described(optimizer)}.")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise SettingsError(
            f"Expected an optimizer of {of} that steps along one gradient, got {type(optimizer).__name__}, which "
            "evaluates the loss again in a step (a closure). Choose SGD, Adam or another first-order one."
        )
    return optimizer


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _described(value: object) -> str:
    if isinstance(value, nn.Module) or value is None:
        return type(value).__name__.removesuffix("Type")
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} {' '.join(repr(value).split()):.60}"
    graph = "" if value.requires_grad else ", without a graph"
    return f"a {_kind(value.dtype)} tensor of shape {tuple(value.shape)} on {value.device}{graph}"


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
