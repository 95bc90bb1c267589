"""What the benchmarks share: random images, a silent trainer, and how results are written."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lit_condense.data import CondenseDataModule, Splits
from lit_condense.export.versions import versions
from lit_condense.rng import RandomKey

RESULTS = Path(__file__).parent / "results"
CLASSES, REAL, SHAPE = 10, 256, (3, 32, 32)


class RandomImages(CondenseDataModule):
    """Random bytes, by default in CIFAR-10's shape: arithmetic does not depend on what is shown."""

    dataset_name = "random"

    def __init__(
        self, class_size: int = REAL + 10, shape: tuple[int, int, int] = SHAPE, num_classes: int = CLASSES
    ) -> None:
        super().__init__()
        self.class_size = class_size
        self.shape = shape
        self.how_many = num_classes

    def load(self) -> Splits:
        generator = RandomKey(0, ("benchmark",)).generator()
        labels = torch.arange(self.how_many).repeat_interleave(self.class_size)
        images = torch.randint(0, 256, (len(labels), *self.shape), dtype=torch.uint8, generator=generator)
        one_each = torch.arange(self.how_many) * self.class_size
        names = tuple(f"class {c}" for c in range(self.how_many))
        return Splits(images, labels, images[one_each], labels[one_each], names)


class Laps(Callback):
    """Seconds of each update, and when the first one was over."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.first_ended = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: int, batch_idx: int) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: int, batch_idx: int) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self.first_ended = self.first_ended or time.time()


KILLED = (-9, 137)
"""Exit codes of a process that the system killed, as it does where memory runs out."""


def child(module: str, **options: Any) -> dict[str, Any] | None:
    """Run a benchmark module in a process of its own; return the JSON it prints last, or None if memory ran out."""
    command = [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in KILLED or "can't allocate memory" in done.stderr or "MemoryError" in done.stderr:
        return None
    if done.returncode != 0:
        raise RuntimeError(f"Expected {' '.join(command[1:])} to end well, it said:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


DEVICES = {"cpu": "cpu", "cuda": "gpu"}
"""PyTorch's name of a device -> Lightning's."""
CONVOLVED = {"cpu": 64, "cuda": 256}
"""Images of the convolution that is timed alone."""


def now(device: str) -> float:
    """Return seconds on a clock, after all that a GPU has been told to do."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def convolution_rates(repeats: int = 10, device: str = "cpu") -> dict[str, float]:
    """Return the GFLOP/s of the network's middle convolution alone, forward: what an update could reach at best."""
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(device, dtype)
        images = torch.randn(CONVOLVED[device], 128, 16, 16).to(device, dtype)
        with torch.inference_mode():
            seconds = []
            for _ in range(repeats + 1):  # the first one is not counted
                started = now(device)
                layer(images)
                seconds.append(now(device) - started)
        gflop = 2 * layer.weight.numel() * images[:, 0].numel() / 1e9
        rates[str(dtype).removeprefix("torch.")] = round(gflop / statistics.median(seconds[1:]), 1)
    return rates


def peak_mib() -> float:
    """Return the largest resident size of this process until now."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def quiet_trainer(updates: int, callbacks: Sequence[Callback], processes: int = 1, device: str = "cpu") -> Trainer:
    """Return a trainer of so many updates that prints, logs and writes nothing."""
    return Trainer(
        accelerator=DEVICES[device],
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_steps=updates,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return what a timing depends on besides the code."""
    name = f"cpu, {threads} threads, {platform.machine()}" if device == "cpu" else torch.cuda.get_device_name()
    return {"device": name, "versions": versions()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest."""
    return {
        "median": round(statistics.median(values), 6),
        "min": round(min(values), 6),
        "max": round(max(values), 6),
    }


def columns(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the spread of each column of rows with the same names, and of their total."""
    spreads = {name: spread([row[name] for row in rows]) for name in rows[0]}
    return {**spreads, "total": spread([sum(row.values()) for row in rows])}


def write(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Write a result and return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path
