"""The errors a user can cause, each worded as: what was expected, what came, what to do."""

from __future__ import annotations

from typing import Any, get_args


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
