"""The tables of LCMat-C's sweep in docs/results.md, from the records that run_lcmat_sweep.py wrote."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tables import RESULTS, markdown

NAMES = {"cifar10": "CIFAR-10", "mnist": "MNIST"}
STARTS = {"real": "random real images", "noise": "noise"}
HEADER = (
    "start",
    "rho",
    "norm",
    "before its first update",
    "condensed",
    "over rho 0, at each seed",
    "curvature's share",
)

Records = list[dict[str, Any]]


def table() -> str:
    """Return one table a data set, one row an arm: held-out accuracy over seeds, and the curvature's share."""
    parts = []
    for dataset, name in NAMES.items():
        arms = _records(dataset)
        if arms:
            parts.append(f"**{name}**\n\n" + markdown(HEADER, [_row(arms, arm) for arm in arms]))
    return "\n\n".join(parts) or "Not measured yet: `python scripts/run_lcmat_sweep.py`."


def _records(dataset: str) -> dict[str, Records]:
    """Return the records of each arm, arms in the order of start, norm and rho."""
    found: dict[str, Records] = {}
    for path in sorted((RESULTS / "lcmat_sweep" / dataset).glob("*/[0-9].json")):
        found.setdefault(path.parent.name, []).append(json.loads(path.read_text()))
    order = {
        arm: (list(STARTS).index(one[0]["start"]), one[0]["rho"] > 0, one[0]["norm"], one[0]["rho"])
        for arm, one in found.items()
    }
    return {arm: found[arm] for arm in sorted(found, key=order.__getitem__)}


def _row(arms: dict[str, Records], arm: str) -> list[str]:
    """Return an arm's row; its start is judged once for all arms that begin there, by the one of rho 0."""
    records = arms[arm]
    one, plain = records[0], arms.get(f"{records[0]['start']}_rho0", [])
    shares = [share for record in records for share in record["curvature_share"]]
    gains = [_mean(with_it) - _mean(without) for with_it, without in zip(records, plain, strict=False)]
    return [
        STARTS[one["start"]],
        f"{one['rho']:g}" if one["rho"] else "0 (IDC-I)",
        one["norm"] if one["rho"] else "-",
        _spread([statistics.fmean(record["accuracies_of_start"]) for record in plain]) if plain else "-",
        _spread([_mean(record) for record in records]),
        ", ".join(f"{100 * gain:+.1f}" for gain in gains) if one["rho"] else "-",
        f"{100 * statistics.fmean(shares):.1f} %" if shares else "-",
    ]


def _mean(record: dict[str, Any]) -> float:
    return statistics.fmean(record["accuracies"])


def _spread(accuracies: list[float]) -> str:
    """Return mean and sample standard deviation over seeds, in per cent."""
    spread = f"+- {100 * statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else "(one seed)"
    return f"{100 * statistics.fmean(accuracies):.1f} {spread}"
