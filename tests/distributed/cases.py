"""Runs that must end alike on any number of processes: what a run is, and what is kept of it."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn

from lit_condense.augmentation import AlwaysOn, OneOf
from lit_condense.engine import Engine
from lit_condense.errors import NonFiniteError
from lit_condense.evaluation import Evaluation
from lit_condense.init import Clustered
from lit_condense.inner import (
    DecreasingTraining,
    FreshNetwork,
    Pool,
    TrainOnReal,
    TrainOnSynthetic,
    TrainUntilOverfitting,
)
from lit_condense.matching import (
    ClassAwareCrossEntropy,
    ClassMeanGradientMatching,
    ContrastiveGradientMatching,
    CurvatureMatching,
    FeatureMatching,
    GradientMatching,
    TrajectoryMatching,
    WarmUpGradientMatching,
)
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.sampling import Importance, RandomSampling, Representative
from lit_condense.sets.report import Report
from lit_condense.synthetic import Learnables
from tests.helpers import Poisoned, Recorder, TinyData, fitted, tiny_convnet
from tests.inner.several import ByAccuracy, TwoOfThree
from tests.recording.helpers import written
from tests.synthetic.whole_losses import SharedTrained, Trained

BATCH_NORM = tiny_convnet("batch")
EVALUATED = {"limit_val_batches": None, "val_check_interval": 2}
SKIPPED = (1, 3)
FIVE, TWO, LARGE = (9, 7, 9, 4, 9), (9, 4), (20, 17, 20, 8, 14)
"""Training images of each class. No count of classes is a multiple of 2 and of 3; batches hold 6 images."""


class Dropping(nn.Module):
    """A foreign network whose forward pass draws from the global generators."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        pixels = in_channels * image_size[0] * image_size[1]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.Dropout(0.5), nn.Linear(8, num_classes))

    def forward(self, images):
        return self.layers(images)


def case(*losses, sizes=FIVE, max_steps=4, trainer=None, **settings):
    """A run as ``fitted`` takes it."""
    return {
        "callbacks": list(losses or [GradientMatching()]),
        "sizes": sizes,
        "max_steps": max_steps,
        "trainer": trainer or {},
        "settings": settings,
    }


def two_levels():
    return [
        GradientMatching("row_cosine_norm", name="intra"),
        ClassMeanGradientMatching("row_cosine_norm", name="inter"),
    ]


def learnables():
    return Learnables(label_lr=0.1, inner_lr=0.05, inner_lr_rate=0.001)


def everything():
    return [*two_levels(), CurvatureMatching(), FeatureMatching(joint=True, weight=0.01)]


def trajectory_matching(**settings):
    """Three segments an update, which 2 processes cannot share evenly. Each process writes the same experts."""
    folder = written(Path(tempfile.gettempdir()) / f"lit_condense_experts_{os.getpid()}", TinyData(FIVE))
    matched = {"max_start_epoch": 2, "steps": 3, "batch_size": 6, "segments_per_update": 3, **settings}
    return TrajectoryMatching(experts=folder, **matched)


def dream(**settings):
    return case(
        GradientMatching("l1"),
        sizes=LARGE,
        max_steps=6,
        **{
            "sampling": Representative(6, interval=2, subset=12),
            "inner": TrainOnReal(4, images=16, batch_size=8),
            **settings,
        },
    )


