"""Seconds from the start of a process to the end of its first update, without and with a warm compiler cache.

``python -m benchmarks.startup`` writes ``benchmarks/results/startup_cpu.json``. The cold run has an empty compiler
cache of its own, the warm one has that of the cold run. Both import everything and make their data.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.common import RESULTS, Laps, RandomImages, child, machine, quiet_trainer, write
from benchmarks.methods import made
from benchmarks.update import Method, name_of, settings

CASES: tuple[tuple[Method, int], ...] = (("dc", 1), ("dc", 10), ("idc", 10))


def benchmark(
    started: float | None = None, method: Method = "dc", ipc: int = 1, mode: str = "fast", threads: int = 2
) -> None:
    """Measure all cases and write the JSON.

    Args:
        started: Be the process that is measured, which was started at this time.
        method: Its method.
        ipc: Its images per class.
        mode: The engine's.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    if started is not None:
        print(json.dumps(first_update(started, method, ipc, mode)))
        return
    rows: list[dict[str, Any]] = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            for compiler in ("cold", "warm"):
                options = {"method": case[0], "ipc": case[1], "mode": mode, "threads": threads}
                found = child("benchmarks.startup", started=time.time(), **options)
                if found is None:
                    raise RuntimeError(f"The process of {case} found no memory.")
                rows.append({"what": name_of(*case), "compiler_cache": compiler, **found})
                print(rows[-1], flush=True)
    print(write(RESULTS, "startup_cpu", {**machine(threads), "cases": rows}))


def first_update(started: float, method: Method, ipc: int, mode: str) -> dict[str, float]:
    """Do one update in this process; return the seconds until its end, and those spent compiling."""
    module, losses = made(settings(method, ipc, 1, mode))
    laps = Laps()
    trainer = quiet_trainer(1, [*losses, laps])
    trainer.fit(module, datamodule=RandomImages())
    compiling = float(trainer.callback_metrics["time/compile"])
    return {"seconds": round(laps.first_ended - started, 1), "compiling": round(compiling, 1)}


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    auto_cli(benchmark)
