"""Tables of docs/results.md, from what run_published.py, run_dream_curve.py and run_selection.py wrote."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from measure_selection_defaults import ARMS
from run_published import ROWS
from run_selection import WEIGHTED
from tables import RESULTS, cards, markdown, percent

import lit_condense.selection
from lit_condense.evaluation.published import figure
from lit_condense.settings import differences, settings_of


def published() -> str:
    """Return one row a method: updates that fitted, accuracy, the paper's, and the curve on the way."""
    rows, finished = [], cards("published/*")
    for row, (name, _) in ROWS.items():
        folder = RESULTS / "published" / row
        if (folder / "curve.json").exists():
            card = finished.get(folder.relative_to(RESULTS))  # a run that was cut off has a curve only
            curve = json.loads((folder / "curve.json").read_text())
            rows.append([f"`{name}`", *_published(name, card), _points(curve)])
    header = (
        "config",
        "updates",
        "of the published",
        "accuracy",
        "published, after all updates",
        "evaluated by",
        "curve",
    )
    return markdown(header, rows) if rows else "Not measured yet."


def _published(config: str, card: dict[str, Any] | None) -> list[str]:
    method, _, rest = config.partition("/")
    dataset, ipc = rest.split("_")[:2]
    known = figure(method, dataset, int(ipc.removeprefix("ipc"))) or "not verified"
    if card is None:
        return ["-", "-", "-", known, "-"]
    score, recipe = card["evaluation"]["condensed"][0], card["evaluation"]["condensed"][0]["recipe"]
    share = f"{100 * card['update'] / card['max_updates']:.2g} %"
    judged = f"{score['networks']} networks, `{recipe['protocol']}`, {recipe['passes']} passes"
    return [f"{card['update']:,}", share, f"**{percent(score)}**", known, judged]


def _points(curve: list[dict[str, float]]) -> str:
    return ", ".join(f"{100 * point['accuracy']:.1f} ({point['updates']:.0f})" for point in curve)


def selection() -> str:
    """Return one row a method: mean accuracy over seeds, sample spread, and a mark where random is beaten."""
    columns: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path, title in _by_fraction("selection"):
        by_method = columns.setdefault(title, {})
        for record in json.loads(path.read_text()):
            by_method.setdefault(record["method"], []).append(record)
    methods = list(dict.fromkeys(method for column in columns.values() for method in column))
    rows = [
        [_method(columns, method), *(_selected(column, method) for column in columns.values())] for method in methods
    ]
    return markdown(["method", *columns], rows) if rows else "Not measured yet."


def selection_explained() -> str:
    """Return, for MNIST, what the proxy models say of the kept images, in means over seeds."""
    path = RESULTS / "selection_explained.json"
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())["mnist"]
    whole = [*_shares(found["whole"]), *["-"] * 2] * 2
    kept = found["kept"]
    rows = [["*all training images*", *whole]] + [
        [f"`{method}`", *(cell for by_method in kept.values() for cell in _explained(by_method[method]))]
        for method in next(iter(kept.values()))
    ]
    about = ("right", "nearly no gradient", "worth", "apart")
    return markdown(["method", *(f"{100 * float(part):g} %: {what}" for part in kept for what in about)], rows)


def _explained(seeds: list[dict[str, float]]) -> list[str]:
    worth, apart = (statistics.fmean(seed[name] for seed in seeds) for name in ("worth", "apart"))
    return [*_shares(seeds), f"{worth:.0f}", f"{apart:.1f}"]


def _shares(seeds: list[dict[str, float]]) -> list[str]:
    return [f"{100 * statistics.fmean(seed[name] for seed in seeds):.0f} %" for name in ("right", "settled")]


def selection_defaults() -> str:
    """Return one row a setting: accuracy on held-out images, what is kept, and a mark at each method's default."""
    columns: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for path, title in _by_fraction("selection_defaults"):
        records = json.loads(path.read_text())
        columns[title] = {(record["method"], record["arm"]): record for record in records}
    rows = []
    for arm in ARMS:
        method = type(arm.selection).__name__
        found = [column.get((method, arm.name)) for column in columns.values()]
        name = f"`{method}`, {arm.name}" + (" (default)" if any(map(_is_default, found)) else "")
        if any(found):
            rows.append([name, *(cell for record in found for cell in _held_out(record))])
    header = ["settings", *(cell for title in columns for cell in (title, "right"))]
    return markdown(header, rows) if rows else "Not measured yet."


def _by_fraction(folder: str) -> list[tuple[Path, str]]:
    """Return the files of a folder with the titles of their columns."""
    files = [(path, *path.stem.split("_")) for path in sorted((RESULTS / folder).glob("*.json"))]
    return [(path, f"{dataset}, {100 * float(fraction):g} %") for path, dataset, fraction in files]


def _held_out(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return ["-", "-"]
    return [f"{100 * statistics.fmean(record['accuracies']):.1f}", f"{100 * record['right']:.0f} %"]


def _is_default(record: dict[str, Any] | None) -> bool:
    if record is None:
        return False
    selection, weighted = record["settings"]["selection"], record["settings"]["weighted"]
    default = getattr(lit_condense.selection, record["method"])
    return not differences(selection, settings_of(default())) and weighted == (default in WEIGHTED)


def _method(columns: dict[str, dict[str, list[dict[str, Any]]]], method: str) -> str:
    records = [record for column in columns.values() for record in column.get(method, [])]
    weighted = any(record["settings"].get("weighted") for record in records)
    return f"`{method}`" + (", weighted" if weighted else "")


def _selected(column: dict[str, list[dict[str, Any]]], method: str) -> str:
    if method not in column:
        return "-"
    mean, error, cell = _over_seeds(column[method])
    if method == "RandomSubset" or "RandomSubset" not in column:
        return cell
    least, error_of_random, _ = _over_seeds(column["RandomSubset"])
    return f"**{cell}**" if mean - least > math.hypot(error, error_of_random) else cell


def _over_seeds(records: list[dict[str, Any]]) -> tuple[float, float, str]:
    """Return the mean, its standard error and a cell of mean and spread, in per cent."""
    accuracies = [100 * statistics.fmean(record["accuracies"]) for record in records]
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    mean = statistics.fmean(accuracies)
    return mean, spread / math.sqrt(len(accuracies)), f"{mean:.1f} +- {spread:.1f}"


def dream_curve() -> str:
    """Return accuracy against updates and seconds of each arm: mean over seeds, lowest and highest."""
    path = RESULTS / "dream_curve.json"
    if not path.exists():
        return "Not measured yet."
    arms: dict[str, dict[str, list[dict[str, float]]]] = json.loads(path.read_text())["arms"]
    rows = []
    for arm, seeds in arms.items():
        for column in zip(*seeds.values(), strict=True):
            accuracies = [100 * point["accuracy"] for point in column]
            seconds = statistics.fmean(point["seconds"] for point in column)
            spread = f"{min(accuracies):.1f} to {max(accuracies):.1f}"
            mean = f"{statistics.fmean(accuracies):.1f}"
            rows.append([arm, f"{column[0]['updates']:.0f}", f"{seconds:.0f}", mean, spread])
    return markdown(["arm", "updates", "seconds", "accuracy, mean of 3 seeds", "lowest to highest"], rows)
