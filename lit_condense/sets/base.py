"""What every small training set has in common: what it is, what it means, where it comes from."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lit_condense.data import CondenseDataModule
from lit_condense.data.module import datamodule_of
from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation, Evaluator, SmallSet
from lit_condense.evaluation.baselines import Baselines
from lit_condense.networks import NetworkFactory
from lit_condense.parametrization import Parametrization, Pixels
from lit_condense.rng import RandomKey, run_seed
from lit_condense.runs.module import RunModule
from lit_condense.selection.task import ProxyTask
from lit_condense.sets import loading, meaning
from lit_condense.settings import Plain, settings_of
from lit_condense.sharding import Share

if TYPE_CHECKING:
    from typing_extensions import Self


class SmallTrainingSet(RunModule):
    """A small training set, under a trainer or in plain Python.

    Args:
        network: Architecture of the set, which is evaluated on too unless the evaluation lists others.
        evaluation: How the set is evaluated; default: protocol ``dc``.
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
        self._counts: list[int] = []
        self._updates = 0
        self._origin: Plain | None = None
        self._data: CondenseDataModule | None = None  # in plain Python, outside of a trainer's run

    @abstractmethod
    def training_set(self) -> SmallSet:
        """Return what networks are trained on: normalised float32 images and their labels, detached.

        Where the real images are delivered, which after a fit is not where Lightning has put the module.
        """

    @abstractmethod
    def held(self) -> dict[str, Tensor]:
        """Return what the set consists of, by its name among the module's tensors: it takes the size that is loaded."""

    def start_set(self) -> SmallSet | None:
        """Return the set before its first update, as :meth:`training_set` does; None where it had no such time."""
        return None

    def averaged_set(self) -> SmallSet | None:
        """Return the set with the average of its images over the updates, where it keeps one."""
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

    def averaged_pixels(self) -> Tensor | None:
        """Return the average of the images in [0, 1] pixel space, on the CPU, where the set keeps one."""
        averaged = self.averaged_set()
        return None if averaged is None else self.data.real.normalization.denormalize(averaged.images).cpu()

    def raw(self) -> Tensor:
        """Return the images as they are stored."""
        return self.training_set().images

    def stored(self) -> Tensor | None:
        """Return what is stored, on the CPU, where images are made from it; :meth:`pixels` may round what it is."""
        return None

    def weights_of_images(self) -> Tensor | None:
        """Return how much each image stands for, ``(n,)`` on the CPU, where that was found out."""
        return None

    def step_size(self) -> float | None:
        """Return the step size to train with, where the set has one."""
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
        """The data module in use: the trainer's, or the one that the set is evaluated with in plain Python."""
        if self._data is None and self._trainer is None:
            raise SettingsError(
                "Expected data for this, the set has none: call evaluate(datamodule) first, or fit it with a trainer."
            )
        return datamodule_of(self.trainer) if self._data is None else self._data

    @property
    def updates_done(self) -> int:
        """Image updates behind the set, in whichever runs and processes they were done."""
        return self._updates

    @property
    def share(self) -> Share:
        """This process's place in the run."""
        return Share() if self._trainer is None else Share.of(self.trainer)

    @property
    def most_updates(self) -> int:
        """Updates after which the run ends; without a run, those behind the set."""
        return self._updates if self._trainer is None else self.trainer.max_steps

    def evaluator(self) -> Evaluator:
        """Return the evaluation bound to this run's data and seed."""
        return Evaluator(self.evaluation, self.data.test, self.data.dataset_name, self.key, self.data.test.device)

    @property
    def baselines(self) -> Baselines:
        """The real images that the set is compared with."""
        return Baselines(self.task, self.storage, self.counts, self.evaluation.proxy_of_baselines, self.key)

    @property
    def task(self) -> ProxyTask:
        """What proxy models are trained on."""
        return ProxyTask(self.data.real, self.network, self.seed)

    @property
    def evaluation_networks(self) -> list[NetworkFactory]:
        """Architectures to evaluate on."""
        return self.evaluation.networks or [self.network]

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
        for name, own in self.held().items():
            saved = state_dict.get(prefix + name)
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
