"""One optimizer step on all that a set learns, unless a loss, a gradient or what it makes is NaN or infinite."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.errors import NonFiniteError
from lit_condense.matching.whole import INNER_LR
from lit_condense.sharding import Share

NonFinite = Literal["stop", "skip"]
"""``stop`` the run before the images are touched, or ``skip`` the update, count it and go on."""

ADVICE = "The images are as they were before it. Look at the data and lower the learning rates."


class ImageStep:
    """Steps what a set learns and keeps it finite. Whether it stops or skips is the same on all ranks.

    Args:
        leaves: The parameters by name, ``images`` among them.
        optimizer: Lightning's, over these alone.
        backward: Lightning's ``manual_backward``.
        share: This process's place in the run.
        non_finite: See :data:`NonFinite`.
        project: Clamps the images after each step; None where that is not wanted.
        inner_tensors: Gives the inner network's tensors, looked at where an update cannot be taken.
        skipped: Updates skipped so far.
        held_back: Updates so far whose loss was too large.
    """

    def __init__(
        self,
        leaves: Mapping[str, Tensor],
        optimizer: LightningOptimizer,
        backward: Callable[[Tensor], None],
        share: Share,
        non_finite: NonFinite,
        project: Callable[[], None] | None,
        inner_tensors: Callable[[], Sequence[Tensor]],
        skipped: int = 0,
        held_back: int = 0,
    ) -> None:
        self.skipped = skipped
        self.held_back = held_back
        self.taken = True
        """Whether the last update moved anything."""
        self._leaves = leaves
        self._optimizer = optimizer
        self._backward = backward
        self._share = share
        self._non_finite = non_finite
        self._project = project
        self._inner_tensors = inner_tensors

    def take(
        self,
        gradients: Mapping[str, Tensor],
        losses: dict[str, Tensor],
        update: int,
        gradients_of: Callable[[str], Mapping[str, Tensor]],
        largest: Mapping[str, float] | None = None,
    ) -> Tensor:
        """Take the step, and sum the losses over the ranks in place.

        Args:
            gradients: This rank's part of the gradient in each leaf.
            losses: This rank's part of each loss, by tag.
            update: The image update.
            gradients_of: Gives this rank's part of the gradients of one loss alone.
            largest: Loss by tag -> the value above which the update changes nothing.

        Returns:
            The norm of the image gradient, summed over the ranks; NaN for an update that was not taken.

        Raises:
            NonFiniteError: Something is not finite, and the run is to stop. The images are as they were before.
        """
        self.taken = False
        summed = self._share.sum(torch.stack([*losses.values(), _bad_entries(gradients)]))
        losses.update(zip(losses, summed, strict=False))
        self._optimizer.zero_grad()
        # One of the two points of an update at which the program waits for a GPU; the other looks at the new images.
        *values, bad_entries = summed.tolist()
        reason = _why_not_finite(
            dict(zip(losses, values, strict=True)),
            bad_entries > 0,
            update,
            lambda tag: bool(self._share.sum(_bad_entries(gradients_of(tag))) == 0),
        )
        if reason:
            reason += _diverged(self._inner_tensors()) + _stands_at(self._leaves)
            self._refuse(reason, between_updates=True)
            self._optimizer.step()  # of no gradient: the images stay, and the update counts
            return torch.full_like(summed[-1], torch.nan)
        if any(float(losses[tag]) > most for tag, most in (largest or {}).items() if tag in losses):
            self.held_back += 1
            self._optimizer.step()  # of no gradient: momentum stays too, and the update counts
            return torch.full_like(summed[-1], torch.nan)
        before = self._before()
        # A surrogate with these gradients: only manual_backward arms DDP's reducer, which averages over ranks.
        products = [(leaf * gradients[name]).sum() for name, leaf in self._leaves.items()]
        self._backward(sum(products[1:], products[0]) * self._share.world_size)
        grad_norm: Tensor = torch.linalg.vector_norm(cast(Tensor, self._leaves["images"].grad))
        self._optimizer.step()
        if self._project is not None:
            self._project()
        bad = _not_finite(self._leaves)
        reason = f"{bad} that are NaN or infinite" if bad else _no_step(self._leaves)
        if reason:
            self._put_back(*before)
            self._refuse(
                f"Update {update} made {reason}; the set was put back to before it. Lower the learning rate of the "
                f"{bad or 'step size (model.learnables.inner_lr_rate)'}.",
                between_updates=False,  # the optimizer has taken its step
            )
        self.taken = not reason
        return grad_norm

    def _refuse(self, reason: str, between_updates: bool) -> None:
        if self._non_finite == "stop":
            raise NonFiniteError(reason, between_updates)
        self.skipped += 1
        rank_zero_warn(f"{reason} The update is skipped ({self.skipped} so far).")

    def _before(self) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """Return the leaves and, where a run goes on after a bad step, the optimizer's state."""
        optimizer = self._optimizer.optimizer
        state = copy.deepcopy(optimizer.state_dict()) if self._non_finite == "skip" else None
        return {name: leaf.detach().clone() for name, leaf in self._leaves.items()}, state

    def _put_back(self, leaves: Mapping[str, Tensor], state: dict[str, Any] | None) -> None:
        for name, leaf in self._leaves.items():
            leaf.detach().copy_(leaves[name])
        if state is not None:
            self._optimizer.optimizer.load_state_dict(state)


