"""The only file that compiles: what ``torch.compile`` is asked for, what it costs, and what happens where it cannot."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

DOUBLE_BACKWARD_COMPILES = hasattr(torch._dynamo.config, "trace_autograd_ops")
"""Whether nested calls of ``torch.autograd.grad`` can stand inside one compiled region: torch 2.11 and newer."""

MOST_VERSIONS = 64
"""Compiled versions of one function in a process. PyTorch's own limit is 8, which a notebook with a few runs reaches:
every shape and every kind of network counts. Beyond it a region goes on eager; where it may break, without a word."""

WANTED = {"trace_autograd_ops": True, "recompile_limit": MOST_VERSIONS, "cache_size_limit": MOST_VERSIONS}
"""Settings of Dynamo while our regions run; ``recompile_limit`` was called ``cache_size_limit`` once."""


COMPILER_ERRORS: tuple[type[Exception], ...] = (
    torch._dynamo.exc.TorchDynamoException,
    # more versions than allowed, of a region that must be one graph; no such thing below torch 2.6
    getattr(torch._dynamo.exc, "FailOnRecompileLimitHit", torch._dynamo.exc.TorchDynamoException),
)
"""What is raised where something cannot be compiled."""


class Clock:
    """Counts the seconds of the calls in which something was compiled; one for all regions of a run."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.failed = False
        """Whether a region could not be compiled: it has said so, and new ones do not try again."""

    def taken(self) -> float:
        """Return the seconds since the last time they were taken, and start from 0."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class CompiledFunction(Generic[Arguments, Result]):
    """A function that is compiled at its first call, once for each shape of its arguments.

    Where the platform or the code cannot be compiled, it goes on without, with one warning a run.

    Args:
        function: Pure tensor code.
        compiled: False leaves it as it is.
        clock: Counts what compiling takes, and remembers where it failed.
        fullgraph: Whether it must become one graph, because both derivatives are taken inside. Otherwise what cannot be
            traced runs between two graphs.
        otherwise: What is called where compiling fails, or is not wanted: by default the function itself.
    """

    def __init__(
        self,
        function: Callable[Arguments, Result],
        compiled: bool,
        clock: Clock,
        fullgraph: bool = False,
        otherwise: Callable[Arguments, Result] | None = None,
    ) -> None:
        self.compiled = compiled and not clock.failed
        self._otherwise = otherwise or function
        self._clock = clock
        self._callable: Callable[Arguments, Result] = (
            torch.compile(function, dynamic=False, fullgraph=fullgraph) if self.compiled else self._otherwise
        )

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Call the function."""
        if not self.compiled:
            return self._callable(*args, **kwargs)
        graphs, started = _graphs(), time.perf_counter()
        try:
            with _dynamo_settings():
                return self._callable(*args, **kwargs)
        except COMPILER_ERRORS as error:
            self._warn(error)
            self.compiled, self._callable = False, self._otherwise
            return self._callable(*args, **kwargs)
        finally:
            if _graphs() > graphs or not self.compiled:
                self._clock.seconds += time.perf_counter() - started

    def _warn(self, error: Exception) -> None:
        if not self._clock.failed:
            self._clock.failed = True
            warnings.warn(
                f"torch.compile does not work here ({type(error).__name__}: {_first_line(error)}); going on without "
                "it, slower. model.engine.compile: never does the same without this warning.",
                stacklevel=3,
            )


def _dynamo_settings() -> AbstractContextManager[Any]:
    known = {name: value for name, value in WANTED.items() if hasattr(torch._dynamo.config, name)}
    settings: AbstractContextManager[Any] = torch._dynamo.config.patch(known)
    return settings


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")