CASES = {
    # what is matched
    "class": lambda: case(),
    "two classes": lambda: case(sizes=TWO),
    "mean": lambda: case(*two_levels()),
    "mean, two classes": lambda: case(*two_levels(), sizes=TWO),
    "mean, no warm-up of means": lambda: case(ClassMeanGradientMatching()),
    "contrastive": lambda: case(
        WarmUpGradientMatching(warm_up_networks=1, warm_up_matches=1), ContrastiveGradientMatching(1, 1)
    ),
    "curvature": lambda: case(GradientMatching(), CurvatureMatching()),
    "features": lambda: case(FeatureMatching(), inner=FreshNetwork()),
    "set": lambda: case(FeatureMatching(joint=True), network=BATCH_NORM, inner=FreshNetwork()),
    "set, two classes": lambda: case(FeatureMatching(joint=True), sizes=TWO, inner=FreshNetwork()),
    "everything": lambda: case(*everything(), engine=Engine(classes_per_block=2)),
    "everything, two classes": lambda: case(*everything(), sizes=TWO),
    "whole": lambda: case(Trained(weight=0.1), GradientMatching(), learnables=learnables()),
    "whole, shared": lambda: case(SharedTrained(), learnables=learnables(), parametrization=MultiFormation(2)),
    "trajectories": lambda: case(trajectory_matching(), learnables=learnables(), inner=FreshNetwork()),
    "trajectories, in constant memory": lambda: case(
        trajectory_matching(unroll="constant_memory", batch_size=None, threshold=2.0),
        learnables=learnables(),
        augmentation=OneOf(),
    ),
    # after inner training
    "momentum": lambda: case(inner=TrainOnSynthetic(4, epochs=2, momentum=0.9, weight_decay=0.01)),
    "decreasing": lambda: case(inner=DecreasingTraining(4, opening=(3, 2))),
    "until over-fitting": lambda: case(inner=TrainUntilOverfitting(4, most_epochs=5, held_out=8), max_steps=6),
    "real": lambda: case(inner=TrainOnReal(4, images=16, batch_size=8, early=1)),
    "real, in epochs": lambda: case(
        sampling=RandomSampling(6, batches="epochs"),
        inner=TrainOnReal(4, images=16, batch_size=8, batches="epochs"),
    ),
    "several networks": lambda: case(ByAccuracy(), inner=TwoOfThree(), max_steps=5),
    "pool": lambda: case(
        FeatureMatching(),
        ClassAwareCrossEntropy(),
        inner=Pool(5, 2, matched=2, steps=2, batch_size=8),
        max_steps=6,
        parametrization=MultiFormation(2, "normalized", clamp="never", order="column", shrinking="mean"),
    ),
    "batch norm": lambda: case(network=BATCH_NORM, inner=TrainOnSynthetic(4, epochs=2)),
    "running average": lambda: case(
        network=BATCH_NORM, inner=TrainOnSynthetic(4, epochs=2, batch_norm="running_average")
    ),
    "dropout": lambda: case(*two_levels(), network=Dropping),
    # which images, stored how
    "dream": lambda: dream(),
    "dream, random starts": lambda: dream(
        sampling=Representative(6, interval=2, subset=12, seeding="random"), init=Clustered(seeding="random")
    ),
    "dream, multi-formation": lambda: dream(
        parametrization=MultiFormation(2),
        init=Clustered(),
        augmentation=AlwaysOn(),
        ipc=[1, 1, 2, 1, 1],
        # its gradients are ten times the others': the rate that moves pixels by a tenth, as the others are moved
        optimizer=partial(torch.optim.SGD, lr=0.01),
    ),
    "importance": lambda: case(
        *everything(),
        sizes=LARGE,
        max_steps=6,
        sampling=Importance(8, interval=2),  # one class is used whole
        inner=TrainOnReal(4, images=16, batch_size=8),
        engine=Engine(classes_per_block=2, real_chunk=3),
    ),
    "unequal": lambda: case(ipc=[1, 3, 2, 2, 1], engine=Engine(classes_per_block=3)),
    "blocks of two": lambda: case(*two_levels(), engine=Engine(classes_per_block=2)),
    "one block": lambda: case(engine=Engine(classes_per_block=5)),
    "clamped": lambda: case(parametrization=Pixels("pixel", clamp="every_update"), augmentation=OneOf()),
    # where a gradient is next to nothing, a step of Adam turns its last digits into a part of the rate
    "adam": lambda: case(optimizer=partial(torch.optim.Adam, lr=0.01)),
    # how it is computed
    "exact": lambda: case(*two_levels(), engine=Engine("exact", "never")),
    "exact, compiled": lambda: case(engine=Engine("exact", "always")),
    "fast": lambda: case(*two_levels(), engine=Engine("fast", "always")),
    # what is not finite: on one rank only, the one that owns class 1
    "skipped": lambda: case(*two_levels(), Poisoned(SKIPPED), non_finite="skip"),
    "skipped for its slope": lambda: case(GradientMatching(), Poisoned(SKIPPED, "slope"), non_finite="skip"),
    "stopped": lambda: case(*two_levels(), Poisoned((2,), "slope", name="bad")),
    # how it is judged: three networks are no multiple of two
    "evaluated": lambda: case(trainer=EVALUATED, evaluation=Evaluation(epochs=3, quick_repeats=3, repeats=5)),
}


class Gradients(Callback):
    """Writes down the image gradient that the optimizer is given."""

    def __init__(self):
        self.gradients = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradient = pl_module.images.grad  # none in an update that is skipped
        self.gradients.append(torch.zeros_like(pl_module.images) if gradient is None else gradient.clone())


class Scores(Callback):
    """Writes down every validation, and what the final report would say."""

    def __init__(self):
        self.scores = []

    def on_validation_end(self, trainer, pl_module):
        logged = trainer.callback_metrics
        self.scores.append([float(logged["val/acc"]), float(logged["val/acc_std"])])

    def on_fit_end(self, trainer, pl_module):
        report = Report.of(pl_module)
        for score in [*report.condensed, *report.baselines.values()]:
            self.scores.append(list(score.accuracies))


def run(name, **trainer):
    """Run a case under a trainer and return what must be the same on any number of processes."""
    what = CASES[name]()
    images, gradients, scores = Recorder(), Gradients(), Scores()
    callbacks = [*what["callbacks"], images, gradients, *([scores] if what["trainer"] else [])]
    running = {"max_steps": what["max_steps"], "trainer": {**what["trainer"], **trainer}}
    try:
        module = fitted(*callbacks, data=TinyData(what["sizes"]), **running, **what["settings"])
    except NonFiniteError as error:
        return {"images": torch.stack(images.images), "stopped": str(error)}
    if what["trainer"]:
        module.trainer.test(module, datamodule=module.trainer.datamodule, verbose=False)
        scores.scores.append([float(module.trainer.callback_metrics[f"test/{tag}"]) for tag in ("acc", "acc_std")])
    logged = {
        name: float(v)
        for name, v in module.trainer.callback_metrics.items()
        if name.startswith(("loss/", "set/", "skipped"))
    }
    return {
        "images": torch.stack(images.images),
        "gradients": torch.stack(gradients.gradients),
        "leaves": {name: leaf.detach().clone() for name, leaf in module.synthetic_data.leaves().items()},
        "scores": scores.scores,
        "logged": logged,
        "world_size": module.trainer.world_size,
    }
