"""The table of LCMat-C's sweep in docs/results.md, from the records that run_lcmat_sweep.py wrote."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tables import RESULTS, markdown

NAMES = {"cifar10": "CIFAR-10", "mnist": "MNIST"}
STARTS = {"real": "random real images", "noise": "noise"}


def table() -> str:
    """Return one row an arm: held-out accuracy over seeds, and how much of the image gradient the curvature makes."""
    columns = {dataset: _records(dataset) for dataset in NAMES}
    arms = list(dict.fromkeys(arm for column in columns.values() for arm in column))
    header = ["start", "rho", "norm"]
    header += [f"{name}, {what}" for name in NAMES.values() for what in ("start", "condensed", "curvature's share")]
    rows = [
        [*_arm(arm, columns), *(cell for column in columns.values() for cell in _cells(column, arm))] for arm in arms
    ]
    return markdown(header, rows) if rows else "Not measured yet: `python scripts/run_lcmat_sweep.py`."


def _records(dataset: str) -> dict[str, list[dict[str, Any]]]:
    """Return the records of each arm, arms in the order of start, norm and rho."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((RESULTS / "lcmat_sweep" / dataset).glob("*/[0-9].json")):
        found.setdefault(path.parent.name, []).append(json.loads(path.read_text()))
    order = {
        arm: (list(STARTS).index(one[0]["start"]), one[0]["rho"] > 0, one[0]["norm"], one[0]["rho"])
        for arm, one in found.items()
    }
    return {arm: found[arm] for arm in sorted(found, key=order.__getitem__)}


def _arm(arm: str, columns: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    one = next(column[arm][0] for column in columns.values() if arm in column)
    return [STARTS[one["start"]], f"{one['rho']:g}" if one["rho"] else "0 (IDC-I)", one["norm"] if one["rho"] else "-"]


def _cells(column: dict[str, list[dict[str, Any]]], arm: str) -> list[str]:
    """Return start, result and share; the start is judged once for all arms that begin there, by the one of rho 0."""
    if arm not in column:
        return ["-", "-", "-"]
    records = column[arm]
    start = column.get(f"{records[0]['start']}_rho0", [])
    shares = [share for record in records for share in record["curvature_share"]]
    return [
        _spread([record["accuracies_of_start"] for record in start]) if start else "-",
        _spread([record["accuracies"] for record in records]),
        f"{100 * statistics.fmean(shares):.1f} %" if shares else "-",
    ]


def _spread(accuracies: list[list[float]]) -> str:
    """Return mean and sample standard deviation over seeds of the mean over networks, in per cent."""
    means = [100 * statistics.fmean(one) for one in accuracies]
    spread = f"+- {statistics.stdev(means):.1f}" if len(means) > 1 else "(one seed)"
    return f"{statistics.fmean(means):.1f} {spread}"
