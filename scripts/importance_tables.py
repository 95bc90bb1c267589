"""The tables of importance sampling in docs/results.md, from what measure_importance.py wrote."""

from __future__ import annotations

import json
import statistics

from measure_importance import ARMS, ERROR, KEPT, SEEDS
from tables import cards, markdown, percent

NAMES = {
    "importance_64": "64, by importance",
    "importance_64_of_512": "64, by importance among 512 of a class",
    "random_64": "64, random",
    "random_256": "256, random",
}


def error() -> str:
    """Return one row a network and sampling: relative error of a class gradient at each size, seconds in brackets."""
    path = KEPT / ERROR
    if not path.exists():
        return "Not measured yet: `python scripts/measure_importance.py error`."
    networks = json.loads(path.read_text())["networks"]
    sizes = sorted({point["images"] for one in networks.values() for p in one["samplings"].values() for point in p})
    rows = []
    for network, one in networks.items():
        for sampling, points in one["samplings"].items():
            at = {point["images"]: f"{point['error']:.3f} ({point['seconds']:.2f} s)" for point in points}
            rows.append([network, sampling, *(at.get(size, "-") for size in sizes)])
    return markdown(("network", "sampling", *(f"{size} images" for size in sizes)), rows)


def rows() -> str:
    """Return one row an arm: updates and accuracy of each seed, and the mean over seeds."""
    found = {path.name: card for path, card in cards("importance/rows/*").items()}
    table = []
    for arm in ARMS:
        scores = {s: found[f"{arm}_seed{s}"] for s in SEEDS if f"{arm}_seed{s}" in found}
        if not scores:
            continue
        means = [100 * card["evaluation"]["condensed"][0]["accuracy_mean"] for card in scores.values()]
        each = [percent(card["evaluation"]["condensed"][0]) for card in scores.values()]
        updates = ", ".join(f"{card['update']:,}" for card in scores.values())
        spread = f"{statistics.mean(means):.1f}" + (f" +- {statistics.stdev(means):.1f}" if len(means) > 1 else "")
        table.append([NAMES[arm], updates, ", ".join(each), spread])
    header = ("real images of a class", "updates", "accuracy of each seed", "mean of the seeds")
    return markdown(header, table) if table else "Not measured yet: `python scripts/measure_importance.py rows`."
