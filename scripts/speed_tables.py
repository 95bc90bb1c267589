"""The speed tables of README.md, docs/performance.md and docs/scaling.md, from the JSON files of the benchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tables import ROOT, cards, markdown, measurements

DEFAULT = "glibc's default"
"""The allocator of a benchmark that does not ask for another."""
MISSING = "Not measured yet: `python -m benchmarks.{}`."


def updates() -> str:
    """Return the table of all timed updates and evaluations, for the README."""
    files = measurements(ROOT, "update_*.json")
    kept = {_work(file): file for file in files if file["allocator"] != DEFAULT}
    rows = [_update(file, kept.get(_work(file))) for file in files if file["allocator"] == DEFAULT]
    files = measurements(ROOT, "evaluation_*.json")
    kept = {file["what"]: file for file in files if file["allocator"] != DEFAULT}
    rows += [_evaluation(file, kept.get(file["what"])) for file in files if file["allocator"] == DEFAULT]
    header = (
        "work",
        "on",
        "engine's mode",
        "reference loop",
        "engine",
        "faster",
        "faster where both keep freed memory",
        "agreement: relative error, cosine",
    )
    return _table("update", header, rows)


def allocator() -> str:
    """Return the updates that were timed under both ways in which freed memory is treated."""
    files = measurements(ROOT, "update_*.json")
    twice = {_work(file) for file in files if file["allocator"] != DEFAULT}
    rows = [
        [*_work(file), file["allocator"], *_seconds(file["reference"]["total"], file["engine"]["total"])]
        for file in sorted(files, key=lambda file: (*_work(file), file["allocator"]))
        if _work(file) in twice
    ]
    return _table("update", ("work", "on", "engine's mode", "allocator", "reference loop", "engine", "faster"), rows)


def arithmetic() -> str:
    """Return achieved and ideal GFLOP/s of the matching updates."""
    rows = []
    for file in measurements(ROOT, "update_*.json"):
        if file["allocator"] == DEFAULT:
            matching = file["matching"]
            ideal, achieved = matching["convolution_gflop_per_second"], matching["gflop_per_second"]
            best = ideal["bfloat16" if _mode(file) == "fast" else "float32"]
            rows.append(
                [
                    _matching(file["what"]),
                    _place(file),
                    _mode(file),
                    f"{matching['gflop']:.0f} GFLOP",
                    f"{achieved['reference']:.0f} ({100 * achieved['reference'] / ideal['float32']:.0f} %)",
                    f"{achieved['engine']:.0f} ({100 * achieved['engine'] / best:.0f} %)",
                    f"{best:.0f}",
                ]
            )
    header = (
        "matching update",
        "on",
        "mode",
        "arithmetic",
        "reference loop, GFLOP/s",
        "engine, GFLOP/s",
        "a convolution alone",
    )
    return _table("update", header, rows)


def memory() -> str:
    """Return the peak memory of whole processes."""
    rows = [
        [
            case["what"],
            case["mode"],
            f"{case['reference_mib']:.0f} MiB",
            f"{case['engine_mib']:.0f} MiB",
            f"**{case['ratio']:.2f}**",
        ]
        for file in measurements(ROOT, "memory_*.json")
        for case in file["cases"]
    ]
    return _table("memory", ("two updates", "mode", "reference loop", "engine", "ratio"), rows)


def startup() -> str:
    """Return the seconds from the start of a process to its first update."""
    rows = [
        [case["what"], case["compiler_cache"], f"**{case['seconds']:.0f} s**", f"{case['compiling']:.0f} s"]
        for file in measurements(ROOT, "startup_*.json")
        for case in file["cases"]
    ]
    header = ("first update", "compiler cache", "from the start of the process", "of these in calls that compile")
    return _table("startup", header, rows)


def growth() -> str:
    """Return seconds and memory as the work grows; one row for classes, image size and images per class."""
    cells = [cell for file in measurements(ROOT, "growth_*.json") for cell in file["cells"]]
    places = list(dict.fromkeys((c["size"], c["classes"], c["ipc"], c["width"], c["real"]) for c in cells))
    rows = []
    for place in places:
        size, classes, ipc, width, real = place
        blocks = [c for c in cells if (c["size"], c["classes"], c["ipc"]) == (size, classes, ipc)]
        shown = {c["block"]: _cell(c) for c in blocks}
        smallest, largest = min(shown), max(shown)
        rows.append([f"{size} px", str(classes), str(ipc), f"{width}, {real}", shown[smallest], shown[largest]])
    header = ("images", "classes", "a class", "width, real images", "one class a block", "all classes a block")
    return _table("growth", header, rows)


def processes() -> str:
    """Return the seconds of one process and of two."""
    rows = [
        [
            file["what"],
            *(f"{file['seconds'][name]['median']:.2f} s" for name in ("one", "two", "side by side")),
            f"**{file['speedup_of_two']:.2f}x**",
            f"{file['ceiling']:.2f}x",
        ]
        for file in measurements(ROOT, "processes_*.json")
    ]
    header = ("work", "one process", "two", "two that do one each", "two are faster by", "ceiling")
    return _table("processes", header, rows)


def trajectory() -> str:
    """Return the seconds of updates of trajectory matching, literal loop and engine, and how far they agree."""
    rows = [
        [
            case["what"],
            _place(file),
            engine["plan"].split(": ")[-1],
            _duration_of(case["literal_loop"]),
            _duration_of(engine["seconds"]),
            f"**{_times(engine['faster'])}**",
            _times(kept["engine"][mode]["faster"]) if (kept := case["where_both_keep_freed_memory"]) else "-",
            f"{engine['compiling']:.0f} s" if engine["compiling"] else "-",
            _digits(engine["against_literal_loop"]),
        ]
        for file in measurements(ROOT, "trajectory.json")
        for case in file["cases"]
        for mode, engine in case["engine"].items()
    ]
    header = (
        "update",
        "on",
        "students",
        "literal loop",
        "engine",
        "faster",
        "faster where both keep freed memory",
        "compiling, once",
        "agreement: relative error, cosine",
    )
    return _table("trajectory", header, rows)


def trajectory_memory() -> str:
    """Return the peak memory of an update of trajectory matching, by the student's steps."""
    cases = [case for file in measurements(ROOT, "trajectory_memory.json") for case in file["cases"]]
    steps = sorted({case["steps"] for case in cases})
    rows = []
    for width, way in dict.fromkeys((case["width"], case["way"]) for case in cases):
        shown = {c["steps"]: _peak(c) for c in cases if (c["width"], c["way"]) == (width, way)}
        rows.append([str(width), WAYS[way], *(shown.get(n, "-") for n in steps)])
    return _table("trajectory --memory true", ("width", "how", *(f"{n} steps" for n in steps)), rows)


