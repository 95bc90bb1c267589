"""What the process does with memory it has freed."""

from __future__ import annotations

import ctypes
import sys

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
