"""Trajectory matching beside DC, DM and DREAM for the same processor time: results/trajectories/.

Three stages. *experts*: a run records six experts for each data set, ConvNet-3 of width 32, as many epochs as a row
reads. *rates*: MTT and TESLA try their image learning rate of 100 times 1, 10 and 100 for a minute each; of their mean
matching losses over the last half of the updates the lowest counts, and the smallest rate within one standard error of
it is taken, so that nothing is tested and a rate that only moves the images further than another is not. At 10 images a
class those of 1 are taken. The others take the rates that run_comparison.py found. *rows*: ten minutes of one core each
(CIFAR-10 at 1 image a class: twenty), judged by one protocol (``mtt``: DSA's, with the learned step size where there is
one) beside random and k-means images in the same storage. DREAM stores four half-size images in one.

Needs data/MNIST and data/cifar10 (image folders). What is there already is kept; two stages or groups can run side by
side. The time that recording the experts takes is not in the rows' and stands in results/trajectories/experts.json.

Usage: python scripts/run_trajectories.py experts [DATASET ...]
       python scripts/run_trajectories.py rates [GROUP ...]
       python scripts/run_trajectories.py rows [GROUP [METHOD [SEED ...]]]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml
from fitting import condense, fit, keep
from run_comparison import BASELINES, NO_END, WIDTH, best_factor
from run_comparison import DATA as PLAIN_DATA
from tables import RESULTS, ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_condense.cli.shipped import read, shipped
from lit_condense.experts import Experts

KEPT = RESULTS / "trajectories"
RUNS = ROOT / "runs" / "trajectories"
EXPERTS = RUNS / "experts"
SECONDS_OF_A_RATE = 60
SECONDS_OF_A_ROW = {"cifar10_ipc1": 1200, "mnist_ipc1": 600, "cifar10_ipc10": 600, "mnist_ipc10": 600}
FACTORS = (1, 10, 100)
RATE = 100.0
PROTOCOL = {"protocol": "mtt", "epochs": 300, "full_data_steps": 0, "repeats": 5}
DATA = {name: yaml.safe_load(yaml.safe_dump(node)) for name, node in PLAIN_DATA.items()}
for name, node in DATA.items():
    node["init_args"] |= {"normalization": "dc"} | ({"name": name} if name == "cifar10" else {})
MATCHING = {  # images per class -> of MTT and TESLA: start epochs, step size and its rate
    1: {"max_start_epoch": 2, "inner_lr": 0.02, "inner_lr_rate": 1e-6},
    10: {"max_start_epoch": 4, "inner_lr": 0.01, "inner_lr_rate": 1e-5},
}
STEPS, EXPERT_EPOCHS = 20, 2
"""Fewer steps than the published 30 and 50, so that minutes hold enough updates."""
RECORDED = 6
EPOCHS = max(own["max_start_epoch"] for own in MATCHING.values()) + EXPERT_EPOCHS
UNROLL = {"mtt": "full", "tesla": "constant_memory"}
METHODS = ("mtt", "tesla", "dc", "dm", "idm", "dream")
GROUPS = tuple(SECONDS_OF_A_ROW)
RATED = ("cifar10_ipc1", "mnist_ipc1")
"""Sets that rates are tried on: at 10 images a class a minute holds a dozen updates."""
SEEDS = (0, 1, 2)
WITH_BASELINES = ("dc", "dream")


def main(stage: str, names: list[str]) -> None:
    """Do what is not there yet of a stage."""
    if stage == "experts":
        for dataset in names or DATA:
            record(dataset)
    elif stage == "rates":
        for group in names or RATED:
            for method in UNROLL:
                find_rate(group, method)
    else:
        groups, methods, seeds = names[:1] or GROUPS, names[1:2] or METHODS, [int(n) for n in names[2:]] or SEEDS[:1]
        for seed in seeds:
            for group in groups:
                for method in methods:
                    make_row(group, method, seed)


def record(dataset: str) -> None:
    """Record the experts of a data set, and keep what they say of themselves."""
    config = read("experts/cifar10_unwhitened" if dataset == "cifar10" else "experts/mnist")
    config["model"]["init_args"] |= {"experts": RECORDED, "epochs": EPOCHS}
    config["model"]["init_args"]["network"]["init_args"]["width"] = WIDTH
    config["data"], config["out"] = DATA[dataset], str(EXPERTS / dataset)
    path = RUNS / f"experts_{dataset}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    fit("--config", str(path), "--trainer.enable_progress_bar", "false")
    experts = Experts(EXPERTS / dataset)
    scores = [experts.file(number).card["scores"] for number in range(len(experts))]
    said: dict[str, Any] = json.loads((EXPERTS / dataset / "experts.json").read_text())
    found = {"made_with": said["made_with"], "minutes": round(_minutes(EXPERTS / dataset), 1), "scores": scores}
    kept = KEPT / "experts.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({**known, dataset: found}, indent=1) + "\n")


def _minutes(folder: Path) -> float:
    """Return the wall-clock minutes that the logs of the runs in a folder cover, from first to last line each."""
    total = 0.0
    for path in folder.glob("events*"):
        log = _log(path)
        times = [one.wall_time for one in log.Scalars("train/loss")] if "train/loss" in log.Tags()["scalars"] else [0.0]
        total += times[-1] - times[0]
    return total / 60


def _log(path: Path) -> EventAccumulator:
    log = EventAccumulator(str(path), size_guidance={"scalars": 0})
    log.Reload()
    return log


def rates_file(group: str, method: str) -> Path:
    """Return where the tried learning rates of a method are recorded."""
    return KEPT / "rates" / group / f"{method}.json"


def find_rate(group: str, method: str) -> None:
    """Try the learning rates of the images and record what each made of the matching loss."""
    path = rates_file(group, method)
    tried: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    for factor in FACTORS:
        if any(one["factor"] == factor for one in tried):
            continue
        folder = RUNS / "rates" / group / method / str(factor)
        config = settings("rates", group, method, 0, factor, str(folder))
        condense(config, folder)
        losses = [one.value for one in _log(next(folder.glob("events*"))).Scalars("loss/TrajectoryMatching")]
        last = losses[len(losses) // 2 :]
        updates = json.loads((folder / "card.json").read_text())["update"]
        loss, error = statistics.fmean(last), statistics.stdev(last) / len(last) ** 0.5
        tried.append({"factor": factor, "rate": RATE * factor, "updates": updates, "loss": loss, "error": error})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tried, indent=1) + "\n")


def factor_of(group: str, method: str) -> int:
    """Return the factor of a method's image learning rate."""
    if method not in UNROLL:
        return best_factor(group.split("_")[0], method)
    group = f"{group.split('_')[0]}_ipc1"
    tried = json.loads(rates_file(group, method).read_text())
    if {one["factor"] for one in tried} != set(FACTORS):
        sys.exit(f"{method} of {group} has tried {tried} only: run the stage `rates` first")
    return taken(tried)


