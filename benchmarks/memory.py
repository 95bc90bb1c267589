"""Peak memory of an update, reference loop and engine each in a process of its own.

``python -m benchmarks.memory`` writes ``benchmarks/results/memory_<device>.json``: the largest resident size of a
process that does two updates, as ``benchmarks.update`` has them, one class at a time; on a GPU the most that was
allocated there.
"""

from __future__ import annotations

import json
import logging
from typing import Any, Literal

import torch
from jsonargparse import auto_cli

from benchmarks.common import RESULTS, RandomImages, child, machine, peak_mib, quiet_trainer, write
from benchmarks.methods import made
from benchmarks.update import Alternating, Method, name_of, settings

Who = Literal["reference", "engine"]
CASES: tuple[tuple[Method, int], ...] = (("dc", 1), ("dc", 10), ("idc", 10))
UPDATES = 2


def benchmark(
    measure: Who | None = None,
    method: Method = "dc",
    ipc: int = 1,
    mode: str = "fast",
    threads: int = 2,
    device: Literal["cpu", "cuda"] = "cpu",
) -> None:
    """Measure all cases and write the JSON.

    Args:
        measure: Be the process that is measured.
        method: What the child does.
        ipc: Images per class, for the child.
        mode: The engine's, for the child.
        threads: CPU threads.
        device: Where.
    """
    torch.set_num_threads(threads)
    if measure is not None:
        print(json.dumps({"mib": peak_of(measure, method, ipc, mode, device)}))
        return
    rows: list[dict[str, Any]] = []
    for name, images in CASES:
        slow = measured("reference", name, images, "fast", threads, device)
        for engine_mode in ("fast", "exact"):
            fast = measured("engine", name, images, engine_mode, threads, device)
            row = {"what": name_of(name, images), "mode": engine_mode, "reference_mib": slow, "engine_mib": fast}
            rows.append({**row, "ratio": round(fast / slow, 3)})
            print(rows[-1])
    print(write(RESULTS, f"memory_{device}", {**machine(threads, device), "cases": rows}))


def measured(who: Who, method: Method, ipc: int, mode: str, threads: int, device: str) -> float:
    """Return the peak of a process in MiB."""
    options = {"method": method, "ipc": ipc, "mode": mode, "threads": threads, "device": device}
    found = child("benchmarks.memory", measure=who, **options)
    if found is None:
        raise RuntimeError(f"The process of {who}, {method} at IPC {ipc}, found no memory.")
    return float(found["mib"])


def peak_of(who: Who, method: Method, ipc: int, mode: str, device: str = "cpu") -> float:
    """Do the updates and return the peak in MiB, of this process or of what it has on the GPU."""
    module, losses = made(settings(method, ipc, UPDATES, mode))
    data = RandomImages()
    if who == "engine":
        quiet_trainer(UPDATES, losses, device=device).fit(module, datamodule=data)
    else:
        _reference(module, losses, data, Alternating(module, method, ipc, device))
    return round(torch.cuda.max_memory_allocated() / 2**20, 1) if device == "cuda" else peak_mib()


def _reference(module: Any, losses: list[Any], data: RandomImages, alternating: Alternating) -> None:
    """Set everything up as the engine's process does, and do the other updates in place of the engine's."""

    def training_step(batch: int, batch_idx: int) -> None:
        alternating.on_train_batch_start(module.trainer, module, batch, batch_idx)
        module.trainer.should_stop = len(alternating.slow) == UPDATES

    module.training_step = training_step
    quiet_trainer(UPDATES, losses, device=alternating.device).fit(module, datamodule=data)
    if len(alternating.slow) != UPDATES or module.running.clock.seconds > 0:
        raise RuntimeError("Expected the update of the reference loops and nothing of the engine's.")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    auto_cli(benchmark)
