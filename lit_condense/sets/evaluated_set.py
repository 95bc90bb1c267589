"""A small training set is evaluated by training fresh networks on it: in a trainer's stages, and in plain Python."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_condense.data import CondenseDataModule
from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.export import save_condensed, write_grid
from lit_condense.export.images import GRID_NAME, check_set_replaceable
from lit_condense.networks import NetworkFactory, network_name
from lit_condense.runs.checkpointing import is_dry, save_last
from lit_condense.selection import ProxyTraining, Selection
from lit_condense.sets import meaning
from lit_condense.sets.base import SmallTrainingSet
from lit_condense.sets.card import condensed_from
from lit_condense.sets.report import Report
from lit_condense.settings import Plain
from lit_condense.trial import evaluations as trial


class EvaluatedSet(SmallTrainingSet):
    """A small training set under ``validate``, ``test`` and ``predict``, and ``evaluate`` and ``save``.

    The validation and test loaders yield network indices. A step trains its fresh network on the set and tests it on
    the whole test split, together with the next ones where several at once are faster. Ranks share out the indices.
    """

    def __init__(self, network: NetworkFactory, evaluation: Evaluation | None, seed: int | None) -> None:
        super().__init__(network, evaluation, seed)
        self._accuracies: dict[int, float] = {}
        self._seconds = 0.0
        self._kept_step: int | None = None

    def evaluate(self, datamodule: CondenseDataModule | None = None) -> Report:
        """Train fresh networks on the set, on its start and on its baselines, and test them on the whole test split.

        What the evaluation of the set says is done (:class:`~lit_condense.evaluation.Evaluation`), on the device where
        the data are. In a run on several devices every process has to call it.

        Args:
            datamodule: The data; by default those of the trainer that the set was made with.

        Raises:
            CheckpointError: The set means something else with these data.
        """
        with self._using(datamodule):
            self._insist_on_finished()
            return Report.of(self)

    def save(self, folder: str | Path, report: Report | None = None, record: Plain | None = None) -> list[Path]:
        """Write ``condensed.safetensors``, ``card.json`` and ``grid.png`` with further pages, and return their paths.

        Args:
            folder: Where to. What this program did not write is never replaced.
            report: What :meth:`evaluate` returned, for the card.
            record: More for the card.

        Raises:
            ExportError: The folder cannot be written to, or holds files of these names that are not ours.
        """
        self._insist_on_finished()
        evaluation = None if report is None else report.as_plain()
        condensed = condensed_from(self, {"evaluation": evaluation, **(record or {})})
        check_set_replaceable(Path(folder))
        paths = list(save_condensed(folder, condensed).values())
        grid = Path(folder) / GRID_NAME
        return [*paths, *write_grid(grid, condensed.images, condensed.labels, self.data.class_names)]

    def _insist_on_finished(self) -> None:
        if self.unfinished:
            raise SettingsError(f"Expected a set to evaluate and to save, there is none yet: {self.unfinished}")

    @contextmanager
    def _using(self, datamodule: CondenseDataModule | None) -> Iterator[None]:
        """Attach data in plain Python, for good where the set has no trainer."""
        own = datamodule is None or (self._trainer is not None and datamodule is self.trainer.datamodule)  # type: ignore[attr-defined]
        before = self._data
        try:
            if not own and datamodule is not None:
                self._data = datamodule
                datamodule.prepare_data()
                datamodule.setup("test")
            if self._origin is not None:  # the trainer's data too: it may have been refused with them
                now = self.meaning()
                meaning.insist_on_same(self._origin["meaning"], now, not self.evaluation.other_data, meaning.OTHER_DATA)
            yield
        finally:
            if self._trainer is not None:
                self._data = before

    def keep_last(self) -> None:
        """Write ``last.ckpt`` of this update, unless it is written."""
        if self._kept_step != self.trainer.global_step:
            save_last(self.trainer, unless_saved=True)
            self._kept_step = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Write ``last.ckpt`` of the update that ends the run, whatever the checkpoint callback's interval is."""
        if self.trainer.should_stop or self.trainer.global_step == self.trainer.max_steps:
            self.keep_last()

    def on_train_start(self) -> None:
        """Forget what another run kept."""
        self._kept_step = None

    def teardown(self, stage: str) -> None:
        """Forget what this run kept."""
        self._kept_step = None

    def on_train_end(self) -> None:
        """Do so too where the run ends for a reason that came after its last update."""
        self.keep_last()

    def try_evaluations(self, counts: Sequence[int]) -> None:
        """Try every network that the set and its baselines will be evaluated by in the final report.

        Args:
            counts: Images of each class that networks are trained on; or of all classes, where all of them are real.

        Raises:
            SettingsError: A network does not fit.
        """
        baselines = self.baselines
        trial.evaluations(self.evaluator(), self.evaluation_networks, baselines, counts, self.key)
        self._try_proxies(baselines.proxy, self.evaluation.compared_with, "evaluation.proxy")

    def _try_proxies(self, proxy: ProxyTraining, selections: Sequence[Selection], setting: str) -> None:
        writes = self.trainer.is_global_zero and not is_dry(self.trainer)
        trial.proxies(self.task, proxy, selections, setting, self.key, writes)

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
            images = len(self.training_set().labels)
            trial.tested(self.evaluator(), self.evaluation_networks, self.data.test, images, self.key)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Train a fresh network of the first architecture on the set and test it."""
        if not self.trainer.sanity_checking:
            self._evaluate(int(batch), self.evaluation.quick_repeats, self.trainer.num_val_batches[0] - batch_idx)

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Train a fresh network on the set and test it; indices run through the architectures one by one."""
        self._evaluate(int(batch), self.evaluation.repeats, self.trainer.num_test_batches[0] - batch_idx)

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

    def _evaluate(self, index: int, repeats: int, batches_left: float) -> None:
        """Train and test network ``index``, together with those that this rank is asked for next."""
        if index in self._accuracies:  # with an earlier one
            return
        started = time.perf_counter()
        architecture, first = divmod(index, repeats)
        current, factory = self.training_set(), self.evaluation_networks[architecture]
        mine = range(first, repeats, self.share.world_size)[: int(min(batches_left, repeats))]
        found = self.evaluator().first_accuracies(factory, mine, current, repeats)
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
