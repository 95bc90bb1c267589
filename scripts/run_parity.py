"""Condense in both modes of the engine, to see that the fast one costs no accuracy: the cards in results/parity/.

DC at one image a class, 50 updates, three seeds and three evaluation networks each, all else as in the shipped config.
Needs data/MNIST and data/cifar10 (image folders); about five minutes a card on one core. A set that exists is kept.

Usage: python scripts/run_parity.py [DATASET], mnist or cifar10.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fitting import fit, keep
from tables import ROOT

RESULTS = ROOT / "results" / "parity"
UPDATES = 50
SEEDS = (0, 1, 2)
MODES = ("fast", "exact")
DATA = {
    "mnist": [],
    "cifar10": ["--data", "lit_condense.data.ImageFolder", "--data.root", "data/cifar10", "--data.normalization", "dc"],
}


def main(datasets: list[str]) -> None:
    """Make the cards that do not exist yet."""
    for dataset in datasets or DATA:
        for seed in SEEDS:
            for mode in MODES:
                kept = RESULTS / f"{dataset}_{mode}" / str(seed)
                if not (kept / "condensed.safetensors").exists():
                    condense(dataset, mode, seed, kept)


def condense(dataset: str, mode: str, seed: int, kept: Path) -> None:
    """Run one and keep its set with its card."""
    folder = ROOT / "runs" / "parity" / f"{dataset}_{mode}" / str(seed)
    changes = {
        "seed_everything": seed,
        "model.engine.mode": mode,
        "model.evaluation.repeats": 3,
        "model.evaluation.full_data_steps": 0,
        "model.evaluation.baselines": [],
        "trainer.max_steps": UPDATES,
        "trainer.limit_val_batches": 0,
        "out": folder,
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
    }
    options = [part for name, value in changes.items() for part in (f"--{name}", str(value))]
    fit("--config", f"dc/{dataset}_ipc1", *options, *DATA[dataset])
    keep(folder, kept)


if __name__ == "__main__":
    main(sys.argv[1:])
