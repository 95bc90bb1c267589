"""Seconds and memory of an image update of trajectory matching (MTT, TESLA), literal loop and engine alternating.

``python -m benchmarks.trajectory`` writes ``benchmarks/results/trajectory.json``. An update trains a student on the
whole set by plain SGD with DSA at every step, and takes the gradient of its normalised distance to an expert in the
images and in the step size. The engine is started as a run starts it and is handed students as a run hands them over;
the loops of ``benchmarks.reference_loop`` do the same from the definition. Both have the same network, images of
CIFAR-10's shape, batches and augmented views, and the expert is a network that was trained on random images. Each piece
of work is a process of its own, once under glibc's default and once where both keep freed memory.

``python -m benchmarks.trajectory --memory true`` writes ``benchmarks/results/trajectory_memory.json``: the largest
resident size of a process that does one update, eager.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import CLASSES, RESULTS, SHAPE, child, machine, peak_mib, spread, write
from benchmarks.reference_loop import Matched, Segment, match_mtt, match_tesla
from lit_condense.augmentation import OneOf
from lit_condense.engine import Engine, RunningEngine
from lit_condense.engine.execution_plan import Compile
from lit_condense.engine.forward import Mode
from lit_condense.matching.trajectory import normalised_distance, squared_distance, student_batches
from lit_condense.matching.whole import Student, Unroll
from lit_condense.networks import ConvNet, build_network
from lit_condense.rng import RandomKey
from lit_condense.runs.memory import keep_freed_memory

METHODS: dict[Unroll, str] = {"full": "MTT", "constant_memory": "TESLA"}
LITERAL: dict[Unroll, Callable[[Segment], Matched]] = {"full": match_mtt, "constant_memory": match_tesla}
Clock = Literal["processor", "wall"]
MODES: tuple[Mode, ...] = ("fast", "exact")
STEP_SIZE = 0.01
EXPERT_STEPS, EXPERT_BATCH, EXPERT_LR = 50, 16, 0.01
"""Steps of plain SGD on random images that lie between an expert's two snapshots."""


@dataclass(frozen=True)
class Work:
    """An image update: its method, the student's steps, and what it is trained with."""

    unroll: Unroll = "full"
    steps: int = 10
    width: int = 128
    ipc: int = 10
    image_size: int = SHAPE[1]

    @property
    def name(self) -> str:
        return f"{METHODS[self.unroll]}, {self.steps} steps on {CLASSES * self.ipc} images, width {self.width}"


SPEED = {Work("full", 10): True, Work("full", 30): False}
"""What is timed -> whether it is timed once more where both keep freed memory."""
Way = Literal["literal", "graph", "checkpointing", "constant_memory"]
WAYS: dict[Way, tuple[Unroll, bool | None]] = {
    "literal": ("full", None),
    "graph": ("full", False),
    "checkpointing": ("full", True),
    "constant_memory": ("constant_memory", None),
}
"""How the gradient of an update is formed -> ``unroll`` and ``checkpointing``; ``literal`` is the loop of MTT."""
MEMORY = {32: (10, 30, 80)}
"""Width of the network -> steps at which memory is measured."""


def benchmark(
    memory: bool = False,
    rounds: int = 5,
    threads: int = 2,
    most_gib: float = 16.0,
    folder: Path = RESULTS,
    measure: Literal["speed", "memory"] | None = None,
    unroll: Unroll = "full",
    steps: int = 10,
    width: int = 128,
    ipc: int = 10,
    image_size: int = SHAPE[1],
    way: Way = "graph",
    kept_memory: bool = False,
) -> None:
    """Measure all pieces of work and write the JSON.

    Args:
        memory: Measure memory in place of seconds.
        rounds: Counted updates of each, after one that is not.
        threads: CPU threads; with one, processor time is counted in place of the time on the wall.
        most_gib: Memory that a process may have; what needs more does not fit.
        folder: Where the JSON goes.
        measure: Be the process of one piece of work.
        unroll: Its method.
        steps: The student's.
        width: Of its ConvNet-3.
        ipc: Its images per class.
        image_size: Their height and width.
        way: In which way its memory is used.
        kept_memory: Let it keep what it frees, as the command line does.
    """
    torch.set_num_threads(threads)
    if measure is None:
        measured, name = (memory_of_all, "trajectory_memory") if memory else (seconds_of_all, "trajectory")
        for found in measured(rounds, threads, most_gib):  # what was measured stays if the rest is cut off
            path = write(folder, name, found)
        print(path)
        return
    limit_memory(most_gib)
    if measure == "memory":
        print(json.dumps(peak_of(Work(WAYS[way][0], steps, width, ipc, image_size), way)))
        return
    if kept_memory:
        keep_freed_memory()
    print(json.dumps(seconds_of(Work(unroll, steps, width, ipc, image_size), rounds, rounding=not kept_memory)))