def taken(tried: list[dict[str, float]]) -> int:
    """Return the smallest factor whose matching loss is within one standard error of the lowest."""
    best = min(tried, key=lambda one: one["loss"])
    return int(min(one["factor"] for one in tried if one["loss"] <= best["loss"] + best["error"]))


def make_row(group: str, method: str, seed: int) -> None:
    """Run one row and keep its set, its card and its grid."""
    kept = KEPT / group / f"{method}_seed{seed}"
    if (kept / "card.json").exists():
        return
    folder = RUNS / group / f"{method}_seed{seed}"
    condense(settings("rows", group, method, seed, factor_of(group, method), str(folder)), folder)
    keep(folder, kept, picture=seed == 0)


def settings(stage: str, group: str, method: str, seed: int, factor: int, folder: str) -> dict[str, Any]:
    """Return a shipped config, changed as all are."""
    dataset, ipc = group.split("_ipc")
    name = f"mtt/{'mnist_ipc1' if dataset == 'mnist' else 'base'}" if method in UNROLL else f"{method}/{group}"
    config = read(f"{name}_two_cores" if f"{name}_two_cores" in shipped() else name)
    model, trainer = config["model"]["init_args"], config["trainer"]
    model["ipc"] = int(ipc)
    model["network"]["init_args"]["width"] = WIDTH
    if method in UNROLL:
        own = MATCHING[int(ipc)]
        matched = {"experts": str(EXPERTS / dataset), "max_start_epoch": own["max_start_epoch"], "steps": STEPS}
        matched |= {"expert_epochs": EXPERT_EPOCHS, "unroll": UNROLL[method]}
        trainer["callbacks"] = [{"class_path": "TrajectoryMatching", "init_args": matched}]
        model["learnables"]["init_args"] = {name: own[name] for name in ("inner_lr", "inner_lr_rate")}
        model["optimizer"]["init_args"]["lr"] = RATE
    model["optimizer"]["init_args"]["lr"] *= factor
    judged = {"baselines": BASELINES if method in WITH_BASELINES and seed == SEEDS[0] else []}
    model["evaluation"]["init_args"] = PROTOCOL | judged | ({"repeats": 1} if stage == "rates" else {})
    config["data"], config["out"], config["seed_everything"] = DATA[dataset], folder, seed
    seconds = SECONDS_OF_A_RATE if stage == "rates" else SECONDS_OF_A_ROW[group]
    budget = {"class_path": "cpu_budget.CpuBudget", "init_args": {"seconds": seconds}}
    trainer["callbacks"] = [budget, *trainer["callbacks"]]
    trainer |= {"max_steps": NO_END, "limit_val_batches": 0, "enable_progress_bar": False}
    return config


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
