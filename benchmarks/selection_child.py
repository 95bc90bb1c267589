"""What the benchmark of the selections does in child processes, so that a peak of memory is the method's own.

Each child is forked from a small server that has imported this module and nothing else.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from benchmarks.common import RandomImages
from benchmarks.dense_selection import DENSE, Shown
from lit_condense.data import CondenseDataModule, ImageFolder
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from lit_condense.selection import Budget, Candidates, ProxyOutputs, ProxyTraining, Selection
from lit_condense.selection.task import ProxyTask, plain_arithmetic

P = ParamSpec("P")
T = TypeVar("T")
Groups = list[tuple[Candidates, int]]
KEY = RandomKey(0, ("benchmark",))
WARM_UP = 64
"""Candidates of the call before the measured ones: it loads the code that a method needs."""


def alone(threads: int, job: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Return what a job returns in a process of its own with so many threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.submit(job, *args, **options).result()


class Meter:
    """Seconds, processor seconds and growth of resident memory from now on."""

    def __init__(self) -> None:
        # else memory that was freed before hides in the high-water mark; other systems than Linux cannot lower it
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._resident = _peak_kib()
        self._lap = time.perf_counter(), time.process_time()

    def lap(self) -> dict[str, float]:
        """Return the seconds since the last lap, and the highest memory (MiB) since the start above that at it."""
        now = time.perf_counter(), time.process_time()
        seconds, cpu = (end - start for start, end in zip(self._lap, now, strict=True))
        self._lap = now
        extra = (_peak_kib() - self._resident) / 1024
        return {"seconds": round(seconds, 4), "cpu_seconds": round(cpu, 4), "peak_extra_mib": round(extra, 1)}


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux


def score(
    file: Path, data: Path, images: int, image_size: int, width: int, epochs: int, networks: int, budget: Budget
) -> dict[str, Any]:
    """Train the proxy models, keep what they say of each class in a file, and return what that cost."""
    on_files = data.is_dir()
    module: CondenseDataModule = RandomImages(images, (3, image_size, image_size))
    if on_files:
        module = ImageFolder(str(data))
    real = module.real
    task, proxy = ProxyTask(real, partial(ConvNet, width=width, depth=3), KEY.seed), ProxyTraining(epochs)
    groups = budget.groups(real)
    views: list[list[ProxyOutputs]] = [[] for _ in groups]
    training, looking = [], []
    with plain_arithmetic(real.device):
        for index in range(networks):
            meter = Meter()
            trained = proxy.train(task, index)
            training.append(meter.lap())
            network = proxy.restore(task, trained)
            for shown, (members, _) in zip(views, groups, strict=True):
                shown.append(proxy.view(network, real, members))
            looking.append(meter.lap())
            if index == 0:
                forgetting = trained.forgetting
    rows = zip(groups, views, strict=True)
    parts = [(Candidates(real, m, real.labels_at(m), shown, forgetting[m]), count) for (m, count), shown in rows]
    torch.save(parts, file)
    first = (training[0], looking[0])
    cost = {name: round(sum(lap[name] for lap in first), 4) for name in ("seconds", "cpu_seconds")}
    return {
        "data": data.name if on_files else "random",
        "images": len(real),
        "image": list(real.image_shape),
        "class_sizes": real.class_sizes,
        "counts": [count for _, count in groups],
        "features": views[0][0].features.shape[1],
        "proxy": {"epochs": epochs, "width": width, **cost, "training": training, "looking": looking},
    }


def shipped(file: Path, selection: Selection, classes: Iterable[int]) -> dict[str, Any]:
    """Return what a selection keeps of the first of the classes, and the cost of each class."""
    groups = _load(file)
    kept, laps = [], []
    with plain_arithmetic(torch.device("cpu")):
        few = _first(groups[0][0], WARM_UP)
        selection.choose(few, min(2, len(few)), KEY)
        meter = Meter()
        for c in classes:
            candidates, count = groups[c]
            kept.append(selection.choose(candidates, count, KEY.fold("group", c)).positions)
            laps.append(meter.lap())
    return {"kept": kept[0].tolist(), "counts": [_different(positions) for positions in kept], "laps": laps}


def dense(file: Path, name: str, first: int) -> dict[str, Any]:
    """Return what the direct implementation keeps of the first class, and what that cost."""
    method = DENSE[name]
    candidates, count = _load(file)[0]
    few = _first(candidates, WARM_UP)
    method.choose(Shown(few.view.features, few.view.logits, few.labels, min(2, len(few)), 0))
    meter = Meter()
    kept = method.choose(Shown(candidates.view.features, candidates.view.logits, candidates.labels, count, first))
    return {"kept": kept, **meter.lap()}


def _load(file: Path) -> Groups:
    groups: Groups = torch.load(file, weights_only=False)  # written by ``score`` above
    return groups


def _first(candidates: Candidates, n: int) -> Candidates:
    views = [replace(view, features=view.features[:n], logits=view.logits[:n]) for view in candidates.views]
    forgetting = None if candidates.forgetting is None else candidates.forgetting[:n]
    return Candidates(candidates.real, candidates.indices[:n], candidates.labels[:n], views, forgetting)


def _different(positions: Tensor) -> int:
    """Return how many different positions there are, 0 where one occurs twice."""
    return len(positions) if len(set(positions.tolist())) == len(positions) else 0
