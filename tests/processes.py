"""Real processes that start quickly: forked from a server that has imported the package and done nothing else."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
# Forked from here, a process would inherit the thread pools of this one, which do not survive a fork.
SERVER.set_forkserver_preload(["lit_condense.cli", "tests.distributed.cases"])

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def process(function, *args, log):
    """Start ``function(*args)`` in a new process, whose output goes to the file ``log``."""
    started = SERVER.Process(target=_logged, args=(function, args, str(log)), daemon=True)
    started.start()
    return started


def _logged(function, args, log):
    with Path(log).open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    function(*args)


@contextmanager
def ended(processes):
    """Kill what is left of the processes at the end of the block."""
    try:
        yield processes
    finally:
        for one in processes:
            one.kill()
            one.join()


def wait_for(processes, seconds, after_failure=20):
    """Wait until every process has ended or the time is over; return the exit codes, None for one that runs still.

    Args:
        processes: The processes.
        seconds: Longest wait.
        after_failure: Longest wait once one has failed.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        codes = [one.exitcode for one in processes]
        if None not in codes:
            break
        if any(codes):
            until = min(until, time.monotonic() + after_failure)
            after_failure = seconds
        multiprocessing.connection.wait([one.sentinel for one in processes if one.exitcode is None], timeout=1)
    return [one.exitcode for one in processes]
