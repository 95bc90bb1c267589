"""How seconds and memory of a DC update grow with images per class, classes, block size and image size.

``python -m benchmarks.growth`` writes ``benchmarks/results/growth_cpu.json``, one process a cell. Beyond 10 classes or
32 pixels the network has width 32 and a class 32 real images, so that every cell is minutes at most.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.common import RESULTS, Laps, RandomImages, child, machine, peak_mib, quiet_trainer, spread, write
from lit_condense import SyntheticSet
from lit_condense.engine import Engine
from lit_condense.inner import FreshNetwork
from lit_condense.matching import GradientMatching
from lit_condense.networks import ConvNet
from lit_condense.runs.memory import keep_freed_memory
from lit_condense.sampling import RandomSampling

IPCS, CLASSES, SIZES = (1, 10, 50), (10, 100), (32, 64, 128)
BLOCKS = {10: (1, 10), 100: (1, 100)}
"""Classes in a block: one, and all."""


def benchmark(
    ipc: int | None = None,
    classes: int = 10,
    size: int = 32,
    block: int = 1,
    updates: int = 2,
    mode: str = "fast",
    threads: int = 2,
) -> None:
    """Measure all cells and write the JSON.

    Args:
        ipc: Be the process of one cell, with so many images per class.
        classes: Of the cell.
        size: Height and width of its images.
        block: Classes in a block.
        updates: Counted updates, after one that is not.
        mode: The engine's.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    if ipc is not None:
        print(json.dumps(cell(ipc, classes, size, block, updates, mode)))
        return
    rows = []
    for size in SIZES:
        for classes in CLASSES:
            for ipc in IPCS:
                for block in BLOCKS[classes]:
                    place = {"ipc": ipc, "classes": classes, "size": size, "block": block}
                    found = child("benchmarks.growth", **place, updates=updates, mode=mode, threads=threads)
                    rows.append({**place, **network_of(classes, size), "fits": found is not None, **(found or {})})
                    print(rows[-1], flush=True)
                    # after each cell: the largest take minutes, and what was measured stays if they are cut off
                    write(RESULTS, "growth_cpu", {**machine(threads), "updates": updates, "cells": rows})


def network_of(classes: int, size: int) -> dict[str, int]:
    """Return the width of a cell's network and its real images a class."""
    return {"width": 128, "real": 256} if (classes, size) == (10, 32) else {"width": 32, "real": 32}


def cell(ipc: int, classes: int, size: int, block: int, updates: int, mode: Any) -> dict[str, Any]:
    """Do the updates of a cell in this process."""
    keep_freed_memory()  # as the command line does
    shown = network_of(classes, size)
    module = SyntheticSet(
        ipc=ipc,
        network=partial(ConvNet, width=shown["width"]),
        inner=FreshNetwork(),  # a new network an update, none is trained
        sampling=RandomSampling(shown["real"]),
        engine=Engine(mode, classes_per_block=block),
    )
    laps = Laps()
    data = RandomImages(shown["real"], (3, size, size), classes)
    quiet_trainer(updates + 1, [GradientMatching(), laps]).fit(module, datamodule=data)
    return {"seconds": spread(laps.seconds[1:]), "peak_mib": peak_mib(), "plan": module.running.description}


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    auto_cli(benchmark)
