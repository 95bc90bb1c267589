"""What the process does with memory it has freed."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt`` (malloc.h)."""


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep large blocks that were freed, in place of handing them back to the system each time.

    Every operation of an eager pass through a network allocates its result; fetching its pages from the system anew is
    half of the time of ConvNet-3 on a batch of 256. The memory of the process then stays at its highest point. The
    command line does this; it is for the whole process, so the library does not do it by itself.

    Returns:
        Whether there is such an allocator.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


LARGEST_LEARNT = 28 * 2**20
"""Bytes; glibc learns from blocks of up to 32 MiB."""


def keep_small_blocks() -> None:
    """Let glibc's allocator keep freed blocks of some MiB, with at most 56 MiB free at the end of each of its arenas.

    It learns which size to keep from what is freed (mallopt(3), ``M_MMAP_THRESHOLD``), so one block is. Threads have
    arenas that give back more often than the main one does: a seventh of the time of small networks in threads. Other
    systems and C libraries are not changed by it, nor is a process that keeps everything.
    """
    torch.empty(LARGEST_LEARNT, dtype=torch.uint8)