def limit_memory(most_gib: float) -> None:
    """Let allocations of this process fail beyond a size, in place of taking the memory of others."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(most_gib * 2**30), hard))


# -------------------------------------------------------------------- one update, in both ways


class Update:
    """All that an update starts from, the same for loop and engine."""

    def __init__(self, work: Work) -> None:
        self.work, self.key = work, RandomKey(0, ("benchmark", "trajectory"))
        shape = (SHAPE[0], work.image_size, work.image_size)
        self.network = build_network(
            partial(ConvNet, width=work.width), shape[0], shape[1:], CLASSES, self.key.fold("network")
        )
        self.start = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.labels = torch.arange(CLASSES).repeat_interleave(work.ipc)
        self.images = torch.randn(len(self.labels), *shape, generator=self.key.fold("images").generator())
        self.target = self._trained()
        self.step_size = torch.tensor(STEP_SIZE)
        self.batches = list(student_batches(len(self.labels), len(self.labels), work.steps, self.key))
        self.augmentation = OneOf()

    def augment(self, images: Tensor, step: int) -> Tensor:
        """Augment the images of a step: one operation, its parameters drawn for each image."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return self.augmentation.apply(
            images, self.augmentation.draw(self.key.fold("augment", step), size, samples=len(images))
        )

    def literally(self) -> Matched:
        """Do the update as the definition says."""
        given = (self.images, self.labels, self.step_size, self.batches)
        return LITERAL[self.work.unroll](Segment(self.network, self.start, self.target, *given, self.augment))

    def in_float64(self) -> Update:
        """Return the same update in double precision."""
        other = copy.deepcopy(self)
        other.network.double()
        for name in ("start", "target"):
            setattr(other, name, {key: w.double() for key, w in getattr(self, name).items()})
        other.images, other.step_size = self.images.double(), self.step_size.double()
        return other

    def started(self, mode: Mode, compile: Compile = "auto") -> RunningEngine:
        """Return an engine as a run with such students starts it."""
        return Engine(mode, compile).start(self.network, self.images[:1], student_images=[len(self.labels)])

    def on(self, running: RunningEngine, checkpointing: bool | None = None) -> Matched:
        """Do the update as a run does."""
        scale = squared_distance(self.start, self.target)
        value = partial(normalised_distance, target=self.target, scale=scale)
        student = Student(
            self.start, self.batches, self.augment, value, self.key, self.work.unroll, checkpointing=checkpointing
        )
        with running.precision():
            found = running.unroller(student, self.images, self.labels, self.step_size)
        return Matched(float(found.value), found.images, found.step_size)

    def _trained(self) -> dict[str, Tensor]:
        """Return the weights that training on random images leads to from the start."""
        weights = self.start
        for step in range(EXPERT_STEPS):
            generator = self.key.fold("expert", step).generator()
            images = torch.randn(EXPERT_BATCH, *self.images.shape[1:], generator=generator)
            labels = torch.randint(0, CLASSES, (EXPERT_BATCH,), generator=generator)
            leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
            loss = F.cross_entropy(torch.func.functional_call(self.network, leaves, (images,)), labels)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            pairs = zip(leaves.items(), gradients, strict=True)
            weights = {name: (w - EXPERT_LR * g).detach() for (name, w), g in pairs}
        return weights


def agreement(found: Matched, wanted: Matched) -> dict[str, float]:
    """Return how far an update is from another one."""
    one, other = found.images.double().flatten(), wanted.images.double().flatten()
    return {
        "relative_error": float((one - other).norm() / other.norm()),
        "cosine": float(torch.cosine_similarity(one, other, dim=0)),
        "step_size": abs(float(found.step_size) / float(wanted.step_size) - 1),
        "value": abs(found.value / wanted.value - 1),
    }


# -------------------------------------------------------------------- speed


