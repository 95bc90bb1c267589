"""The errors a user can cause, each worded as: what was expected, what came, what to do; and checks that word them."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor, nn


class CondenseError(Exception):
    """Base of every error with a message meant for the user; the command line prints it without a traceback."""


class SettingsError(CondenseError, ValueError):
    """A setting is out of range, missing, or contradicts another one."""


class DataError(CondenseError, ValueError):
    """The real data cannot be used as they are."""


class CheckpointError(CondenseError):
    """A checkpoint is missing, unreadable, foreign or written under other settings."""


class ExportError(CondenseError):
    """A condensed set or its card cannot be written, read or trusted."""


class NonFiniteError(CondenseError):
    """A loss, gradient or image became NaN or infinite.

    Args:
        message: What did, and when.
        between_updates: Nothing was changed by the update in which it did.
    """

    def __init__(self, message: str, between_updates: bool = False) -> None:
        super().__init__(message)
        self.between_updates = between_updates


class BetweenUpdates(KeyboardInterrupt):
    """Ctrl-C ended a fit where a checkpoint is exact."""


def first_line(error: BaseException) -> str:
    """Return the first line of what another library's error says, or else its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_choice(setting: str, value: object, choices: Any) -> None:
    """Refuse a value that is none of a ``Literal``'s.

    Args:
        setting: Its name, for the message.
        value: What was given.
        choices: The ``Literal``.

    Raises:
        SettingsError: It is none of them.
    """
    known = [repr(choice) for choice in get_args(choices)]
    if value not in get_args(choices):
        raise SettingsError(f"Expected {setting} to be {', '.join(known[:-1])} or {known[-1]}, got {value!r}.")


def check_least(owner: str, least: float, **numbers: float | None) -> None:
    """Refuse numbers that are too small.

    Args:
        owner: Whose settings they are, for the message.
        least: The smallest that is allowed.
        numbers: Setting -> value; None stands for a default and passes.

    Raises:
        SettingsError: One is smaller, or not finite.
    """
    for name, value in numbers.items():
        if value is not None and not least <= value < math.inf:
            raise SettingsError(f"Expected {owner}.{name} to be {least} or more, got {value}.")


def described(value: object) -> str:
    """Return what a value is, in a few words, for messages."""
    if isinstance(value, nn.Module) or value is None:
        return type(value).__name__.removesuffix("Type")
    if not isinstance(value, Tensor):
        return f"{type(value).__name__} {' '.join(repr(value).split()):.60}"
    graph = "" if value.requires_grad else ", without a graph"
    return f"a {kind_of(value.dtype)} tensor of shape {tuple(value.shape)} on {value.device}{graph}"


def kind_of(dtype: torch.dtype) -> str:
    """Return the name of a type of numbers."""
    return str(dtype).removeprefix("torch.")


def is_count(value: object) -> bool:
    """Return whether a value is a whole number, 1 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_same_kind(owner: str, found: Any, shape: tuple[int, ...], like: Tensor) -> None:
    """Refuse what a part of one's own returned in place of images like those it was given.

    Args:
        owner: The part, for the message.
        found: What it returned.
        shape: That it must have.
        like: A tensor of the type and device that it must have; where that has a graph, it must have one too.

    Raises:
        SettingsError: It is something else.
    """
    right = isinstance(found, Tensor) and (found.dtype, found.device) == (like.dtype, like.device)
    if not right or tuple(found.shape) != shape:
        raise SettingsError(
            f"Expected {owner} to return a {kind_of(like.dtype)} tensor of shape {shape} on {like.device}, got "
            f"{described(found)}."
        )
    if like.requires_grad and torch.is_grad_enabled() and not found.requires_grad:
        raise SettingsError(
            f"Expected {owner} to be differentiable in the images, got a tensor without a graph. Leave out detach(), "
            "no_grad, and whatever rounds or compares pixels."
        )
