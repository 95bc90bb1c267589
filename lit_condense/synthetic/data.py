"""All that a synthetic set learns, in one bag: images, and where wanted soft labels and a step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.matching.whole import IMAGES, INNER_LR, LABEL_LOGITS

AVERAGED = "averaged_images"
"""Name in the ``state_dict`` of the average of the images over the updates."""


class Learnables:
    """What a set learns beside its images. Losses of scope ``whole`` give these leaves a gradient.

    Args:
        label_lr: Learning rate of soft labels; None: labels stay hard. They are the softmax of logits, one row for each
            stored image. Networks are trained on them between updates and in evaluations; what is matched class by
            class reads the hard labels even so.
        inner_lr: Step size that the set starts with, for losses that train networks on it; None: it has none.
        inner_lr_rate: Learning rate of the step size; None: it stays as it is.
        label_momentum: Momentum of the soft labels, where it is another than that of the images' optimizer.
        confidence: Probability of an image's own class in its first soft label, between 0 and 1; the others share the
            rest.

    Raises:
        SettingsError: A number is out of its range.
    """

    def __init__(
        self,
        label_lr: float | None = None,
        inner_lr: float | None = None,
        *,
        inner_lr_rate: float | None = None,
        label_momentum: float | None = None,
        confidence: float = 0.9,
    ) -> None:
        for name, value in (("label_lr", label_lr), ("inner_lr", inner_lr), ("inner_lr_rate", inner_lr_rate)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SettingsError(f"Expected Learnables.{name} to be above 0, got {value}. Leave it out for none.")
        if inner_lr is None and inner_lr_rate is not None:
            raise SettingsError(
                f"Expected Learnables.inner_lr beside inner_lr_rate {inner_lr_rate}, got none. Say where it starts."
            )
        if label_momentum is not None and label_lr is None:
            raise SettingsError(f"Expected Learnables.label_lr beside label_momentum {label_momentum}, got none.")
        if not 0 < confidence < 1:
            raise SettingsError(f"Expected Learnables.confidence to be between 0 and 1, got {confidence}.")
        if label_momentum is not None and not 0 <= label_momentum < 1:
            raise SettingsError(f"Expected Learnables.label_momentum to be in [0, 1), got {label_momentum}.")
        self.label_lr = label_lr
        self.label_momentum = label_momentum
        self.inner_lr = inner_lr
        self.inner_lr_rate = inner_lr_rate
        self.confidence = confidence


class SyntheticData(nn.Module):
    """The tensors of a synthetic set; empty until :meth:`begin`, or until a checkpoint brings them.

    Args:
        learnables: What is learned beside the images.
        average: Decay of an average of the images over the updates; None: there is none.
    """

    images: nn.Parameter
    """``(n, C, H, W)``, class-major, as they are stored."""
    labels: Tensor
    """The class that each row belongs to, ``(n,)`` int64: structure, never learned, and apart from :meth:`targets`."""
    label_logits: nn.Parameter | None
    """``(n, classes)``, where labels are soft."""
    inner_lr: nn.Parameter | None
    """A number, where the set has a step size."""

    averaged_images: Tensor | None
    """``(n, C, H, W)``, where the images are averaged."""

    def __init__(self, learnables: Learnables | None = None, average: float | None = None) -> None:
        super().__init__()
        self._average = average
        self.register_buffer(AVERAGED, None if average is None else torch.empty(0))
        self._learnables = learnables or Learnables()
        self.images = nn.Parameter(torch.empty(0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))
        start, learned = self._learnables.inner_lr, self._learnables.inner_lr_rate is not None
        soft = nn.Parameter(torch.empty(0)) if self._learnables.label_lr is not None else None
        step = nn.Parameter(torch.tensor(start), requires_grad=learned) if start is not None else None
        self.register_parameter(LABEL_LOGITS, soft)
        self.register_parameter(INNER_LR, step)

    def begin(self, images: Tensor, labels: Tensor, num_classes: int, logits: Tensor | None = None) -> None:
        """Take the images that the set starts from, and their classes.

        Args:
            images: ``(n, C, H, W)``.
            labels: ``(n,)``.
            num_classes: Of the data.
            logits: Of the first soft labels, ``(n, num_classes)``; by default they are as confident as they are told.
        """
        self.images = nn.Parameter(images.clone())
        self.labels = labels.clone().to(self.labels.device)
        if self.averaged_images is not None:
            self.averaged_images = images.clone()
        if self.label_logits is not None and logits is not None:
            self.label_logits = nn.Parameter(logits.to(images.dtype, copy=True))
        elif self.label_logits is not None:
            own = self._learnables.confidence
            lead = math.log(own) - math.log((1 - own) / max(1, num_classes - 1))
            self.label_logits = nn.Parameter(lead * F.one_hot(labels, num_classes).to(images.dtype))

    def held(self) -> dict[str, Tensor]:
        """Return every tensor by its name in the ``state_dict``."""
        averaged = {} if self.averaged_images is None else {AVERAGED: self.averaged_images}
        return {**dict(self.named_parameters()), "labels": self.labels, **averaged}

    def leaves(self) -> dict[str, nn.Parameter]:
        """Return what is learned, images first: what the engine differentiates, and the optimizer steps."""
        return {name: leaf for name, leaf in self.named_parameters() if leaf.requires_grad}

    def groups(self) -> list[Any]:
        """Return the parameters of the one optimizer: the images alone, or a group with its rate for each leaf."""
        rates = {LABEL_LOGITS: self._learnables.label_lr, INNER_LR: self._learnables.inner_lr_rate}
        others = [(name, leaf) for name, leaf in self.leaves().items() if name != IMAGES]
        if not others:
            return [self.images]
        groups: list[dict[str, Any]] = [{"params": [leaf], "lr": rates[name]} for name, leaf in others]
        if self._learnables.label_momentum is not None:
            groups[0]["momentum"] = self._learnables.label_momentum  # SyntheticSet checks that the optimizer has one
        return [{"params": [self.images]}, *groups]

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the images as they are after an update (FTD, Du et al., CVPR 2023).

        It starts at the first images, whose weight after k updates is the k-th power of the decay: nothing corrects it.
        """
        if self.averaged_images is not None:
            self.averaged_images.lerp_(self.images, 1 - float(self._average or 0))

    def soft_labels_of(self, decode_labels: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Return the soft labels of the decoded images, ``(decoded, classes)``, detached; None where labels are hard.

        Args:
            decode_labels: The storage's, from something of each stored image to that of each decoded one.
        """
        if self.label_logits is None:
            return None
        soft = self.label_logits.detach().softmax(1)
        return soft[decode_labels(torch.arange(len(soft), device=soft.device))]

    @property
    def fixed_step_size(self) -> Tensor | None:
        """The step size, detached, where the set has one."""
        return None if self.inner_lr is None else self.inner_lr.detach()

    def step_size(self) -> float | None:
        """Return the step size, where the set has one."""
        return None if self.inner_lr is None else float(self.inner_lr.detach())


def keep_names(owner: nn.Module, child: str) -> None:
    """Let a module save and load the tensors of a child as if they were its own: ``images``, not ``child.images``.

    Args:
        owner: The module.
        child: Name of the child, none of whose tensors is called like one of the owner's.
    """
    owner.register_state_dict_post_hook(partial(_renamed, f"{child}.", ""))  # type: ignore[no-untyped-call]
    owner.register_load_state_dict_pre_hook(partial(_renamed_to_load, child))  # type: ignore[no-untyped-call]


def _renamed(old: str, new: str, _: nn.Module, state: dict[str, Any], prefix: str, *__: object) -> None:
    for name in [name for name in state if name.startswith(prefix + old)]:
        state[prefix + new + name.removeprefix(prefix + old)] = state.pop(name)


def _renamed_to_load(child: str, owner: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    for name in owner.get_submodule(child).state_dict():
        if prefix + name in state:
            state[f"{prefix}{child}.{name}"] = state.pop(prefix + name)


def insist_on_leaves(saved: Mapping[str, Any], held: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint of a set that learns, or averages, something else.

    Raises:
        CheckpointError: It is one; both are named.
    """
    known = {*LEARNED, AVERAGED}
    then, now = sorted(known & set(saved)), sorted(known & set(held))
    if then != now:
        raise CheckpointError(
            f"Expected a set of {' and '.join(then) or 'images alone'}, as the checkpoint was made, got one of "
            f"{' and '.join(now) or 'images alone'}. Give model.learnables and model.average as that run had them."
        )


LEARNED = (LABEL_LOGITS, INNER_LR)


def targets_of(leaves: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Return what cross-entropy takes for stored images: ``(n,)`` class indices, or soft labels ``(n, classes)``.

    Args:
        leaves: With the logits of soft labels, where these are learned.
        labels: ``(n,)``.
    """
    return leaves[LABEL_LOGITS].softmax(1) if LABEL_LOGITS in leaves else labels
