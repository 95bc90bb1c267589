"""What it costs to keep experts in bfloat16: the digits condensed on experts of either kind, three seeds each.

Writes results/trajectories/storage.json. About ten minutes on one core.

Usage: python scripts/measure_expert_storage.py
"""

from __future__ import annotations

import json
from typing import Any

from fitting import condense, fit
from run_trajectories import KEPT, RUNS

from lit_condense.cli.shipped import read
from lit_condense.experts import Experts

STORAGES = ("float32", "bfloat16")
SEEDS = (0, 1, 2)


def main() -> None:
    """Record experts in both types, match each, and write down accuracies and sizes."""
    found: dict[str, Any] = {}
    for storage in STORAGES:
        folder = RUNS / "storage" / f"experts_{storage}"
        fit("--config", "experts/digits", "--out", str(folder), "--model.init_args.storage", storage)
        sizes = [path.stat().st_size for path in Experts(folder).paths]
        found[storage] = {"bytes": sum(sizes), "accuracies": [accuracy(storage, seed) for seed in SEEDS]}
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / "storage.json").write_text(json.dumps(found, indent=1) + "\n")


def accuracy(storage: str, seed: int) -> dict[str, float]:
    """Return mean and spread of the accuracy of a set that was condensed on experts of a kind."""
    folder = RUNS / "storage" / f"{storage}_seed{seed}"
    config = read("mtt/digits_ipc1")
    config["trainer"]["callbacks"][0]["init_args"]["experts"] = str(RUNS / "storage" / f"experts_{storage}")
    config["model"]["init_args"]["evaluation"]["init_args"] |= {"baselines": [], "full_data_steps": 0, "start": False}
    config["trainer"] |= {"limit_val_batches": 0, "enable_progress_bar": False}
    config["seed_everything"], config["out"] = seed, str(folder)
    condense(config, folder)
    score = json.loads((folder / "card.json").read_text())["evaluation"]["condensed"][0]
    return {"mean": score["accuracy_mean"], "std": score["accuracy_std"]}


if __name__ == "__main__":
    main()
