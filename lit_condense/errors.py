"""The errors a user can cause, each worded as: what was expected, what came, what to do."""


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
