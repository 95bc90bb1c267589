"""Seconds of a DC update at one image a class on one process and on two, each with one thread.

``python -m benchmarks.processes`` writes ``benchmarks/results/processes_cpu.json``. The ceiling is what two processes
that share nothing reach on the same machine: two whole updates side by side, against one alone.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.common import RESULTS, Laps, RandomImages, machine, quiet_trainer, spread, write
from benchmarks.methods import made
from benchmarks.update import settings


def benchmark(processes: int | None = None, updates: int = 6, rounds: int = 3, mode: str = "fast") -> None:
    """Alternate one process, two that share an update, and two that do one each; write the JSON.

    Args:
        processes: Be the run that is measured, on so many processes.
        updates: Counted updates of a run, after two that are not.
        rounds: Times that all three are run.
        mode: The engine's.
    """
    torch.set_num_threads(1)
    if processes is not None:
        run(processes, updates, mode)
        return
    found: dict[str, list[float]] = {"one": [], "two": [], "side by side": []}
    for _ in range(rounds):
        found["one"] += seconds_of([1], updates, mode)
        found["two"] += seconds_of([2], updates, mode)
        found["side by side"] += seconds_of([1, 1], updates, mode)
        print(found, flush=True)
    seconds = {name: spread(values) for name, values in found.items()}
    one, two, both = (seconds[name]["median"] for name in ("one", "two", "side by side"))
    result = {
        "what": "DC image update at IPC 1, one thread a process",
        **machine(1),
        "seconds": seconds,
        "speedup_of_two": round(one / two, 2),
        "ceiling": round(2 * one / both, 2),
    }
    print(write(RESULTS, "processes_cpu", result), result["speedup_of_two"], result["ceiling"])


def seconds_of(runs: list[int], updates: int, mode: str) -> list[float]:
    """Start runs of so many processes each at the same time; return the seconds of all their updates."""
    command = [sys.executable, "-m", "benchmarks.processes", f"--updates={updates}", f"--mode={mode}"]
    started = [
        subprocess.Popen([*command, f"--processes={count}"], stdout=subprocess.PIPE, text=True) for count in runs
    ]
    found: list[float] = []
    for process in started:
        out = process.communicate()[0]
        if process.returncode != 0:
            raise RuntimeError("A run of this benchmark died; see its message above.")
        found += next(json.loads(line) for line in out.splitlines() if line.startswith("["))
    return found


def run(processes: int, updates: int, mode: str) -> None:
    """Do the updates; the first process prints the seconds of each that counts."""
    module, losses = made(settings("dc", 1, updates, mode))
    laps = Laps()
    callbacks: list[Any] = [*losses, laps]
    trainer = quiet_trainer(updates + 2, callbacks, processes)
    trainer.fit(module, datamodule=RandomImages())
    if trainer.is_global_zero:
        print(json.dumps(laps.seconds[2:]), flush=True)


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    auto_cli(benchmark)
