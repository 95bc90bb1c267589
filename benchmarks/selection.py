"""What every selection costs on CIFAR-10, beside a direct implementation that holds all gradients and all pairs.

``python -m benchmarks.selection`` writes ``benchmarks/results/selection_1.json``: for every selection that the library
ships, seconds and memory of choosing 1% of the training images class by class, after proxy models were trained
that all of them share; for those that :mod:`benchmarks.dense_selection` writes out, its seconds, memory and choice on
the first class. ``cpu_seconds`` are the ones to compare where other programs run. Memory is what is resident above the
images, features and logits that a method is given.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.common import RESULTS, machine, write
from benchmarks.dense_selection import DENSE
from benchmarks.selection_child import alone, dense, score, shipped
from lit_condense import selection
from lit_condense.errors import SettingsError
from lit_condense.selection import Budget, Selection

NETWORKS = 3
"""Proxy models of GraNd and EL2N here; they average over 10 by default."""
SELECTIONS: list[Selection] = [
    selection.RandomSubset(),
    selection.KMeansNearest(),
    selection.Herding(),
    selection.KCenterGreedy(),
    selection.ContextualDiversity(),
    selection.LeastConfidence(),
    selection.Entropy(),
    selection.Margin(),
    selection.CAL(),
    selection.Forgetting(),
    selection.EL2N(NETWORKS),
    selection.GraNd(NETWORKS),
    selection.DeepFool(),
    selection.CRAIG(),
    selection.AdaCore(),
    selection.LCMatS(),
    selection.FacilityLocation(),
    selection.GraphCut(),
    selection.LogDeterminant(),
    selection.GradMatch(),
    selection.Glister(validation="class"),
]
METHODS = {one.tag: one for one in SELECTIONS}
ONE_CLASS = ("deepfool",)
"""Methods that are timed on the first class alone: K backward passes through all images in each step."""


def benchmark(
    fraction: float = 0.01,
    data: Path = Path("data/cifar10"),
    width: int = 32,
    epochs: int = 1,
    methods: list[str] | None = None,
    images: int = 5000,
    image_size: int = 32,
    threads: int = 1,
    memory: float = 6.0,
    folder: Path = RESULTS,
) -> None:
    """Time the selections and write the JSON.

    Args:
        fraction: Share of each class to keep.
        data: Image folder, CIFAR-10 by default; where there is none, random images are made.
        width: Of the ConvNet-3 that scores.
        epochs: Of its training.
        methods: Tags of selections, by default all.
        images: Random images of a class.
        image_size: Their height and width.
        threads: CPU threads of a method.
        memory: GiB; a direct implementation whose large matrices take more is not run.
        folder: Where the JSON goes.
    """
    names = methods or list(METHODS)
    if unknown := set(names) - set(METHODS):
        raise SettingsError(f"Expected methods among {', '.join(METHODS)}, got {', '.join(sorted(unknown))}.")
    networks = max(1, *(METHODS[name].networks for name in names))
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "candidates.pt"
        budget = Budget(fraction=fraction)
        shown = alone(threads, score, file, data, images, image_size, width, epochs, networks, budget)
        results = {}
        for name in names:
            results[name] = timed(file, name, threads, shown, memory)
            print(line(name, results[name]), flush=True)
    head = {"fraction": fraction, "memory_limit_gib": memory, **machine(threads), **shown}
    print(write(folder, f"selection_{100 * fraction:g}", {**head, "methods": results}))


def timed(file: Path, name: str, threads: int, shown: dict[str, Any], memory: float) -> dict[str, Any]:
    """Return what was measured of a method and of its direct implementation, None where there is none."""
    method, wanted = METHODS[name], shown["counts"]
    classes = range(1 if name in ONE_CLASS else len(wanted))
    found = alone(threads, shipped, file, method, classes)
    if found["counts"] != wanted[: len(classes)]:
        raise RuntimeError(f"{name} was to keep {wanted[: len(classes)]} different images, but kept {found['counts']}.")
    laps = found["laps"]
    return {
        "class": type(method).__name__,
        "networks": method.networks,
        "classes": len(classes),
        "counts": found["counts"],
        "seconds": round(sum(lap["seconds"] for lap in laps), 4),
        "cpu_seconds": round(sum(lap["cpu_seconds"] for lap in laps), 4),
        "peak_extra_mib": laps[-1]["peak_extra_mib"],
        "laps": laps,
        "dense": compared(file, name, threads, shown, memory, found) if name in DENSE else None,
    }


def compared(
    file: Path, name: str, threads: int, shown: dict[str, Any], memory: float, found: dict[str, Any]
) -> dict[str, Any]:
    """Return what was measured of the direct implementation on the first class, and how it compares."""
    entries = len(shown["class_sizes"]) * (shown["features"] + 1)
    needed = DENSE[name].gib(shown["class_sizes"][0], entries)
    if needed > memory:
        return {"fits": False, "large_matrices_gib": round(needed, 3)}
    kept = found["kept"]
    own = alone(threads, dense, file, name, kept[0])
    same = set(kept) & set(picked := own.pop("kept"))
    return {
        "fits": True,
        "large_matrices_gib": round(needed, 3),
        **own,
        "count": len(set(picked)),
        "equal_share": round(len(same) / len(kept), 4),
        "speedup": round(own["cpu_seconds"] / max(found["laps"][0]["cpu_seconds"], 1e-4), 2),
    }


def line(name: str, result: dict[str, Any]) -> str:
    """Return what is printed of a method."""
    text = f"{name:20} {result['classes']:2} classes {result['cpu_seconds']:8.2f} s {result['peak_extra_mib']:7.0f} MiB"
    if (direct := result["dense"]) is None:
        return text
    text += f"  one class {result['laps'][0]['cpu_seconds']:7.2f} s, direct"
    if not direct["fits"]:
        return f"{text} does not fit: {direct['large_matrices_gib']} GiB"
    cost = f"{direct['cpu_seconds']:7.2f} s {direct['peak_extra_mib']:7.0f} MiB"
    return f"{text} {cost}, {direct['equal_share']:.0%} equal"


if __name__ == "__main__":
    auto_cli(benchmark)
