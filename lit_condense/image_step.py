"""One optimizer step on the images, unless a loss, the gradient or the images it makes are NaN or infinite."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.errors import NonFiniteError, SettingsError

if TYPE_CHECKING:
    from lit_condense.synthetic_set import SyntheticSet

NonFinite = Literal["stop", "skip"]
"""``stop`` the run before the images are touched, or ``skip`` the update, count it and go on."""

ADVICE = "The images are as they were before it. Look at the data and lower the learning rates."


class ImageStep:
    """Steps the images of a set and keeps them finite. Whether it stops or skips is the same on all ranks.

    Args:
        non_finite: See :data:`NonFinite`.
    """

    def __init__(self, non_finite: NonFinite) -> None:
        if non_finite not in get_args(NonFinite):
            raise SettingsError(f"Expected non_finite to be 'stop' or 'skip', got {non_finite!r}.")
        self.non_finite = non_finite
        self.skipped = 0

    def take(
        self,
        module: SyntheticSet,
        gradient: Tensor,
        losses: dict[str, Tensor],
        update: int,
        gradient_of: Callable[[str], Tensor],
    ) -> Tensor:
        """Take the step, and sum the losses over the ranks in place.

        Args:
            module: The set.
            gradient: This rank's part of the image gradient.
            losses: This rank's part of each loss, by tag.
            update: The image update.
            gradient_of: Gives this rank's part of the image gradient of one loss alone.

        Returns:
            The norm of the image gradient, summed over the ranks; NaN for an update that was skipped before its step.

        Raises:
            NonFiniteError: Something is not finite, and the run is to stop. The images are as they were before.
        """
        summed = module.share.sum(torch.stack([*losses.values(), _bad_entries(gradient)]))
        losses.update(zip(losses, summed, strict=False))
        optimizer = cast(Any, module.optimizers())
        optimizer.zero_grad()
        # One of the two points of an update at which the program waits for a GPU; the other looks at the new images.
        *values, bad_entries = summed.tolist()
        reason = _why_not_finite(
            dict(zip(losses, values, strict=True)),
            bad_entries > 0,
            update,
            lambda tag: bool(module.share.sum(_bad_entries(gradient_of(tag))) == 0),
        )
        if reason:
            self._refuse(reason + _diverged(module), between_updates=True)
            optimizer.step()  # of no gradient: the images stay, and the update counts
            return torch.full_like(summed[-1], torch.nan)
        before = self._before(module.images, optimizer.optimizer)
        # A surrogate whose gradient is `gradient`: only manual_backward arms DDP's reducer, which averages over ranks.
        module.manual_backward((module.images * gradient).sum() * module.share.world_size)
        grad_norm: Tensor = torch.linalg.vector_norm(cast(Tensor, module.images.grad))
        optimizer.step()
        if module.parametrization.clamp == "every_update":
            module.project()
        if not bool(module.images.isfinite().all()):
            _put_back(module.images, optimizer.optimizer, before)
            self._refuse(
                f"Update {update} made images that are NaN or infinite; the set was put back to before it. Lower the "
                "learning rate of the images.",
                between_updates=False,  # the optimizer has taken its step
            )
        return grad_norm

    def _refuse(self, reason: str, between_updates: bool) -> None:
        if self.non_finite == "stop":
            raise NonFiniteError(reason, between_updates)
        self.skipped += 1
        rank_zero_warn(f"{reason} The update is skipped ({self.skipped} so far).")

    def _before(self, images: Tensor, optimizer: torch.optim.Optimizer) -> tuple[Tensor, dict[str, Any] | None]:
        """Return the images and, where a run goes on after a bad step, the optimizer's state."""
        state = copy.deepcopy(optimizer.state_dict()) if self.non_finite == "skip" else None
        return images.detach().clone(), state


def check_set(images: Tensor, updates: int) -> None:
    """Refuse to save images that are not finite over good ones.

    Raises:
        NonFiniteError: Some are not.
    """
    if not bool(images.isfinite().all()):
        raise NonFiniteError(
            f"Expected finite images to save after {updates} updates, some are NaN or infinite. The checkpoint was not "
            "written: go on from the last one with --ckpt_path last."
        )


def _bad_entries(gradient: Tensor) -> Tensor:
    return (~gradient.isfinite()).sum().to(gradient.dtype)


def _diverged(module: SyntheticSet) -> str:
    if all(bool(tensor.isfinite().all()) for tensor in module._inner.tensors()):
        return ""
    return " The weights of the inner network are not finite either: its own training diverged."


def _put_back(images: Tensor, optimizer: torch.optim.Optimizer, before: tuple[Tensor, dict[str, Any] | None]) -> None:
    images.detach().copy_(before[0])
    if before[1] is not None:
        optimizer.load_state_dict(before[1])


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
