"""What every small training set has in common, condensed or selected: it is evaluated by training fresh networks."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_condense import checks, trial
from lit_condense.data import CondenseDataModule
from lit_condense.evaluation import Evaluation, Judge, SmallSet
from lit_condense.networks import NetworkFactory, network_name
from lit_condense.rng import RandomKey, run_seed
from lit_condense.settings import Plain, settings_of
from lit_condense.sharding import Share


class EvaluatedSet(LightningModule):
    """A small training set under ``validate``, ``test`` and ``predict``.

    The validation and test loaders yield network indices. A step trains its fresh network on the set and tests it on
    the whole test split, together with the next ones where several at once are faster. Ranks share out the indices.

    Args:
        network: Architecture of the set, which is evaluated on too unless the evaluation lists others.
        evaluation: How the set is judged; default: protocol ``dc``.
        seed: Seed of every draw; by default the one given to ``seed_everything``, else 0.
    """

    words: ClassVar[tuple[str, str, str]]
    """What was done to the set, the doing of it, and what its images are: for reports and logs."""
    checkpoint_format: ClassVar[int]
    """Version of what the set adds to a checkpoint."""
    checkpoint_holds: ClassVar[str]
    """Name in the ``state_dict`` by which a checkpoint of such a set is known."""

    def __init__(self, network: NetworkFactory, evaluation: Evaluation | None, seed: int | None) -> None:
        super().__init__()
        self.network = network
        self.evaluation = evaluation or Evaluation()
        self.seed = run_seed(seed)
        self.key = RandomKey(self.seed)
        self._accuracies: dict[int, float] = {}
        self._seconds = 0.0
        self._loaded_updates = 0

    @abstractmethod
    def training_set(self) -> SmallSet:
        """Return what networks are trained on: normalised float32 images and their labels, detached.

        Where the real images are delivered, which after a fit is not where Lightning has put the module.
        """

    @property
    @abstractmethod
    def counts(self) -> list[int]:
        """Stored images of each class."""

    @property
    def unfinished(self) -> str:
        """Why there is nothing to evaluate yet, as a sentence; empty where there is."""
        return ""

    def pixels(self) -> Tensor:
        """Return the images of the training set in [0, 1] pixel space, ``(n, C, H, W)``."""
        return self.data.real.normalization.denormalize(self.training_set().images)

    def raw(self) -> Tensor:
        """Return the images as they are stored."""
        return self.training_set().images

    def stored(self) -> Tensor | None:
        """Return what is stored, where that is not simply the images."""
        return None

    def weights_of_images(self) -> Tensor | None:
        """Return how much each image stands for, ``(n,)`` on the CPU, where that was found out."""
        return None

    def particulars(self) -> Plain:
        """Return what the card of such a set says beyond what all cards say."""
        return {}

    def settings(self) -> Plain:
        """Return what decides the result of a run, as plain data: not the trainer, not the evaluation."""
        own = settings_of(self)["init_args"]
        del own["evaluation"]
        data = self.data.describe()
        names = ("dataset", "train", "normalization", "image_shape")
        return {"model": own, "data": {name: data[name] for name in names}}

    @property
    def data(self) -> CondenseDataModule:
        """The data module in use."""
        return checks.datamodule_of(self.trainer)

    @property
    def updates_done(self) -> int:
        """Image updates behind the set: the trainer's, or those of the checkpoint it was loaded from."""
        return max(self.trainer.global_step, self._loaded_updates)

    @property
    def share(self) -> Share:
        """This process's place in the run."""
        return Share.of(self.trainer)

    def judge(self) -> Judge:
        """Return the evaluation bound to this run's data and seed."""
        return Judge(self.evaluation, self.data.test, self.data.dataset_name, self.key, self.data.test.device)

    @property
    def evaluation_networks(self) -> list[NetworkFactory]:
        """Architectures to evaluate on."""
        return self.evaluation.networks or [self.network]

    def evaluation_indices(self, stage: Literal["validate", "test"]) -> range:
        """Return the indices of the evaluation networks that this rank trains."""
        total = self.evaluation.quick_repeats
        if stage == "test":
            total = self.evaluation.repeats * len(self.evaluation_networks)
        return range(self.share.rank, total, self.share.world_size)

    def on_validation_start(self) -> None:
        """Bring the data to the device."""
        self.data.to(self.device)
        self._accuracies, self._seconds = {}, 0.0

    def on_test_start(self) -> None:
        """Bring the data to the device, and try the networks where several architectures wait for their turn."""
        self.on_validation_start()
        if len(self.evaluation_networks) > 1:
            trial.tested(self)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Train a fresh network of the first architecture on the set and test it."""
        if not self.trainer.sanity_checking:
            self._judge(int(batch), self.evaluation.quick_repeats, self.trainer.num_val_batches[0] - batch_idx)

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Train a fresh network on the set and test it; indices run through the architectures one by one."""
        self._judge(int(batch), self.evaluation.repeats, self.trainer.num_test_batches[0] - batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the mean accuracy over the fresh networks and its spread."""
        if not self.trainer.sanity_checking:
            self._log_accuracies("val", self.evaluation.quick_repeats, 1)

    def on_test_epoch_end(self) -> None:
        """Log mean and spread of the accuracy for each architecture."""
        self._log_accuracies("test", self.evaluation.repeats, len(self.evaluation_networks))

    def predict_step(self, batch: int, batch_idx: int) -> dict[str, Tensor]:
        """Return the decoded set: images in [0, 1] pixel space ``(n, C, H, W)`` and labels ``(n,)``."""
        return {"images": self.pixels(), "labels": self.training_set().labels}

    def _judge(self, index: int, repeats: int, batches_left: float) -> None:
        """Train and test network ``index``, together with those that this rank is asked for next."""
        if index in self._accuracies:  # with an earlier one
            return
        started = time.perf_counter()
        architecture, first = divmod(index, repeats)
        current, factory = self.training_set(), self.evaluation_networks[architecture]
        mine = range(first, repeats, self.share.world_size)[: int(min(batches_left, repeats))]
        found = self.judge().first_accuracies(factory, mine, current, repeats)
        self._accuracies |= {architecture * repeats + i: value for i, value in zip(mine, found, strict=False)}
        self._seconds += time.perf_counter() - started

    def _log_accuracies(self, prefix: str, repeats: int, architectures: int) -> None:
        mine = torch.zeros(2, repeats * architectures)
        for index, accuracy in self._accuracies.items():
            mine[:, index] = torch.tensor([accuracy, 1.0])
        accuracies, trained = self.share.sum(mine.to(self.device))
        # summed here and not by the logger: a rank without a network logs too
        self.log("time/eval", self.share.sum(torch.tensor(self._seconds, device=self.device)))
        for a, factory in enumerate(self.evaluation_networks[:architectures]):
            part = slice(a * repeats, (a + 1) * repeats)
            values = accuracies[part][trained[part] > 0]
            if len(values) == 0:  # limit_val_batches or limit_test_batches left this architecture out
                continue
            if a == 0:
                self.log(f"{prefix}/acc", values.mean(), prog_bar=prefix == "val")
                # sample spread, divisor N - 1; none for one network
                self.log(f"{prefix}/acc_std", values.std() if len(values) > 1 else values.new_zeros(()))
            if architectures > 1:
                self.log(f"{prefix}/acc/{network_name(factory)}", values.mean())
