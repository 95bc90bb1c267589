"""Test DREAM's claim as a curve: accuracy against updates and against seconds, for three arms and three seeds.

Arms: IDC with random real images; the same with representative images (k-means, refreshed at the published interval)
from the same random start; and random real images from a clustered start. All else is equal: the first 1,000 images of
each of the first five classes of CIFAR-10, one stored image a class with multi-formation 2, a small network that serves
20 updates. Writes results/dream_curve.json and results/dream_curve.png. About half an hour on one core. A finished run
is kept.

Usage: python scripts/run_dream_curve.py [ARM ...], or --seconds to take the seconds alone again.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from fitting import condense, keep, quick_evaluations, report_only
from tables import ROOT

from lit_condense.cli.shipped import read

RUNS = ROOT / "runs" / "dream_curve"
UPDATES, POINTS = 100, 5
SEEDS = (0, 1, 2)
TIMED = "timed"
"""One more run of each arm, without evaluations, that the seconds are taken from: nothing else may run beside it."""
LEARNING_RATE = 0.05
"""A hundred times the published one (for 200,000 updates), so that 100 updates move the images."""
RANDOM = {"class_path": "lit_condense.sampling.RandomSampling", "init_args": {"batch_size": 128}}
REPRESENTATIVE = {
    "class_path": "lit_condense.sampling.Representative",
    "init_args": {"batch_size": 128, "interval": 10},
}
ARMS = {  # name -> sampling, start
    "random images": (RANDOM, "RandomReal"),
    "representative images": (REPRESENTATIVE, "RandomReal"),
    "random images, clustered start": (RANDOM, "Clustered"),
}


def main(arms: list[str]) -> None:
    """Make the runs that do not exist yet, then the curve of all that do."""
    if arms == ["--seconds"]:
        draw(timed_again())
        return
    for seed in (*SEEDS, TIMED):
        for arm in arms or ARMS:
            if not (folder_of(arm, seed) / "card.json").exists():
                make(arm, seed)
    if not arms:
        draw(collect())


def folder_of(arm: str, seed: int | str) -> Path:
    """Return where a run writes."""
    return RUNS / arm.replace(", ", "_").replace(" ", "_") / str(seed)


def make(arm: str, seed: int | str) -> None:
    """Run one arm with one seed."""
    folder = folder_of(arm, seed)
    condense(settings(arm, seed, str(folder)), folder)


def settings(arm: str, seed: int | str, folder: str) -> dict[str, Any]:
    """Return DREAM's shipped config with what the curve changes."""
    config = read("dream/cifar10_ipc1")
    model, trainer = config["model"]["init_args"], config["trainer"]
    sampling, start = ARMS[arm]
    config["seed_everything"] = SEEDS[0] if seed == TIMED else seed
    model["network"]["init_args"]["width"] = 32
    model["inner"]["init_args"] |= {"updates": 20, "images": 500}
    model["sampling"] = sampling
    model["init"] = {"class_path": f"lit_condense.init.{start}"}
    model["optimizer"]["init_args"]["lr"] = LEARNING_RATE
    model["evaluation"]["init_args"] = {
        "protocol": "dsa",
        "epochs": 200,
        "repeats": 1,
        "quick_repeats": 2,
        "baselines": [],
        "full_data_steps": 0,
    }
    config["data"] = {
        "class_path": "lit_condense.data.ImageFolder",
        "init_args": {
            "root": "data/cifar10",
            "normalization": "dc",
            "train_limit_per_class": 1000,
            "classes": [0, 1, 2, 3, 4],
        },
    }
    report_only(config, folder)
    trainer |= {"max_steps": UPDATES, "val_check_interval": UPDATES // POINTS}
    if seed == TIMED:
        trainer |= {"limit_val_batches": 0, "log_every_n_steps": 1}
    return config


def timed_again() -> dict[str, Any]:
    """Replace the seconds of the curve in results/ by those of timed runs, made if missing; the accuracies stay."""
    path = ROOT / "results" / "dream_curve.json"
    found: dict[str, Any] = json.loads(path.read_text())
    for arm, seeds in found["arms"].items():
        if not (folder_of(arm, TIMED) / "card.json").exists():
            make(arm, TIMED)
        clock = seconds(folder_of(arm, TIMED) / "log" / "metrics.csv")
        for point in (point for points_of_seed in seeds.values() for point in points_of_seed):
            point["seconds"] = round(clock[point["updates"] - 1], 2)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def collect() -> dict[str, Any]:
    """Read accuracy, updates and seconds of every run into one file, and keep the sets."""
    found: dict[str, Any] = {"arms": {}, "settings": settings(next(iter(ARMS)), SEEDS[0], "runs")}
    for arm in ARMS:
        clock = seconds(folder_of(arm, TIMED) / "log" / "metrics.csv")
        found["arms"][arm] = {seed: points(folder_of(arm, seed), clock) for seed in SEEDS}
        for seed in SEEDS:
            folder = folder_of(arm, seed)
            keep(folder, ROOT / "results" / folder.relative_to(ROOT / "runs"))
    (ROOT / "results" / "dream_curve.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def points(folder: Path, clock: list[float]) -> list[dict[str, float]]:
    """Return one point for each quick evaluation; the seconds are those of the arm's timed run."""
    rows = quick_evaluations(folder)
    updates = [int(row["step"]) + 1 for row in rows]
    return [
        {"updates": done, "seconds": round(clock[done - 1], 2), "accuracy": float(row["val/acc"])}
        for done, row in zip(updates, rows, strict=True)
    ]


def seconds(path: Path) -> list[float]:
    """Return the seconds of condensing up to and with each update, without those spent compiling: once for all runs."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["time/match"]]
    parts = ("time/sampling", "time/match", "time/inner")
    spent = (sum(float(row[part]) for part in parts) - float(row["time/compile"]) for row in rows)
    return list(itertools.accumulate(spent))


def draw(found: dict[str, Any]) -> None:
    """Plot the mean over seeds of each arm, with the spread from lowest to highest, over updates and over seconds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for arm, seeds in found["arms"].items():
        for axis, over in zip(axes, ("updates", "seconds"), strict=True):
            columns = list(zip(*seeds.values(), strict=True))  # one column of seeds a point
            x = [sum(point[over] for point in column) / len(column) for column in columns]
            accuracies = [[100 * point["accuracy"] for point in column] for column in columns]
            axis.plot(x, [sum(values) / len(values) for values in accuracies], marker="o", label=arm)
            axis.fill_between(x, [min(v) for v in accuracies], [max(v) for v in accuracies], alpha=0.15)
            axis.set_xlabel(f"{over} of condensation")
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(ROOT / "results" / "dream_curve.png", dpi=80)


if __name__ == "__main__":
    main(sys.argv[1:])
