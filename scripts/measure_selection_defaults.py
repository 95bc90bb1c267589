"""Choose the defaults of selections by measurement, on held-out images: into results/selection_defaults/.

CIFAR-10 at 0.2 and 1 %. A tenth of the training images is held out in place of the test split, which takes no part.
One proxy model (ConvNet-3, width 16, 10 epochs at learning rate 0.1, as the configs ship it) is shared through the
cache; each subset is judged by protocol coreset, shortened as in run_selection.py. Needs data/cifar10 (an image
folder). About half an hour of one core; what is measured already is kept.

Usage: python scripts/measure_selection_defaults.py [FRACTION]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from run_selection import FRACTIONS, ROOT, described, is_same, looked_through, outcome, read, selected_set, write

from lit_condense.data import CondenseDataModule, ImageFolder
from lit_condense.selection import (
    CRAIG,
    AdaCore,
    Glister,
    GradMatch,
    Herding,
    KCenterGreedy,
    LCMatS,
    RandomSubset,
    Selection,
)
from lit_condense.sets.selected_set import SelectedSet

RESULTS = ROOT / "results" / "selection_defaults"
HELD_OUT = 0.1
JUDGED = {"0.002": (100, 2), "0.01": (60, 1)}
"""Fraction -> epochs and networks of the evaluation: small sets are cheap to judge and scatter more."""


@dataclass(frozen=True)
class Arm:
    """One choice of settings, and how the table names it."""

    name: str
    selection: Selection
    weighted: bool = False


ARMS = (
    Arm("random", RandomSubset()),
    *(Arm(f"own Hessian, damping {d:g}", AdaCore(d, hessian="sample")) for d in (1e-4, 0.01, 0.1, 0.3, 1.0)),
    *(Arm(f"mean Hessian, damping {d:g}", AdaCore(d, hessian="mean")) for d in (1e-4, 1.0, 10.0)),
    Arm("program", AdaCore(variant="lcmat_program")),
    *(Arm(f"one class, step {s:g}", Glister(s, "class")) for s in (1.0, 128.0)),
    *(Arm(f"all classes, step {s:g}", Glister(s, "all")) for s in (1.0, 16.0, 128.0, 512.0)),
    Arm("program", Glister(1.0, variant="deepcore")),
    Arm("program, mended", Glister(1.0, variant="deepcore_mended")),
    *(Arm(f"regularization {r:g}", GradMatch(r), weighted=True) for r in (1.0, 16384.0)),
    Arm("regularization 1, without weights", GradMatch(1.0)),
    Arm("regularization 16384, without weights", GradMatch(16384.0)),
    Arm("program", GradMatch(variant="deepcore"), weighted=True),
    Arm("weighted", CRAIG(), weighted=True),
    Arm("without weights", CRAIG()),
    Arm("program", CRAIG("deepcore"), weighted=True),
    *(Arm(f"rho {rho:g}", LCMatS(rho)) for rho in (0.05, 0.5)),
    Arm("rho 0.05, weighted", LCMatS(0.05, weighted=True), weighted=True),
    Arm("program", LCMatS(variant="lcmat_program")),
    Arm("nearest to the mean", Herding()),
    Arm("program: farthest", Herding("deepcore")),
    Arm("random start", KCenterGreedy("random")),
    Arm("medoid start", KCenterGreedy("medoid")),
)


def main(fractions: list[str]) -> None:
    """Measure what is not measured yet."""
    data = ImageFolder(root=str(ROOT / "data" / "cifar10"), normalization="dc", held_out=HELD_OUT)
    for fraction in fractions:
        for arm in ARMS:
            measure(arm, fraction, data)


def measure(arm: Arm, fraction: str, data: CondenseDataModule) -> None:
    """Select, judge on the held-out images and keep one record, unless it is there."""
    path = RESULTS / f"cifar10_{fraction}.json"
    epochs, networks = JUDGED[fraction]
    module = selected_set(arm.selection, float(fraction), 0, arm.weighted, epochs, networks)
    identity = {"method": type(arm.selection).__name__, "arm": arm.name, **described(module)}
    records = read(path)
    if any(is_same(record, identity) for record in records):
        return
    found = outcome(module, data)
    record = {**identity, "held_out": HELD_OUT, "right": right(module, data, found["indices"]), **found}
    others = [one for one in records if (one["method"], one["arm"]) != (identity["method"], arm.name)]
    write(path, [*others, record])
    print(fraction, identity["method"], arm.name, record["accuracies"], record["right"], flush=True)


def right(module: SelectedSet, data: CondenseDataModule, indices: list[int]) -> float:
    """Return the share of the chosen images that the proxy model is right about."""
    chosen = torch.tensor(indices)
    logits = looked_through(module, data, chosen).logits
    return float((logits.argmax(1) == data.real.labels_at(chosen)).float().mean())


if __name__ == "__main__":
    main(sys.argv[1:2] or list(FRACTIONS))