def check_set(leaves: Mapping[str, Tensor], updates: int) -> None:
    """Refuse to save what is not finite over what is.

    Raises:
        NonFiniteError: Some of it is not.
    """
    bad = _not_finite(leaves)
    if bad:
        raise NonFiniteError(
            f"Expected finite {bad} to save after {updates} updates, some are NaN or infinite. The checkpoint was not "
            "written: go on from the last one with --ckpt_path last."
        )


def _not_finite(leaves: Mapping[str, Tensor]) -> str:
    """Return the names of the leaves that are not finite, as words; empty where all are."""
    return " and ".join(
        name.replace("_", " ") for name, leaf in leaves.items() if not bool(leaf.detach().isfinite().all())
    )


def _no_step(leaves: Mapping[str, Tensor]) -> str:
    """Return what is wrong with a step size that is not above 0, as words; empty where there is none or it is."""
    step_size = leaves.get(INNER_LR)
    if step_size is None or float(step_size.detach()) > 0:
        return ""
    return f"a step size of {float(step_size.detach()):.3g}"


def _stands_at(leaves: Mapping[str, Tensor]) -> str:
    if INNER_LR not in leaves:
        return ""
    return f" The step size stood at {float(leaves[INNER_LR].detach()):.3g} (model.learnables.inner_lr_rate moves it)."


def _bad_entries(gradients: Mapping[str, Tensor]) -> Tensor:
    counts = [(~gradient.isfinite()).sum().to(gradient.dtype) for gradient in gradients.values()]
    return sum(counts[1:], counts[0])


def _diverged(inner_tensors: Sequence[Tensor]) -> str:
    if all(bool(tensor.isfinite().all()) for tensor in inner_tensors):
        return ""
    return " The weights of the inner network are not finite either: its own training diverged."


def _why_not_finite(losses: dict[str, float], bad_gradient: bool, update: int, is_finite: Callable[[str], bool]) -> str:
    """Return why an update must not be taken, as a sentence; empty where all is finite.

    It does not say how many entries are bad: that depends on how classes are cut into blocks, and so on the ranks.
    """
    for tag, value in losses.items():
        if not math.isfinite(value):
            return f"Loss {tag} became {value} in update {update}. {ADVICE}"
    if not bad_gradient:
        return ""
    guilty = [tag for tag in losses if not is_finite(tag)] if len(losses) > 1 else list(losses)
    names = " and ".join(guilty or losses)
    return f"The image gradient of {names} became NaN or infinite in update {update}. {ADVICE}"
