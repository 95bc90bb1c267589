"""Small data, networks and trainers shared by the tests that need a whole run."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SyntheticSet
from lit_condense.data import CondenseDataModule, Splits
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward
from lit_condense.evaluation import Evaluation
from lit_condense.inner import InnerNetwork, TrainOnSynthetic
from lit_condense.matching import GradientMatching, MatchingLoss
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling

TINY_SIZES = (9, 7, 9, 4, 9)
"""Training images of the five classes of TinyData: unequal, one of them smaller than the usual tiny batch of 6."""


class TinyData(CondenseDataModule):
    """Noisy stripes made in memory: class ``c`` is bright in the rows ``r`` with ``r % classes == c``."""

    dataset_name = "tiny"

    def __init__(
        self,
        sizes=TINY_SIZES,
        channels=1,
        image_size=(8, 8),
        normalization="measured",
        classes=None,
        train_limit_per_class=None,
    ):
        self.sizes, self.channels, self.image_size = sizes, channels, image_size
        super().__init__(normalization, classes, train_limit_per_class=train_limit_per_class)

    def load(self):
        names = tuple(f"stripe {c}" for c in range(len(self.sizes)))
        test_sizes = [2 + c % 3 for c in range(len(self.sizes))]
        return Splits(*self._split(self.sizes, 0), *self._split(test_sizes, 1), names)

    def _split(self, sizes, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        noise = torch.randint(0, 100, (len(labels), self.channels, *self.image_size), generator=generator)
        bright = torch.arange(self.image_size[0]) % len(sizes) == labels[:, None]
        return (noise + 140 * bright[:, None, :, None]).to(torch.uint8), labels


def tiny_convnet(norm="instance", **settings):
    """A factory of ConvNets small enough for slow oracles; every norm can divide its width."""
    return partial(ConvNet, **{"width": 4, "depth": 2, "norm": norm, **settings})


def fresh_inner_network(loop, real, factory=None, key=RandomKey(1), dtype=torch.float64):  # noqa: B008 - it is frozen
    """The first inner network of a run whose networks ``loop`` trains."""
    inner = InnerNetwork(factory or tiny_convnet(), real, key, loop.optimizer, like=torch.zeros((), dtype=dtype))
    inner.renew(0)
    return inner


class WatchedLoss(FirstOrderLoss):
    """A network's loss, eager; shows each batch that the network is trained on to ``watch(images, labels)``."""

    def __init__(self, network, watch=None):
        super().__init__(Forward(network, "exact"), compiled=False)
        self.watch = watch

    def for_a_step(self, images, labels):
        if self.watch is not None:
            self.watch(images.detach().clone(), labels.clone())
        return super().for_a_step(images, labels)


def quiet_trainer(*callbacks, **settings):
    """A Trainer on one CPU that prints, logs and writes nothing."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "max_steps": 2,
    }
    return Trainer(callbacks=list(callbacks), **{**quiet, **settings})


VALIDATING = {"limit_val_batches": None, "val_check_interval": 1}
"""Settings of a quiet trainer that evaluates after every update."""

DOUBLE = {"precision": "64-true"}


def fitted(*callbacks, max_steps=4, trainer=None, data=None, path=None, **settings):
    """Return a set after a run (two images a class, two updates a network), with its trainer at ``module.trainer``.

    Args:
        callbacks: The trainer's; by default one matching loss.
        max_steps: Image updates.
        trainer: Other settings of the trainer.
        data: The data module, TinyData by default.
        path: A checkpoint to go on from.
        settings: Other settings of the set.
    """
    defaults = {
        "ipc": 2,
        "network": tiny_convnet(),
        "inner": TrainOnSynthetic(updates=2, epochs=2),
        "sampling": RandomSampling(6),
        "evaluation": Evaluation(epochs=3, quick_repeats=2, repeats=2),
        "seed": 3,
    }
    module = SyntheticSet(**{**defaults, **settings})
    running = quiet_trainer(*(callbacks or [GradientMatching()]), max_steps=max_steps, **(trainer or {}))
    running.fit(module, datamodule=data or TinyData(), ckpt_path=path)
    return module


class Recorder(Callback):
    """Writes down the images before the first update and after every one."""

    def __init__(self):
        self.images = []

    def on_train_start(self, trainer, pl_module):
        self.images.append(pl_module.images.detach().clone())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.images.append(pl_module.images.detach().clone())


def resumed(folder, stop, steps, *losses, data=None, **settings):
    """Return the module of a run, and of one that was broken off and went on, whose images are found to be the same.

    Args:
        folder: For checkpoints.
        stop: Updates before the break.
        steps: Updates in all.
        losses: Make the losses.
        data: Makes the data module.
        settings: Make other settings of the set: what has a state must be new in a new process.
    """

    def run(max_steps, name, path=None):
        recorder = Recorder()
        kept = ModelCheckpoint(folder, filename=f"{name}-{{step}}", every_n_train_steps=1, save_top_k=-1)
        module = fitted(
            recorder,
            kept,
            *([make() for make in losses] or [GradientMatching()]),
            max_steps=max_steps,
            trainer={"enable_checkpointing": True},
            data=(data or TinyData)(),
            path=path,
            **{name: make() for name, make in settings.items()},
        )
        return module, recorder.images

    straight, images = run(steps, "straight")
    run(stop, "broken")
    on, later = run(steps, "on", folder / f"broken-step={stop}.ckpt")
    assert torch.equal(torch.stack(images[stop:]), torch.stack(later))
    assert not torch.equal(images[0], images[-1])
    return straight, on


class Emptying(Callback):
    """Empties lists at the first update: what the trial before it wrote down is no part of the run."""

    def __init__(self, *lists):
        self.lists = lists

    def on_train_start(self, trainer, pl_module):
        for written in self.lists:
            written.clear()


class DistanceLoss(MatchingLoss):
    """A matching loss made of any distance function, with any weight over the run."""

    def __init__(self, distance, weight=1.0, name=None, weights=None):
        super().__init__(weight, name)
        self.distance = distance
        self.weights = weights
        self.asked = []

    def weight_at(self, progress):
        self.asked.append((progress.update, progress.network_index, progress.match_index))
        return self.weight if self.weights is None else self.weights(progress)

    def loss(self, real, synthetic):
        return self.distance(real.gradients, synthetic.gradients).sum()


class Poisoned(GradientMatching):
    """A matching loss that goes wrong in some updates: its value for one class, or only its slope.

    Args:
        updates: The updates.
        what: ``nan`` or ``inf`` is the value; ``slope`` leaves the value finite and makes the gradient NaN.
    """

    def __init__(self, updates, what="nan", weight=1.0, name=None):
        super().__init__(weight=weight, name=name)
        self.updates = updates
        self.what = what

    def weight_at(self, progress):
        self.now = progress.update
        return self.weight

    def loss(self, real, synthetic):
        total = super().loss(real, synthetic)
        if self.now not in self.updates or 1 not in synthetic.labels:
            return total
        if self.what == "slope":
            return total + sum((g - g.detach()).square().sum().sqrt() for g in synthetic.gradients.values())
        return total * float(self.what)