WAYS = {
    "literal": "literal loop of MTT",
    "graph": "`full`, a graph of all steps",
    "checkpointing": "`full`, `checkpointing: true`",
    "constant_memory": "`constant_memory`",
}
"""How the gradient of an update is formed, as the benchmark calls it -> as settings do."""


def parity() -> str:
    """Return the accuracy of both modes of the engine: mean over seeds of each seed's mean over networks."""
    found: dict[str, dict[str, list[float]]] = {}
    for path, card in cards("parity/*/*").items():
        dataset, mode = path.parent.name.split("_")
        accuracy = 100 * card["evaluation"]["condensed"][0]["accuracy_mean"]
        found.setdefault(dataset, {}).setdefault(mode, []).append(accuracy)
    rows = [
        [dataset, *(_over_seeds(modes.get(mode, [])) for mode in ("fast", "exact"))] for dataset, modes in found.items()
    ]
    return markdown(("data, 1 image a class, 50 updates", "fast", "exact"), rows)


def _over_seeds(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-"
    each = ", ".join(f"{value:.1f}" for value in values)
    return f"{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f} ({each})"


def _update(file: dict[str, Any], kept: dict[str, Any] | None) -> list[str]:
    digits = _digits(file["image_gradient_against_float64"])
    seconds = _seconds(file["reference"]["total"], file["engine"]["total"])
    return [*_work(file), *seconds, _faster(kept), digits]


def _evaluation(file: dict[str, Any], kept: dict[str, Any] | None) -> list[str]:
    seconds = _seconds(file["reference"], file["evaluator"])
    return [file["what"], _place(file), "-", *seconds, _faster(kept), "-"]


def _faster(kept: dict[str, Any] | None) -> str:
    return f"{kept['speedup_of_medians']:.2f}x" if kept else "-"


def _seconds(slow: dict[str, float], fast: dict[str, float]) -> list[str]:
    faster = slow["median"] / fast["median"]
    return [_duration(slow["median"]), _duration(fast["median"]), f"**{faster:.2f}x**"]


def _duration_of(seconds: dict[str, float] | None) -> str:
    return _duration(seconds["median"]) if seconds else "does not fit"


def _times(faster: float | None) -> str:
    return f"{faster:.2f}x" if faster else "-"


def _digits(agreement: dict[str, float] | None) -> str:
    return f"{agreement['relative_error']:.1e}, {agreement['cosine']:.6f}" if agreement else "-"


def _peak(case: dict[str, Any]) -> str:
    return f"{case['peak_mib'] / 1024:.1f} GiB" if case["fits"] else "does not fit"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _work(file: dict[str, Any]) -> tuple[str, str, str]:
    return file["what"], _place(file), _mode(file)


def _place(file: dict[str, Any]) -> str:
    """Return where it was measured: so many CPU threads, or the name of the GPU."""
    device: str = file["device"]
    threads = device.split(", ")[1] if device.startswith("cpu") else ""
    return f"CPU, {'1 thread' if threads == '1 threads' else threads}" if threads else device


def _mode(file: dict[str, Any]) -> str:
    return "fast" if "bfloat16" in file["plan"] else "exact"


def _matching(what: str) -> str:
    return what.split(" plus ")[0]


def _cell(cell: dict[str, Any]) -> str:
    if not cell["fits"]:
        return "does not fit"
    return f"{cell['seconds']['median']:.2f} s, {cell['peak_mib'] / 1024:.1f} GiB"


def _table(command: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    listed = list(rows)
    return markdown(header, listed) if listed else MISSING.format(command)
