"""Sweep what LCMat-C's paper leaves open, its rho, norm and start: records in results/lcmat_sweep/.

IDC-I's and LCMat-C's settings for CIFAR-10 at 10 images a class, made small: width 32, networks that live for 20
updates and are trained on 500 images between two of them, 40 updates at ten times the published learning rate (which
is for 200,000), protocol `dsa` shortened to 150 epochs, two networks a run. Three seeds. Everything is judged on a
held-out tenth of the training images, because settings are chosen by it; the test split is not looked at. An arm with
rho 0 is IDC-I: the two configs differ in nothing else but the start. The first such arm judges the start too, for all
arms of its seed that begin there. Each first seed's set is kept. About 40 minutes of one core a data set.

Five more arms on CIFAR-10 ask what becomes of the gain: 120 updates, with networks of 20 updates as before and with
networks that live as long as published, 100 updates with 2,000 images between two. About 45 minutes of one core.

Usage: python scripts/run_lcmat_sweep.py [DATASET]
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from fitting import keep, quiet_trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from run_selection import data_of
from tables import RESULTS, ROOT

from lit_condense import SyntheticSet, load_condensed
from lit_condense.augmentation import AlwaysOn
from lit_condense.callbacks import FinalReport
from lit_condense.data import CondenseDataModule
from lit_condense.evaluation import Evaluation, Score
from lit_condense.evaluation.comparing import Difference
from lit_condense.export import save_condensed
from lit_condense.init import Initialization, Noise, RandomReal
from lit_condense.inner import TrainOnReal
from lit_condense.matching import CurvatureMatching, GradientMatching, MatchingLoss
from lit_condense.networks import ConvNet
from lit_condense.parametrization import Pixels
from lit_condense.sampling import RandomSampling

SWEEP = RESULTS / "lcmat_sweep"
SEEDS = (0, 1, 2)
HELD_OUT = 0.1
LOOK_EVERY = 10
LEARNING_RATE = 0.05
STARTS: dict[str, type[Initialization]] = {"real": RandomReal, "noise": Noise}


@dataclass(frozen=True)
class Arm:
    """One choice of what is open."""

    rho: float
    norm: Literal["l1", "squared_l2"] = "l1"
    start: str = "real"
    updates: int = 40
    life: str = "short"

    @property
    def name(self) -> str:
        """Name of its records."""
        length = "" if self.updates == Arm.updates else f"_{self.updates}_updates_{self.life}_life"
        return f"{self.start}_rho{self.rho:g}" + (f"_{self.norm}" if self.rho else "") + length

    @property
    def judges_start(self) -> bool:
        """Whether its start is judged: once for all arms that begin there."""
        return self == Arm(0, start=self.start)

    def losses(self) -> list[MatchingLoss]:
        """Return IDC-I's loss, and the curvature beside it."""
        gradients = GradientMatching("squared_l2", layers="convolutions")
        return [gradients, CurvatureMatching(self.rho, self.norm)] if self.rho else [gradients]


NORMS: tuple[Literal["l1", "squared_l2"], ...] = ("l1", "squared_l2")
ARMS = [
    Arm(0),
    *(Arm(rho, norm) for norm in NORMS for rho in (0.05, 0.5, 2, 10)),
    Arm(0, start="noise"),
    *(Arm(rho, start="noise") for rho in (0.05, 2)),
]
LONG = [
    *(Arm(rho, updates=120, life="short") for rho in (0, 2)),
    *(Arm(rho, updates=120, life="published") for rho in (0, 0.5, 2)),
]
LIVES = {"short": (20, 500), "published": (100, 2000)}
"""Updates that a network serves, and real images that it is trained on between two of them."""


class Shares(Callback):
    """Notes the curvature's share of the image gradient at every look."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note it."""
        share = trainer.callback_metrics.get("set/grad_share/CurvatureMatching")
        if share is not None and batch_idx % LOOK_EVERY == 0:
            self.found.append(round(float(share), 5))


def main(datasets: list[str]) -> None:
    """Run what has no record yet."""
    torch.set_num_threads(1)
    for dataset in datasets:
        data = data_of(dataset)
        data.held_out = HELD_OUT
        for seed in SEEDS:
            for arm in ARMS + (LONG if dataset == "cifar10" else []):
                path = SWEEP / dataset / arm.name / f"{seed}.json"
                if not path.exists():
                    record = measure(data, dataset, arm, seed)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(record, indent=1) + "\n")
                    print(dataset, arm.name, seed, record["accuracies"], flush=True)


def measure(data: CondenseDataModule, dataset: str, arm: Arm, seed: int) -> dict[str, Any]:
    """Condense, judge and return the record of one run."""
    life, images = LIVES[arm.life]
    folder, shares = ROOT / "runs" / "lcmat_sweep" / dataset / arm.name / str(seed), Shares()
    shutil.rmtree(folder, ignore_errors=True)
    module = SyntheticSet(
        ipc=10,
        network=functools.partial(ConvNet, width=32, depth=3),
        inner=TrainOnReal(updates=life, images=images, batch_size=64, cutmix=0.5),
        sampling=RandomSampling(64),
        parametrization=Pixels("pixel", "every_network"),
        init=STARTS[arm.start](),
        augmentation=AlwaysOn(("color", "crop", "cutout")),
        optimizer=functools.partial(torch.optim.SGD, lr=LEARNING_RATE, momentum=0.5),
        evaluation=Evaluation("dsa", epochs=150, repeats=2, baselines=[], full_data_steps=0, start=arm.judges_start),
        grad_share_every=LOOK_EVERY,
        seed=seed,
    )
    quiet_trainer(*arm.losses(), shares, FinalReport(str(folder)), max_steps=arm.updates).fit(module, datamodule=data)
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    if seed == SEEDS[0]:
        keep(folder, SWEEP / dataset / arm.name, picture=False)
        share_start(dataset, arm)
    judged = card["evaluation"]
    return {
        "rho": arm.rho,
        "norm": arm.norm,
        "start": arm.start,
        "life": arm.life,
        "accuracies": judged["condensed"][0]["accuracies"],
        "accuracies_of_start": judged["start"]["accuracies"] if arm.judges_start else None,
        "curvature_share": shares.found,
        "updates": card["update"],
        "versions": card["versions"],
    }


def share_start(dataset: str, arm: Arm) -> None:
    """Put the start into the card of a kept set that did not judge it: the score in the card of the arm that judged it.

    At one seed the arms begin with the same images, and the networks that judge them are the same.
    """
    kept = SWEEP / dataset / arm.name
    found = load_condensed(kept)
    judged = found.card["evaluation"]
    if "start" in judged:
        return
    start = load_condensed(SWEEP / dataset / Arm(0, start=arm.start).name).card["evaluation"]["start"]
    gained = Difference.of(*(Score("", tuple(score["accuracies"]), 0.0) for score in (judged["condensed"][0], start)))
    judged |= {"start": start, "learned": gained.as_plain()}
    judged["not_better_than"] += [] if gained.is_gain else ["start"]
    save_condensed(kept, found, half=True)


if __name__ == "__main__":
    main(sys.argv[1:2] or ["cifar10", "mnist"])