def seconds_of_all(rounds: int, threads: int, most_gib: float) -> Iterator[dict[str, Any]]:
    """Yield what is known of the seconds after each piece of work."""
    rows: list[dict[str, Any]] = []
    head = {**machine(threads), "clock": clock_of(threads), "allocator": "glibc's default", "rounds": rounds}
    for work, again in SPEED.items():
        with tempfile.TemporaryDirectory() as cache:  # what compiling takes where nothing was compiled before
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            shared = {"measure": "speed", "rounds": rounds, "threads": threads, "most_gib": most_gib}
            usual = process_of(work, **shared)
            kept = process_of(work, **shared, kept_memory=True) if again else None
        rows.append({**usual, "where_both_keep_freed_memory": kept})
        print(work.name, {mode: one["faster"] for mode, one in usual["engine"].items()}, flush=True)
        yield {**head, "most_gib": most_gib, "cases": rows}


def process_of(work: Work, **options: Any) -> dict[str, Any]:
    """Return what the process of a piece of work measured."""
    found = child("benchmarks.trajectory", **asdict(work), **options)
    if found is None:
        raise RuntimeError(f"The process of {work.name} found no memory.")
    return found


def seconds_of(work: Work, rounds: int, rounding: bool = True) -> dict[str, Any]:
    """Time an update by the loop and by the engine in its modes, in turns, after one of each that is not counted.

    Args:
        work: The update.
        rounds: Counted updates of each.
        rounding: Say too how far the loop itself is from one in double precision, where that fits.
    """
    update = Update(work)
    engines = {mode: update.started(mode) for mode in MODES}
    if "compiled" not in engines["fast"].description.split("students")[-1]:
        del engines["exact"]  # it is the same
    found = {mode: update.on(running) for mode, running in engines.items()}
    compiling = {mode: round(running.clock.taken(), 1) for mode, running in engines.items()}
    wanted = _if_it_fits(update.literally)
    loop: list[float] = []
    seconds: dict[str, list[float]] = {mode: [] for mode in engines}
    for _ in range(rounds):
        if wanted is not None:
            loop.append(_timed(update.literally))
        for mode, running in engines.items():
            seconds[mode].append(_timed(partial(update.on, running)))
    exact = _if_it_fits(update.in_float64().literally) if wanted and rounding else None
    return {
        "what": work.name,
        **asdict(work),
        "literal_loop_against_float64": agreement(wanted, exact) if wanted and exact else None,
        "literal_loop": spread(loop) if loop else None,
        "engine": {
            mode: {
                "plan": running.description.split("; ")[-1],
                "seconds": spread(seconds[mode]),
                "faster": round(spread(loop)["median"] / spread(seconds[mode])["median"], 2) if loop else None,
                "compiling": compiling[mode],
                "against_literal_loop": agreement(found[mode], wanted) if wanted else None,
            }
            for mode, running in engines.items()
        },
    }


def clock_of(threads: int) -> Clock:
    """Return what is read: of one thread processor time, from which other work on the machine takes nothing."""
    return "processor" if threads == 1 else "wall"


def _timed(update: Callable[[], Any]) -> float:
    seconds = time.process_time if clock_of(torch.get_num_threads()) == "processor" else time.perf_counter
    started = seconds()
    update()
    return seconds() - started


def _if_it_fits(update: Callable[[], Matched]) -> Matched | None:
    try:
        return update()
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        return None


# -------------------------------------------------------------------- memory


def memory_of_all(rounds: int, threads: int, most_gib: float) -> Iterator[dict[str, Any]]:
    """Yield what is known of the peaks of processes after each way, width and number of steps."""
    rows: list[dict[str, Any]] = []
    measured = "largest resident size of a process that does one update of 100 images, float32, eager"
    for width, counts in MEMORY.items():
        for way in WAYS:
            for steps in counts:
                place = {"way": way, "steps": steps, "width": width}
                options = {"measure": "memory", "threads": threads, "most_gib": most_gib}
                found = child("benchmarks.trajectory", **place, **options)
                rows.append({**place, "fits": found is not None, **(found or {})})
                print(rows[-1], flush=True)
                yield {**machine(threads), "what": measured, "most_gib": most_gib, "cases": rows}


def peak_of(work: Work, way: Way) -> dict[str, float]:
    """Do an update and return the peak of this process, and what it was before."""
    update = Update(work)
    before = peak_mib()
    if way == "literal":
        update.literally()
    else:
        update.on(update.started("exact", "never"), checkpointing=WAYS[way][1])
    return {"before_mib": before, "peak_mib": peak_mib()}


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    auto_cli(benchmark)
