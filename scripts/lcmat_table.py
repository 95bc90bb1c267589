"""The tables of LCMat-C's sweep in docs/results.md, from the records that run_lcmat_sweep.py wrote."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tables import RESULTS, markdown

SWEPT_UPDATES = 40
NAMES = {"cifar10": "CIFAR-10", "mnist": "MNIST"}
STARTS = {"real": "random real images", "noise": "noise"}
LIVES = {"short": "20 updates, 500 images", "published": "100 updates, 2,000 images"}
LONG_HEADER = (
    "a network's life",
    "updates",
    "rho",
    "norm",
    "condensed",
    "over rho 0, at each seed",
    "curvature's share",
)
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
        arms = _records(dataset, long=False)
        if arms:
            parts.append(f"**{name}**\n\n" + markdown(HEADER, [_row(arms, arm) for arm in arms]))
    return "\n\n".join(parts) or "Not measured yet: `python scripts/run_lcmat_sweep.py`."


def longer_table() -> str:
    """Return the table of the arms with more updates, all from random real images of CIFAR-10."""
    arms = _records("cifar10", long=True)
    return markdown(LONG_HEADER, [_long_row(arms, arm) for arm in arms]) if arms else "Not measured yet."


def _records(dataset: str, long: bool) -> dict[str, Records]:
    """Return the records of each arm of the swept length or of the longer ones, in the order of their settings."""
    found: dict[str, Records] = {}
    for path in sorted((RESULTS / "lcmat_sweep" / dataset).glob("*/[0-9].json")):
        record = json.loads(path.read_text())
        if (record["updates"] > SWEPT_UPDATES) == long:
            found.setdefault(path.parent.name, []).append(record)
    order = {
        arm: (_life(one), list(STARTS).index(one[0]["start"]), one[0]["rho"] > 0, one[0]["norm"], one[0]["rho"])
        for arm, one in found.items()
    }
    return {arm: found[arm] for arm in sorted(found, key=order.__getitem__)}


def _life(records: Records) -> int:
    """Return the place of an arm's networks among `LIVES`."""
    return list(LIVES).index(records[0].get("life", "short"))


def _row(arms: dict[str, Records], arm: str) -> list[str]:
    """Return an arm's row; its start is judged once for all arms that begin there, by the one of rho 0."""
    records = arms[arm]
    plain = arms.get(f"{records[0]['start']}_rho0", [])
    return [
        STARTS[records[0]["start"]],
        *_what_is_open(records),
        _spread([statistics.fmean(record["accuracies_of_start"]) for record in plain]) if plain else "-",
        *_what_came_out(records, plain),
    ]


def _long_row(arms: dict[str, Records], arm: str) -> list[str]:
    """Return the row of an arm with more updates, beside that of rho 0 with networks of the same life."""
    records = arms[arm]
    plain = next((one for one in arms.values() if _life(one) == _life(records) and not one[0]["rho"]), [])
    return [
        list(LIVES.values())[_life(records)],
        str(records[0]["updates"]),
        *_what_is_open(records),
        *_what_came_out(records, plain),
    ]


def _what_is_open(records: Records) -> list[str]:
    """Return rho and norm of an arm."""
    one = records[0]
    return [f"{one['rho']:g}" if one["rho"] else "0 (IDC-I)", one["norm"] if one["rho"] else "-"]


def _what_came_out(records: Records, plain: Records) -> list[str]:
    """Return accuracy, its gain over the arm without curvature at each seed, and the curvature's share."""
    shares = [share for record in records for share in record["curvature_share"]]
    gains = [_mean(with_it) - _mean(without) for with_it, without in zip(records, plain, strict=False)]
    return [
        _spread([_mean(record) for record in records]),
        ", ".join(f"{100 * gain:+.1f}" for gain in gains) if records[0]["rho"] else "-",
        f"{100 * statistics.fmean(shares):.1f} %" if shares else "-",
    ]


def _mean(record: dict[str, Any]) -> float:
    return statistics.fmean(record["accuracies"])


def _spread(accuracies: list[float]) -> str:
    """Return mean and sample standard deviation over seeds, in per cent."""
    spread = f"+- {100 * statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else "(one seed)"
    return f"{100 * statistics.fmean(accuracies):.1f} {spread}"
