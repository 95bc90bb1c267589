"""What every small training set has in common, condensed or selected: it is evaluated by training fresh networks."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_condense.data import CondenseDataModule
from lit_condense.data.module import datamodule_of
from lit_condense.evaluation import Evaluation, Judge, SmallSet
from lit_condense.evaluation.baselines import Baselines
from lit_condense.networks import NetworkFactory, network_name
from lit_condense.parametrization import Parametrization, Pixels
from lit_condense.rng import RandomKey, run_seed
from lit_condense.runs.checkpointing import is_dry, save_last
from lit_condense.selection import Scoring, Selection
from lit_condense.selection.task import ScoringTask
from lit_condense.sets import loading, meaning
from lit_condense.settings import Plain, settings_of
from lit_condense.sharding import Share
from lit_condense.trial import evaluations as trial

if TYPE_CHECKING:
    from typing_extensions import Self


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
    held: ClassVar[tuple[str, ...]]
    """Names in the ``state_dict`` of what the set consists of; they take the size of what is loaded."""

    def __init__(self, network: NetworkFactory, evaluation: Evaluation | None, seed: int | None) -> None:
        super().__init__()
        self.network = network
        self.evaluation = evaluation or Evaluation()
        self.seed = run_seed(seed)
        self.key = RandomKey(self.seed)
        self._accuracies: dict[int, float] = {}
        self._seconds = 0.0
        self._counts: list[int] = []
        self._updates = 0
        self._origin: Plain | None = None
        self._kept_step: int | None = None

    @abstractmethod
    def training_set(self) -> SmallSet:
        """Return what networks are trained on: normalised float32 images and their labels, detached.

        Where the real images are delivered, which after a fit is not where Lightning has put the module.
        """

    def start_set(self) -> SmallSet | None:
        """Return the set before its first update, as :meth:`training_set` does; None where it had no such time."""
        return None

    @property
    def storage(self) -> Parametrization:
        """How images are stored; by default as they are."""
        return Pixels()

    @property
    def counts(self) -> list[int]:
        """Stored images of each class."""
        return self._counts

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
        names = ("dataset", "train", "normalization", "image_shape", "class_names")
        return {"model": own, "data": {name: data[name] for name in names}}

    @property
    def made_with(self) -> Plain:
        """The settings of the run that made the set: of this one, or as the checkpoint says."""
        return self.settings() if self._origin is None else self._origin["settings"]

    def meaning(self) -> Plain:
        """Return what decides the meaning of the images, as plain data."""
        return {"data": meaning.of_data(self.data.describe())}

    @property
    def data(self) -> CondenseDataModule:
        """The data module in use."""
        return datamodule_of(self.trainer)

    @property
    def updates_done(self) -> int:
        """Image updates behind the set, in whichever runs and processes they were done."""
        return self._updates

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

    @property
    def share(self) -> Share:
        """This process's place in the run."""
        return Share.of(self.trainer)

    def judge(self) -> Judge:
        """Return the evaluation bound to this run's data and seed."""
        return Judge(self.evaluation, self.data.test, self.data.dataset_name, self.key, self.data.test.device)

    @property
    def baselines(self) -> Baselines:
        """The real images that the set is compared with."""
        return Baselines(self.task, self.storage, self.counts, self.evaluation.scoring_of_baselines, self.key)

    @property
    def task(self) -> ScoringTask:
        """What scoring networks are trained on."""
        return ScoringTask(self.data.real, self.network, self.seed)

    @property
    def evaluation_networks(self) -> list[NetworkFactory]:
        """Architectures to evaluate on."""
        return self.evaluation.networks or [self.network]

    def try_evaluations(self, counts: Sequence[int]) -> None:
        """Try every network that the set and its baselines will be judged by in the final report.

        Args:
            counts: Images of each class that networks are trained on; or of all classes, where all of them are real.

        Raises:
            SettingsError: A network does not fit.
        """
        baselines = self.baselines
        trial.evaluations(self.judge(), self.evaluation_networks, baselines, counts, self.key)
        self._try_scorings(baselines.scoring, self.evaluation.compared_with, "evaluation.scoring")

    def _try_scorings(self, scoring: Scoring, selections: Sequence[Selection], setting: str) -> None:
        writes = self.trainer.is_global_zero and not is_dry(self.trainer)
        trial.scorings(self.task, scoring, selections, setting, self.key, writes)

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
            trial.tested(self.judge(), self.evaluation_networks, self.data.test, images, self.key)

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

    # ---------------------------------------------------------------- what is kept, and where it comes from

    def get_extra_state(self) -> Plain:
        """Return what belongs to the set beside its tensors: it travels with them, also from process to process."""
        return {"updates": self._updates, "counts": self._counts, "origin": self._origin}

    def set_extra_state(self, state: Plain) -> None:
        """Take over what belongs to a set beside its tensors."""
        self._updates, self._counts, self._origin = state["updates"], state["counts"], state["origin"]

    def _load_from_state_dict(self, state_dict: Plain, prefix: str, *args: Any) -> None:
        """Load; what the set consists of takes the size that was saved: before a run it has none.

        Its type too, as far as a trainer allows it: Lightning makes a run 64-true only after it has loaded.
        """
        any_type = self._trainer is None or self.trainer.precision == "64-true"
        for name in self.held:
            own, saved = getattr(self, name), state_dict.get(prefix + name)
            if isinstance(saved, Tensor):
                dtype = saved.dtype if any_type else own.dtype
                if (own.shape, own.dtype) != (saved.shape, dtype):
                    own.data = torch.empty(saved.shape, dtype=dtype, device=own.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def made_now(self) -> None:
        """Note under which settings the set is made."""
        self._origin = {"settings": self.settings(), "meaning": self.meaning()}

    def check_meaning(self, then: Plain) -> None:
        """Refuse data and settings under which a set made under others would mean something else."""
        stage = self.trainer.state.fn
        deliberate = stage in ("validate", "test") and self.evaluation.other_data and self.checkpoint_holds == "images"
        advice = meaning.OTHER_DATA if stage in ("validate", "test") and self.checkpoint_holds == "images" else ""
        meaning.insist_on_same(then, self.meaning(), not deliberate and stage != "fit", advice)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return the set of a checkpoint as it was made: network, parametrization, evaluation and all else.

        See :mod:`lit_condense.sets.rebuilding` for what a checkpoint may name. Nothing is ever unpickled.

        Args:
            checkpoint_path: A path, a URL, or an open file.
            map_location: Device to load to; the CPU by default.
            hparams_file: Not used: the settings are in the checkpoint.
            strict: Whether the checkpoint must hold just what the set has; by default it must.
            weights_only: Not used: that is all that is ever read.
            kwargs: Arguments of the set in place of those it was made with. The parametrization must read the images
                as they were stored.

        Raises:
            CheckpointError: It is missing, broken, foreign or unsafe, or names something that cannot be made here.
        """
        return loading.load(cls, checkpoint_path, map_location, strict is not False, kwargs)
