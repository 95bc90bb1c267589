"""The tables of README.md and docs/performance.md, from cards and from the JSON files of the benchmarks."""

from __future__ import annotations

from typing import Any

from tables import ROOT, cards, markdown, measurements, percent

from lit_condense.evaluation.published import figure


def results_table() -> str:
    """Return the table of all cards, one row each."""
    header = (
        "data",
        "images per class",
        "updates",
        "start",
        "condensed",
        "random real",
        "all real, short",
        "published",
        "evaluated by",
    )
    return markdown(header, [_row(card) for card in sorted(cards("dc_*").values(), key=_order)])


def methods_table() -> str:
    """Return the table of the methods' matching updates beside DC's, and that of DREAM's blocks."""
    rows = [
        _method(file, method) for file in measurements(ROOT, "methods_ipc*.json") for method in file["methods"].values()
    ]
    blocks = [
        _block(file, *block) for file in measurements(ROOT, "dream_ipc*.json") for block in file["blocks"].items()
    ]
    header = (
        "method",
        "images per class",
        "real",
        "update",
        "yardstick",
        "ratio",
        "augmentation",
        "drawing",
        "training",
    )
    dream_header = ("DREAM chooses among", "images per class", "data", "k-means and features", "block", "share")
    tables = [markdown(header, rows)] if rows else []
    tables += [markdown(dream_header, blocks)] if blocks else []
    return "\n\n".join(tables) or "Not measured yet: `python -m benchmarks.methods`."


def selection_costs() -> str:
    """Return what choosing costs each selection, beside a direct dense implementation on one class."""
    rows = [
        _selection(tag, method)
        for file in measurements(ROOT, "selection_*.json")
        for tag, method in file["methods"].items()
    ]
    header = (
        "method",
        "all classes",
        "one class",
        "its peak memory",
        "direct, one class",
        "its peak memory",
        "same picks",
    )
    return markdown(header, rows) if rows else "Not measured yet: `python -m benchmarks.selection`."


def _selection(tag: str, method: dict[str, Any]) -> list[str]:
    lap, dense = method["laps"][0], method["dense"]
    direct = ["-", "-", "-"]
    if dense is not None and dense["fits"]:
        memory = f"{dense['peak_extra_mib']:.0f} MiB"
        direct = [f"{dense['cpu_seconds']:.2f} s", memory, f"{100 * dense['equal_share']:.0f} %"]
    everything = f"{method['cpu_seconds']:.2f} s" if len(method["laps"]) > 1 else "-"
    return [f"`{tag}`", everything, f"{lap['cpu_seconds']:.2f} s", f"{lap['peak_extra_mib']:.0f} MiB", *direct]


def _order(card: dict[str, Any]) -> tuple[str, int, int]:
    return card["data"]["dataset"], card["ipc"][0], card["update"]


def _row(card: dict[str, Any]) -> list[str]:
    evaluation, ipc = card["evaluation"], card["ipc"][0]
    condensed, full = evaluation["condensed"][0], evaluation["all_real_short"]
    random = evaluation["baselines"]["random"]
    published = figure("dc", card["data"]["dataset"], ipc) or "-"
    return [
        card["data"]["dataset"],
        str(ipc),
        str(card["update"]),
        percent(evaluation["start"]),
        percent(condensed) if evaluation["not_better_than"] else f"**{percent(condensed)}**",
        percent(random),
        f"{100 * full['accuracy_mean']:.1f} ({full['recipe']['steps']} steps)",
        published,
        f"{condensed['networks']} x {condensed['network']}, `{condensed['recipe']['protocol']}`",
    ]


def _method(file: dict[str, Any], method: dict[str, Any]) -> list[str]:
    seconds = {part: f"{value['median']:.2f} s" for part, value in method["seconds"].items()}
    return [
        f"`{method['method']}`",
        str(file["ipc"]),
        str(method["real_images"]),
        seconds["update"],
        f"{method['bound']:.2f} s",
        f"**{method['ratio']:.2f}**",
        *(seconds[part] for part in ("augmentation", "sampling", "inner")),
    ]


def _block(file: dict[str, Any], label: str, block: dict[str, Any]) -> list[str]:
    total = sum(block["seconds"].values())
    share = f"**{100 * block['share']:.0f} %**"
    return [label, str(file["ipc"]), file["data"], f"{block['seconds']['sampling']:.1f} s", f"{total:.1f} s", share]
