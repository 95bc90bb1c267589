"""The loader of whole numbers that drives the loops: update indices in training, network indices in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


class IndexLoader:
    """Yield whole numbers, asked for anew at each iteration.

    Lightning takes any iterable as a loader. This one is not a ``DataLoader`` because that draws a number from a
    generator at each ``iter()``, gets a distributed sampler, and is warned about for having no workers. It has no
    length because a rank without a network to evaluate would then be an error in Lightning.

    Args:
        indices: Called at each ``iter()``.
    """

    def __init__(self, indices: Callable[[], Iterable[int]]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices())
