"""Experts as a run of their own: a LightningModule that trains networks on the real images and records them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_condense.augmentation import Augmentation, OneOf
from lit_condense.data.module import CondenseDataModule, datamodule_of
from lit_condense.data.sizes import check_enough_classes
from lit_condense.engine import Engine
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward, Mode
from lit_condense.errors import CheckpointError, ExportError, SettingsError, check_choice, is_count
from lit_condense.evaluation.protocols import Recipe
from lit_condense.evaluation.several import Strategy, chosen_strategy, draws, in_threads
from lit_condense.evaluation.training import batches_of
from lit_condense.experts.description import describe
from lit_condense.experts.file import Layout, Storage
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.networks import ConvNet, NetworkFactory, build_network, network_name
from lit_condense.recording.folder import RecordedFolder
from lit_condense.recording.schedule import steps_of_run
from lit_condense.recording.training import Slot
from lit_condense.recording.writer import DryRecording, Recording
from lit_condense.rng import RandomKey, run_seed
from lit_condense.runs.checkpointing import is_dry
from lit_condense.runs.files import check_writable
from lit_condense.runs.module import RunModule
from lit_condense.runs.outputs import run_folder
from lit_condense.runs.trainer import Intervals, check_validations
from lit_condense.settings import Plain, settings_of
from lit_condense.sharding import Share

EXPERTS_OPTIMIZER = partial(torch.optim.SGD, lr=0.01)
"""Of the published experts (Cazenavette et al., CVPR 2022): no momentum, no weight decay, a constant rate."""


class ExpertTrajectories(RunModule):
    """Train experts on the real images and record their weights before training and after every epoch.

    One file an expert (:class:`lit_condense.experts.ExpertFile`) goes into the run's folder, and a card of what all
    have in common. A training step is one step of as many experts as are trained at a time: each on a core, or one
    after the other where compiling or a GPU makes that faster. Processes share the experts out. What is recorded is
    never recorded again: the same run goes on at the epoch where it was stopped or killed, and with a larger number of
    experts it adds the others.

    Args:
        network: Architecture.
        experts: How many.
        epochs: Passes over the training split; matching reads as many as its last start epoch and its length need.
        batch_size: Images in a step.
        optimizer: Of an expert; default: SGD with learning rate 0.01. FTD's flat experts: ``lit_condense.optim.GSAM``.
        augmentation: Drawn for each image; default: DSA's.
        storage: How a weight is kept: ``float32``, or ``bfloat16`` in half of the room.
        folder: Where they go; by default the run's folder.
        engine: Of its settings, precision and compilation count; default: fast.
        seed: Seed of every draw; by default the one given to ``seed_everything``, else 0.
    """

    leaves_a_set: ClassVar[bool] = False

    def __init__(
        self,
        network: NetworkFactory = ConvNet,
        experts: int = 100,
        *,
        epochs: int = 50,
        batch_size: int = 256,
        optimizer: OptimizerCallable | None = None,
        augmentation: Augmentation | None = None,
        storage: Storage = "float32",
        folder: str | None = None,
        engine: Engine | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("experts", experts), ("epochs", epochs), ("batch_size", batch_size)):
            if not is_count(value):
                raise SettingsError(f"Expected ExpertTrajectories.{name} to be a whole number from 1, got {value!r}.")
        check_choice("ExpertTrajectories.storage", storage, Storage)
        self.automatic_optimization = False
        self.network = network
        self.experts = experts
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer or EXPERTS_OPTIMIZER
        self.augmentation = augmentation or OneOf()
        self.storage: Storage = storage
        self.folder = folder
        self.engine = engine or Engine()
        self.seed = run_seed(seed)
        # Lightning wants an optimizer, whose steps it counts, and DDP a parameter. Experts are no parameters of the
        # run, because every process trains its own.
        self.steps_taken = nn.Parameter(torch.zeros(1))
        self._held = ExitStack()
        self._strategy: Strategy = "alone"
        self._slots: list[Slot] = []
        self._pending: Iterator[int] = iter(())
        self._busy: dict[int, Slot] = {}

    @classmethod
    def intervals(cls, max_steps: int) -> Intervals:
        """Return what is never used: epochs are recorded, and there is nothing to evaluate."""
        return Intervals(1000, 1000)

    # ---------------------------------------------------------------- what is recorded

    @property
    def data(self) -> CondenseDataModule:
        """The trainer's data module."""
        return datamodule_of(self.trainer)

    @property
    def recipe(self) -> Recipe:
        """How an expert is trained."""
        return Recipe(self.epochs, (), 1.0, False, self.augmentation, self.batch_size)

    def description(self) -> Plain:
        """Return all that the weights of the experts depend on, but for their number, as plain data."""
        training = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer": settings_of(self.optimizer),
            "augmentation": settings_of(self.augmentation),
            "arithmetic": "bfloat16" if self._mode == "fast" else "float32",
        }
        described = describe(self.data.real, self.network)
        described["data"]["dataset"] = self.data.dataset_name
        return {**described, "training": training, "seed": self.seed, "storage": self.storage}

    @property
    def _compiled(self) -> bool:
        """Whether steps are compiled: decided by the work of one expert, so that their number changes nothing."""
        return self._strategy == "compiled"

    @property
    def _mode(self) -> Mode:
        return self.engine.mode_on(self.trainer.strategy.root_device) if self._compiled else "exact"

    def _chosen_strategy(self) -> Strategy:
        """Return how experts are trained; called where the images are delivered on the device of the run."""
        real, compile = self.data.real, self.engine.compile
        images = real.at(torch.arange(min(self.batch_size, len(real))))
        strategy = chosen_strategy(self.build, images, self.epochs * batches_of(real, self.recipe), 1)
        if compile == "always" or (compile == "never" and strategy == "compiled"):
            return "compiled" if compile == "always" else "alone"
        if strategy == "alone" and images.device.type == "cpu" and not draws(self.build(self.key_of(0)), images):
            return "threads"
        return strategy

    def key_of(self, expert: int) -> RandomKey:
        """Return the key of an expert: it depends on the seed and its number alone."""
        return RandomKey(self.seed).fold("expert", expert)

    def build(self, key: RandomKey) -> nn.Module:
        """Return a fresh network where the images are delivered."""
        channels, height, width = self.data.real.image_shape
        classes = self.data.real.num_classes
        return build_network(self.network, channels, (height, width), classes, key).to(self.data.real.device)

    # ---------------------------------------------------------------- life cycle

    def setup(self, stage: str) -> None:
        """Check the settings against the data, and the folder against the settings.

        Raises:
            SettingsError: The folder holds experts that were recorded with other settings.
        """
        fn = getattr(stage, "value", stage)
        if fn != "fit":
            raise SettingsError(
                f"Expected fit for ExpertTrajectories, got {fn}: experts are recorded, and that is all."
            )
        check_validations(self.trainer)
        self.trainer.limit_val_batches = 0  # there is no set to evaluate
        check_enough_classes(self.data.real)
        if self.trainer.precision != "32-true":
            raise SettingsError(
                f"Expected trainer.precision 32-true for experts, got {self.trainer.precision}. Leave it out; "
                "model.engine.mode decides."
            )
        self.data.to(self.trainer.strategy.root_device)
        self._strategy = self._chosen_strategy()
        weights = sum(p.numel() for p in trainable_parameters(self.build(self.key_of(0))).values())
        layout = Layout(self.epochs, weights, self.storage)
        place = run_folder(self.trainer, self.trainer.log_dir)
        self.recorded = RecordedFolder(Path(self.folder) if self.folder else place, self.description(), layout)
        self.recorded.insist_on_same_settings()
        if self.trainer.is_global_zero and not is_dry(self.trainer):
            check_writable(self.recorded.path)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer of nothing: the trainer's global step counts its steps."""
        return torch.optim.SGD([self.steps_taken], lr=0.0)

    def on_fit_start(self) -> None:
        """Say what is to be recorded, and how long the run is."""
        share = Share.of(self.trainer)
        left = [self.recorded.epochs_left(expert) for expert in range(self.experts)]
        *epochs_left, at_once = self._agreed([*left, self._at_once], share)
        pending = [expert for expert, epochs in enumerate(epochs_left) if epochs]
        self._announce(pending)
        if self.trainer.is_global_zero and not is_dry(self.trainer):
            self._held.enter_context(self.recorded.alone())
            self.recorded.write_card(self.experts)
        self._slots = [self._slot() for _ in range(min(at_once, max(1, len(pending))))]
        self._pending, self._busy = iter(share.take(pending)), {}
        work = [Share(rank, share.world_size).take(pending) for rank in range(share.world_size)]
        epochs = steps_of_run([[epochs_left[expert] for expert in experts] for experts in work], len(self._slots))
        steps, given = epochs * batches_of(self.data.real, self.recipe), self.trainer.max_steps
        self.trainer.fit_loop.epoch_loop.max_steps = steps if given < 0 else min(given, steps)

    def _agreed(self, numbers: list[int], share: Share) -> list[int]:
        """Return what the first process found, in the folder and of its cores: all must share out the same work."""
        found = torch.tensor(numbers, device=self.device)
        share.broadcast([found])
        return cast(list[int], found.tolist())

    @property
    def _at_once(self) -> int:
        return torch.get_num_threads() if self._strategy == "threads" else 1

    def _slot(self) -> Slot:
        network, data = self.build(self.key_of(0)).train(), self.data
        forward = Forward(network, self._mode)
        loss = FirstOrderLoss(forward, self._compiled, recorded=self._strategy == "recorded" and self.engine.record)
        # several at a time are networks that do not draw
        return Slot(network, loss, self.optimizer, self.recipe, data.real, data.test, self._strategy != "threads")

    def _announce(self, pending: list[int]) -> None:
        """Say what will be recorded where, and refuse a disk that has no room for it."""
        layout, path = self.recorded.layout, self.recorded.path
        mega = self.experts * layout.file_bytes / 1e6
        rank_zero_info(
            f"Recording {self.experts} expert(s) x {self.epochs} epoch(s) of {network_name(self.network)} "
            f"({layout.weights:,} weights) on {self.data.dataset_name}: {mega:,.0f} MB in {path}; "
            f"{self.experts - len(pending)} are there, {self._at_once} at a time ({self._strategy})."
        )
        needed, free = len(pending) * layout.file_bytes, shutil.disk_usage(path).free if path.is_dir() else math.inf
        if needed > free:
            raise ExportError(
                f"Expected {needed / 1e6:,.0f} MB of room for experts in {path}, got {free / 1e6:,.0f} MB. Make room, "
                "or record fewer epochs, or with storage: bfloat16."
            )

    def teardown(self, stage: str) -> None:
        """Let go of the folder, and of the networks."""
        self._held.close()
        self._slots, self._busy = [], {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint.

        Raises:
            CheckpointError: Always: experts go on with what is in their folder.
        """
        raise CheckpointError("Expected no checkpoint for ExpertTrajectories: it goes on with what is in its folder.")

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Do nothing: there is no set to evaluate."""

    # ---------------------------------------------------------------- training

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Take a step of each expert that is in training; those that are done make room for the next ones."""
        self._fill_slots()
        at_work = list(self._busy.values())
        if at_work:  # another process may have more to do than this one
            found = self._stepped(at_work)
            loss, accuracy = torch.stack(found).mean(0)
            self.log_dict({"train/loss": loss, "train/acc": accuracy}, prog_bar=True)
        self._busy = {expert: slot for expert, slot in self._busy.items() if not slot.done}
        cast(Any, self.optimizers()).step()

    def _stepped(self, slots: Sequence[Slot]) -> list[Tensor]:
        if len(self._slots) > 1:
            return in_threads(lambda i: slots[i].step(), len(slots))
        return [slots[0].step()]

    def _fill_slots(self) -> None:
        for slot in self._slots:
            if slot in self._busy.values():
                continue
            expert = next(self._pending, None)
            if expert is None:
                return
            key = self.key_of(expert)
            kind = DryRecording if is_dry(self.trainer) else Recording
            slot.take(expert, key, self.build(key.fold("network")), self.recorded.recording(expert, kind))
            self._busy[expert] = slot
