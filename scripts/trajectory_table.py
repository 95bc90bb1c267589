"""The tables of trajectory matching in docs/results.md, from the cards and records that run_trajectories.py wrote."""

from __future__ import annotations

import json

from comparison_tables import HEADER, baseline_rows, method_row
from run_trajectories import FACTORS, KEPT, METHODS, SEEDS, taken
from tables import cards, markdown

NAMES = {
    "mtt": "MTT",
    "tesla": "TESLA",
    "dc": "DC",
    "dm": "DM",
    "idm": "IDM (factor 2)",
    "dream": "DREAM (on IDC, factor 2)",
}


def table(group: str) -> str:
    """Return one row a baseline and one a method of a group, by the first seed, with the accuracies of the others."""
    found = {path.name: card for path, card in cards(f"trajectories/{group}/*").items()}
    first = {method: found[f"{method}_seed0"] for method in METHODS if f"{method}_seed0" in found}
    if not first:
        return "Not measured yet: `python scripts/run_trajectories.py rows`."
    rows = [[*row, "-"] for row in baseline_rows(first)]
    for method, card in first.items():
        others = [found[f"{method}_seed{seed}"] for seed in SEEDS[1:] if f"{method}_seed{seed}" in found]
        means = [one["evaluation"]["condensed"][0]["accuracy_mean"] for one in others]
        rows.append([*method_row(NAMES[method], card, first), ", ".join(f"{100 * m:.1f}" for m in means) or "-"])
    return markdown((*HEADER, "other seeds"), rows)


def rates() -> str:
    """Return one row a group and method: the matching loss at each learning rate of the images."""
    rows = []
    for path in sorted((KEPT / "rates").glob("*/*.json")):
        tried = {one["factor"]: one for one in json.loads(path.read_text())}
        best = taken(list(tried.values()))
        cells = [_tried(tried[f]) if f in tried else "-" for f in FACTORS]
        cells = [f"**{cell}**" if f == best else cell for f, cell in zip(FACTORS, cells, strict=True)]
        rows.append([path.parent.name, NAMES[path.stem], *cells])
    header = ("set", "method", *(f"rate {100 * factor:,}" for factor in FACTORS))
    return markdown(header, rows) if rows else "Not measured yet: `python scripts/run_trajectories.py rates`."


def _tried(one: dict[str, float]) -> str:
    return f"{one['loss']:.3f} ± {one['error']:.3f} ({one['updates']:,})"


def storage() -> str:
    """Return one row a type in which experts are kept: bytes, and accuracy of the sets that were made on them."""
    path = KEPT / "storage.json"
    if not path.exists():
        return "Not measured yet: `python scripts/measure_expert_storage.py`."
    rows = [
        [
            f"`{name}`",
            f"{found['bytes'] / 1e6:.1f} MB",
            ", ".join(f"{100 * one['mean']:.1f} +- {100 * one['std']:.1f}" for one in found["accuracies"]),
        ]
        for name, found in json.loads(path.read_text()).items()
    ]
    return markdown(("kept as", "ten experts", "accuracy of each seed"), rows)


def experts() -> str:
    """Return one row a data set: what was recorded, how well it learned, and how long that took."""
    path = KEPT / "experts.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    rows = []
    for dataset, one in known.items():
        training, tested = one["made_with"]["training"], [score["test_accuracy"] for score in one["scores"]]
        mean = sum(tested) / len(tested)
        rows.append([dataset, str(len(tested)), str(training["epochs"]), f"{100 * mean:.1f} %", f"{one['minutes']:g}"])
    header = ("data", "experts", "epochs", "test accuracy, mean", "minutes")
    return markdown(header, rows) if rows else "Not recorded yet: `python scripts/run_trajectories.py experts`."
