"""Where time goes: that of an image update, and that of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the wall-clock seconds of named parts.

    Args:
        parts: Their names; each starts at 0.
    """

    def __init__(self, *parts: str) -> None:
        self.seconds = dict.fromkeys(parts, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started


class Timer:
    """Adds up wall-clock seconds between starts and stops."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds so far, also while it runs."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._before, self._started = value, None

    def start(self) -> None:
        """Start it; what ran since an earlier start without a stop is not counted."""
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop it."""
        self.seconds = self.seconds
