"""Condense with every method for the same processor time and judge all sets by one protocol: results/comparison/.

Two stages. *rates*: every method tries its published image learning rate times 1, 10 and 100 for a minute each and is
judged by one network on a held-out tenth of the training split; published rates are for many more updates than fit into
minutes. The test split is not looked at. *rows*: three minutes at the rate found, judged on the test split, beside the
set it started from. CIFAR-10 at 1 image a class takes the rates found at 10.

Each run is one `lit-condense fit` of a shipped config, changed in the same way for all: a small network, a limit of
processor time in place of a number of updates, one normalisation, one evaluation protocol. Needs data/MNIST and
data/cifar10 (image folders). What is there already is kept; two stages or groups can run side by side.

Usage: python scripts/run_comparison.py rates [DATASET [METHOD ...]]
       python scripts/run_comparison.py rows [GROUP [METHOD ...]]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fitting import condense, keep
from tables import RESULTS, ROOT

from lit_condense.cli.shipped import read, shipped

COMPARISON = RESULTS / "comparison"
RATES = COMPARISON / "rates"
RUNS = ROOT / "runs" / "comparison"
SECONDS = {"rates": 60, "rows": 180}
FACTORS = (1, 10, 100)
HELD_OUT = 0.1
WIDTH = 32
NO_END = 1_000_000
PROTOCOL = {"protocol": "dsa", "epochs": 300, "full_data_steps": 0}
DATA = {
    "cifar10": {"class_path": "lit_condense.data.ImageFolder", "init_args": {"root": "data/cifar10"}},
    "mnist": {"class_path": "lit_condense.data.MNIST", "init_args": {"root": "data"}},
}
# Where a method has no config for a data set or ipc, the nearest one serves: both are set below for all rows. IDM takes
# its config for two cores where there is one: training the published pool would fill the minutes.
CONFIGS = {
    "dc": "dc/{dataset}_ipc{ipc}",
    "dsa": "dsa/{dataset}_ipc{ipc}",
    "egm_mda": "egm/{dataset}_ipc10_mda",
    "dm": "dm/{dataset}_ipc{ipc}",
    "idc_i": "idc_i/{dataset}_ipc{ipc}",
    "idm": "idm/{dataset}_ipc{ipc}",
    "dream": "dream/{dataset}_ipc{ipc}",
    "lcmat_c": "lcmat_c/cifar10_ipc10",
    "combined_pixels": "combined/cifar10_ipc10_pixels",
    "combined_multi_formation": "combined/cifar10_ipc10_multi_formation",
}
NEED_TWO_IMAGES = ("lcmat_c", "combined_pixels")
"""Methods whose curvature term needs two decoded images of a class."""

GROUPS = {
    "cifar10_ipc10": tuple(CONFIGS),
    "mnist_ipc10": tuple(CONFIGS),
    "cifar10_ipc1": tuple(method for method in CONFIGS if method not in NEED_TWO_IMAGES),
}
BASELINES = [{"class_path": f"lit_condense.selection.{name}"} for name in ("RandomSubset", "KMeansNearest")]
WITH_BASELINES = ("dc", "dream")
"""The runs that evaluate the baselines too, one for each way of storing: they are the same for all that share it."""


def main(stage: str, names: list[str], methods: list[str]) -> None:
    """Do what is not there yet of a stage, for some data sets or groups and methods."""
    todo: Callable[[str, str], None] = {"rates": find_rate, "rows": make_row}[stage]
    for name in names or (DATA if stage == "rates" else GROUPS):
        for method in methods or (CONFIGS if stage == "rates" else GROUPS[name]):
            todo(name, method)


def find_rate(dataset: str, method: str) -> None:
    """Try the learning rates of one method on one data set and record what each gave."""
    path = rates_file(dataset, method)
    tried: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    for factor in FACTORS:
        if any(one["factor"] == factor for one in tried):
            continue
        folder = RUNS / "rates" / dataset / method / str(factor)
        config = settings("rates", dataset, 10, method, factor, str(folder))
        config["data"]["init_args"]["held_out"] = HELD_OUT
        condense(config, folder)
        card = json.loads((folder / "card.json").read_text())
        accuracy = card["evaluation"]["condensed"][0]["accuracy_mean"]
        rate = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        tried.append({"factor": factor, "rate": rate, "updates": card["update"], "held_out_accuracy": accuracy})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tried, indent=1) + "\n")


def rates_file(dataset: str, method: str) -> Path:
    """Return where the tried learning rates of a method are recorded."""
    return RATES / dataset / f"{method}.json"


def best_factor(dataset: str, method: str) -> int:
    """Return the factor whose set did best on the held-out images; the smallest of several."""
    tried = json.loads(rates_file(dataset, method).read_text())
    if {one["factor"] for one in tried} != set(FACTORS):
        sys.exit(f"{method} on {dataset} has tried {tried} only: run the stage `rates` first")
    return int(max(tried, key=lambda one: (one["held_out_accuracy"], -one["factor"]))["factor"])


def make_row(group: str, method: str) -> None:
    """Run one row and keep its set, its card and its grid."""
    if (COMPARISON / group / method / "card.json").exists():
        return
    dataset, ipc = group.split("_ipc")
    folder = RUNS / group / method
    condense(settings("rows", dataset, int(ipc), method, best_factor(dataset, method), str(folder)), folder)
    keep(folder, COMPARISON / group / method)


def settings(stage: str, dataset: str, ipc: int, method: str, factor: int, folder: str) -> dict[str, Any]:
    """Return a shipped config, changed as all are."""
    name = CONFIGS[method].format(dataset=dataset, ipc=ipc)
    config = read(f"{name}_two_cores" if f"{name}_two_cores" in shipped() else name)
    model, trainer = config["model"]["init_args"], config["trainer"]
    model["ipc"] = ipc
    model["network"]["init_args"]["width"] = WIDTH
    model["optimizer"]["init_args"]["lr"] *= factor
    baselines = BASELINES if stage == "rows" and method in WITH_BASELINES else []
    judged = {"repeats": 5} if stage == "rows" else {"repeats": 1, "start": False}
    model["evaluation"]["init_args"] = PROTOCOL | judged | {"baselines": baselines}
    config["data"] = yaml.safe_load(yaml.safe_dump(DATA[dataset]))
    config["data"]["init_args"]["normalization"] = "dc"
    config["out"] = folder
    budget = {"class_path": "cpu_budget.CpuBudget", "init_args": {"seconds": SECONDS[stage]}}
    trainer["callbacks"] = [budget, *trainer["callbacks"]]
    trainer |= {"max_steps": NO_END, "limit_val_batches": 0, "enable_progress_bar": False}
    return config


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:3], sys.argv[3:])
