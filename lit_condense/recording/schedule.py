"""How long a run is that trains experts side by side."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def steps_of_run(work: Sequence[Sequence[int]], slots: int) -> int:
    """Return the epochs after which the last process is done.

    Each process takes its experts in order, the next one wherever one is done.

    Args:
        work: For each process the epochs that its experts still need.
        slots: Experts that a process trains at a time.
    """
    return max((_one_process(epochs, slots) for epochs in work), default=0)


def _one_process(epochs: Sequence[int], slots: int) -> int:
    ends = [0] * slots
    for needed in epochs:
        heapq.heappush(ends, heapq.heappop(ends) + needed)
    return max(ends)
