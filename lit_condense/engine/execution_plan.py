"""Which arithmetic a run takes: a fixed table keyed by device and shape, so that two runs always take the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lit_condense.engine.compilation import DOUBLE_BACKWARD_COMPILES
from lit_condense.engine.forward import Mode

Compile = Literal["auto", "always", "never"]

COMPILE_FROM_GFLOP = {"cpu": 0.3, "cuda": 0.3}
"""Forward cost of a class's real batch from which compiling pays within some hundred updates: half a minute or two once
against a tenth of a second and more an update. Below are handwritten digits of 8x8 pixels and first tries."""

COMPILE_STEPS_FROM_GFLOP = {"cpu": 0.3, "cuda": 0.3}
"""Forward cost of a student's batch from which compiling its steps pays, which takes a minute once. At 100 images and
width 32 (0.8) it is 1.6 times as fast as a graph of all steps, at width 128 (10) 2.6 times, at 10 images and width 32
(0.08) hardly."""

MOST_CLASSES = 16
"""Classes whose images are gathered at once; more gain nothing."""

RECORDED = frozenset({"cuda"})
"""Devices whose work can be recorded and replayed: there, launching the kernels of a small network takes longer than
they do."""

GATHER_BYTES = {"cuda": 256 * 2**20}
"""Images that are gathered for a block of classes where each step of gathering is a launch."""

CHUNK_BYTES = {"cpu": 16 * 2**20}
"""Size of the largest feature map of a chunk of real images: it and its gradient stay in the last cache. A batch of 256
takes 1.2 times (width 128) to twice (width 32) as long as in such chunks, and more memory."""

CHUNK_IMAGES = range(16, 65)
"""Sizes of such a chunk: fewer keep two cores waiting, more gain nothing."""


@dataclass(frozen=True)
class ExecutionPlan:
    """What is computed how."""

    mode: Mode
    compiled: bool
    """Real gradients, training steps and features: whatever is differentiated once."""
    compiled_twice: bool
    """The synthetic side, which is differentiated twice."""
    recorded: bool
    """Whether the GPU replays its work instead of being told again."""
    classes_per_block: int
    real_chunk: int | None
    """Real images that go through the network at once; None: all that are compared."""
    training_chunk: int | None = None
    """Images of a training batch that go through the network at once; None: the batch."""
    own_quantities: bool = False
    """Whether quantities of one's own are formed: both sides are then eager, class by class, whatever else is said."""


@dataclass(frozen=True)
class StudentPlan:
    """How students are trained on the set."""

    mode: Mode = "exact"
    """Of batches that are compiled; all others are float32."""
    batches: frozenset[int] = frozenset()
    """Sizes of batches whose steps are compiled, both derivatives included."""


def student_plan(device: str, gflop: float, batches: Sequence[int], mode: Mode, compile: Compile) -> StudentPlan:
    """Return how the students of a run are trained.

    Args:
        device: Its type.
        gflop: Forward cost of an image.
        batches: Images of the usual step, for each loss that has students.
        mode: The engine's on the device.
        compile: The engine's.
    """
    threshold = COMPILE_STEPS_FROM_GFLOP.get(device, float("inf"))
    chosen = [n for n in batches if compile == "always" or (compile == "auto" and n * gflop >= threshold)]
    return StudentPlan(mode, frozenset(chosen)) if chosen else StudentPlan()


@dataclass(frozen=True)
class Workload:
    """What an update asks of the network, for the most common class."""

    device: str
    real_images: int
    synthetic_images: int
    gflop: float
    """Forward cost of an image."""
    largest_map: int
    """Entries of the largest feature map of an image."""
    pixels: int
    """Entries of an image."""
    independent: bool
    """Whether an image's output is its own: no statistics of the batch, no random layers."""


def plan_for(
    work: Workload,
    mode: Mode,
    compile: Compile,
    classes_per_block: int | None = None,
    real_chunk: int | None = None,
    record: bool = True,
) -> ExecutionPlan:
    """Return the execution plan of a run.

    Args:
        work: What an update is.
        mode: The engine's on the device.
        compile: The engine's.
        classes_per_block: The engine's; None for the table's.
        real_chunk: The engine's; None for the table's.
        record: The engine's.
    """
    heavy = work.real_images * work.gflop >= COMPILE_FROM_GFLOP.get(work.device, float("inf"))
    compiled = compile == "always" or (compile == "auto" and heavy)
    recorded = record and work.device in RECORDED and work.independent
    chunk = real_chunk or (chunk_for(work, 2 if mode == "fast" else 4) if compiled else None)
    return ExecutionPlan(
        # bfloat16 pays where arithmetic dominates; small eager batches only lose digits and time to casts
        mode=mode if compiled else "exact",
        compiled=compiled,
        compiled_twice=compiled and DOUBLE_BACKWARD_COMPILES,
        recorded=recorded,
        classes_per_block=classes_per_block or classes_gathered(work),
        real_chunk=chunk,
        training_chunk=chunk if work.independent else None,
    )


def for_own_quantities(plan: ExecutionPlan) -> ExecutionPlan:
    """Return the plan of a run whose losses read quantities that are not built in.

    What their code does is not known here: it may keep what it saw, use hooks, or loop over images. Both sides are
    therefore formed without compilation or recording, class by class; the training of networks stays as it was.
    """
    return replace(plan, compiled_twice=False, own_quantities=True)


def classes_gathered(work: Workload) -> int:
    """Return how many classes' images are gathered at once where they go through the network one by one."""
    bytes_per_class = 4 * work.pixels * (work.real_images + work.synthetic_images)
    return max(1, min(MOST_CLASSES, GATHER_BYTES.get(work.device, 0) // bytes_per_class))


def chunk_for(work: Workload, bytes_per_entry: int) -> int | None:
    """Return the largest size of chunks whose feature maps stay in the cache, equal if possible; None: the whole batch.

    What does not fill a chunk runs eager.
    """
    if not work.independent or work.device not in CHUNK_BYTES:
        return None
    fitting = CHUNK_BYTES[work.device] // (bytes_per_entry * work.largest_map)
    sizes = [n for n in CHUNK_IMAGES if n <= min(max(fitting, CHUNK_IMAGES[0]), work.real_images)]
    equal = [n for n in sizes if work.real_images % n == 0]
    return max(equal or sizes, default=None)
