"""Select with eight methods and judge every subset alike: the numbers behind docs/results.md, into results/selection/.

CIFAR-10 and MNIST at 0.2 and 1 %, three seeds. One scoring network a seed, trained for two epochs, is shared by all
methods through the cache, and one fresh network a seed is trained on each subset. Needs data/MNIST and data/cifar10
(image folders). About an hour on one core; what is measured already is kept.

Usage: python scripts/run_selection.py [DATASET [FRACTION]]
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_condense.callbacks import FinalReport
from lit_condense.data import MNIST, CondenseDataModule, ImageFolder
from lit_condense.evaluation import Evaluation
from lit_condense.networks import ConvNet
from lit_condense.selected_set import SelectedSet
from lit_condense.selection import (
    CRAIG,
    AdaCore,
    Glister,
    GradMatch,
    Herding,
    KCenterGreedy,
    LCMatS,
    RandomSubset,
    Scoring,
    Selection,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "selection"
CACHE = ROOT / "runs" / "scoring_networks"
WIDTH, EPOCHS = 16, 100
SEEDS = (0, 1, 2)
FRACTIONS = ("0.002", "0.01")
METHODS: tuple[type[Selection], ...] = (
    RandomSubset,
    Herding,
    KCenterGreedy,
    CRAIG,
    GradMatch,
    Glister,
    AdaCore,
    LCMatS,
)


def main(datasets: list[str], fractions: list[str]) -> None:
    """Measure what is not measured yet."""
    for dataset in datasets:
        data = data_of(dataset)
        for fraction in fractions:
            for seed in SEEDS:
                for method in METHODS:
                    measure(data, dataset, fraction, seed, method)


def data_of(dataset: str) -> CondenseDataModule:
    """Return the data module, loaded once for all runs."""
    if dataset == "mnist":
        return MNIST(root=str(ROOT / "data"), normalization="dc")
    return ImageFolder(root=str(ROOT / "data" / "cifar10"), normalization="dc")


def measure(data: CondenseDataModule, dataset: str, fraction: str, seed: int, method: type[Selection]) -> None:
    """Select, evaluate and add one record, unless it is there."""
    path = RESULTS / f"{dataset}_{fraction}.json"
    records: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    if any(record["method"] == method.__name__ and record["seed"] == seed for record in records):
        return
    with tempfile.TemporaryDirectory() as folder:
        card = select(data, float(fraction), seed, method(), folder)
    score = card["evaluation"]["condensed"][0]
    records.append(
        {
            "method": method.__name__,
            "seed": seed,
            "images": sum(card["ipc"]),
            "accuracies": score["accuracies"],
            "network": score["network"],
            "recipe": score["recipe"],
            "seconds_selecting": card["seconds"]["selecting"],
            "settings": card["method"]["model"],
            "versions": card["versions"],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1) + "\n")
    print(dataset, fraction, seed, method.__name__, score["accuracies"], flush=True)


def select(data: CondenseDataModule, fraction: float, seed: int, method: Selection, folder: str) -> dict[str, Any]:
    """Return the card of one selection."""
    module = SelectedSet(
        selection=method,
        fraction=fraction,
        network=functools.partial(ConvNet, width=WIDTH, depth=3),
        scoring=Scoring(epochs=2, lr=0.01, cache=str(CACHE)),
        evaluation=Evaluation(protocol="coreset", epochs=EPOCHS, repeats=1, baselines=[], full_data_steps=0),
        seed=seed,
    )
    trainer = Trainer(
        callbacks=[FinalReport(folder)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        accelerator="cpu",
        devices=1,
        max_epochs=1,
    )
    trainer.fit(module, datamodule=data)
    card: dict[str, Any] = json.loads((Path(folder) / "card.json").read_text())
    return card


if __name__ == "__main__":
    main(sys.argv[1:2] or ["cifar10", "mnist"], sys.argv[2:3] or list(FRACTIONS))
