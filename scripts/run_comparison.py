"""Condense with every method for the same time and judge all sets by one protocol: the cards in results/comparison/.

Each row is one `lit-condense fit` of a shipped config, changed in the same way for all: a small network, a time limit
in place of a number of updates, one normalisation, one evaluation protocol. Needs data/MNIST and data/cifar10 (image
folders); about five minutes a row. A row whose card exists is skipped.

Usage: python scripts/run_comparison.py [GROUP [METHOD ...]], GROUP cifar10_ipc1, cifar10_ipc10 or mnist_ipc10.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml
from fitting import condense as run
from fitting import keep
from tables import ROOT

RESULTS = ROOT / "results" / "comparison"
TIME_LIMIT = "00:00:03:00"
WIDTH = 32
NO_END = 1_000_000
EVALUATION = {"protocol": "dsa", "epochs": 300, "repeats": 5, "full_data_steps": 0}
DATA = {
    "cifar10": {"class_path": "lit_condense.data.ImageFolder", "init_args": {"root": "data/cifar10"}},
    "mnist": {"class_path": "lit_condense.data.MNIST", "init_args": {"root": "data"}},
}
# Where a method has no config for a data set or ipc, the nearest one serves: both are set below for all rows.
CONFIGS = {
    "dc": "dc/{dataset}_ipc{ipc}",
    "dsa": "dsa/{dataset}_ipc{ipc}",
    "egm_mda": "egm/{dataset}_ipc10_mda",
    "dm": "dm/{dataset}_ipc{ipc}",
    "idc_i": "idc_i/{dataset}_ipc{ipc}",
    "dream": "dream/{dataset}_ipc{ipc}",
    "lcmat_c": "lcmat_c/cifar10_ipc10",
}
GROUPS = {  # LCMat-C needs two images of a class
    "cifar10_ipc10": tuple(CONFIGS),
    "mnist_ipc10": tuple(CONFIGS),
    "cifar10_ipc1": tuple(method for method in CONFIGS if method != "lcmat_c"),
}
BASELINES = [{"class_path": f"lit_condense.selection.{name}"} for name in ("RandomSubset", "KMeansNearest")]
WITH_BASELINES = "dc"
"""The run that evaluates the baselines too; they are the same for every method of a group."""


def main(groups: list[str], methods: list[str]) -> None:
    """Make the cards that do not exist yet."""
    for group in groups:
        for method in methods or GROUPS[group]:
            if not (RESULTS / group / method / "card.json").exists():
                condense(group, method)


def condense(group: str, method: str) -> None:
    """Run one row and keep its card and its grid."""
    folder = ROOT / "runs" / "comparison" / group / method
    run(row(group, method, str(folder)), folder)
    keep(folder, RESULTS / group / method)


def row(group: str, method: str, folder: str) -> dict[str, Any]:
    """Return a shipped config, changed as all rows are."""
    dataset, ipc = group.split("_ipc")
    path = ROOT / "configs" / f"{CONFIGS[method].format(dataset=dataset, ipc=ipc)}.yaml"
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    model, trainer = config["model"]["init_args"], config["trainer"]
    model["ipc"] = int(ipc)
    model["network"]["init_args"]["width"] = WIDTH
    model["evaluation"]["init_args"] = EVALUATION | {"baselines": BASELINES if method == WITH_BASELINES else []}
    config["data"] = DATA[dataset]
    config["data"]["init_args"]["normalization"] = "dc"
    trainer |= {"max_time": TIME_LIMIT, "max_steps": NO_END, "limit_val_batches": 0, "enable_progress_bar": False}
    trainer["logger"]["init_args"] |= {"save_dir": folder, "name": "log"}
    for callback in trainer["callbacks"]:
        for name in ("dirpath", "folder"):
            if name in callback["init_args"]:
                callback["init_args"][name] = f"{folder}/{name}" if name == "dirpath" else folder
    return config


if __name__ == "__main__":
    main(sys.argv[1:2] or list(GROUPS), sys.argv[2:])
