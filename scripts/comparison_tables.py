"""The tables of the comparison in docs/results.md, from the cards and records that run_comparison.py wrote."""

from __future__ import annotations

import json
from typing import Any

from run_comparison import FACTORS, RATES
from tables import cards, markdown, percent

METHODS = {
    "dc": "DC",
    "dsa": "DSA",
    "egm_mda": "EGM-MDA",
    "dm": "DM",
    "idc_i": "IDC-I",
    "idm": "IDM (factor 2)",
    "dream": "DREAM (on IDC, factor 2)",
    "lcmat_c": "LCMat-C",
    "combined_pixels": "EGM + DREAM + LCMat-C, pixels",
    "combined_multi_formation": "EGM + DREAM + LCMat-C, factor 2",
}
STORAGES = {"pixels": "dc", "half-size images": "dream"}
"""How images are stored -> the row whose card holds the baselines stored so."""

BASELINES = {"random": "random real images", "kmeans": "real images nearest to k-means centres"}
HEADER = ("set", "stored as", "rate", "updates", "start", "condensed", "learned", "not better than")


def table(group: str) -> str:
    """Return one row a baseline and one a method of a group: start, accuracy, what was learned on top of the start."""
    found = {path.name: card for path, card in cards(f"comparison/{group}/*").items()}
    if not found:
        return "Not measured yet: `python scripts/run_comparison.py`."
    rows = baseline_rows(found)
    rows += [method_row(name, found[method], found) for method, name in METHODS.items() if method in found]
    return markdown(HEADER, rows)


def baseline_rows(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return a row for each baseline in each storage, of the cards of a group by method."""
    return [
        [f"*{name}*", storage, "-", "-", "-", percent(found[row]["evaluation"]["baselines"][tag]), "-", "-"]
        for storage, row in STORAGES.items()
        if row in found
        for tag, name in BASELINES.items()
        if tag in found[row]["evaluation"]["baselines"]
    ]


def rates() -> str:
    """Return one row a method and data set: accuracy on held-out images at each learning rate."""
    rows = []
    for path in sorted(RATES.glob("*/*.json")):
        tried = {one["factor"]: one for one in json.loads(path.read_text())}
        best = max(tried.values(), key=lambda one: (one["held_out_accuracy"], -one["factor"]))
        cells = [_tried(tried.get(factor), best) for factor in FACTORS]
        rows.append([METHODS[path.stem], path.parent.name, f"{min(one['rate'] for one in tried.values()):g}", *cells])
    header = ("method", "data", "published rate", *(f"times {factor}" for factor in FACTORS))
    return markdown(header, rows) if rows else "Not measured yet: `python scripts/run_comparison.py rates`."


def _tried(one: dict[str, Any] | None, best: dict[str, Any]) -> str:
    if one is None:
        return "-"
    cell = f"{100 * one['held_out_accuracy']:.1f} ({one['updates']:,})"
    return f"**{cell}**" if one is best else cell


def method_row(name: str, card: dict[str, Any], group: dict[str, Any]) -> list[str]:
    """Return the row of a method: its card's numbers, and what of its start and the baselines it does not beat."""
    evaluation = card["evaluation"]
    score, learned = evaluation["condensed"][0], evaluation["learned"]
    storage = _storage(card)
    baselines = group[STORAGES[storage]]["evaluation"]["baselines"] if STORAGES[storage] in group else {}
    references = {"its start": evaluation["start"], **{tag: baselines[tag] for tag in baselines}}
    beaten_by = [tag for tag, other in references.items() if not _better(score, other)]
    beaten_by += [] if baselines else ["(real images stored so are not measured yet)"]
    cell = percent(score)
    return [
        name,
        storage,
        f"{card['method']['model']['optimizer']['init_args']['lr']:g}",
        f"{card['update']:,}",
        percent(evaluation["start"]),
        cell if beaten_by else f"**{cell}**",
        f"{learned['points']:+.1f} +- {learned['standard_error']:.1f}",
        ", ".join(beaten_by) or "-",
    ]


def _storage(card: dict[str, Any]) -> str:
    factor = card["method"]["model"]["parametrization"]["init_args"].get("factor", 1)
    return "pixels" if factor == 1 else "half-size images"


def _better(score: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether a mean is above another by more than the standard error of their difference."""
    error = sum(one["accuracy_std"] ** 2 / one["networks"] for one in (score, other)) ** 0.5
    return bool(score["accuracy_mean"] - other["accuracy_mean"] > error)
