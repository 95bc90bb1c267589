"""The selected set: a LightningModule that trains proxy models on the real data and keeps some of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_condense.data.sizes import check_enough_classes
from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.evaluation import Evaluation, SmallSet
from lit_condense.networks import NetworkFactory, ResNet18, network_name
from lit_condense.runs import outputs
from lit_condense.runs.checkpointing import is_dry, keep_dry
from lit_condense.runs.files import check_writable
from lit_condense.runs.resuming import insist_on_same_settings, own_part
from lit_condense.runs.trainer import Intervals, check_validations
from lit_condense.selection import Budget, ProxyTraining, Selection, select
from lit_condense.selection.task import History, TrainedNetwork
from lit_condense.sets.evaluated_set import EvaluatedSet
from lit_condense.settings import Plain, settings_of


class SelectedSet(EvaluatedSet):
    """A small training set of real images, chosen by what networks trained on all of them say.

    One training step is one step of a proxy model; the networks are trained one after the other. As soon as the
    last one is trained (in the last step; before the loop where there is nothing to train) the images are selected and
    ``last.ckpt`` is written. ``trainer.max_steps`` can be left out: the steps follow from the data.

    Args:
        selection: The method.
        ipc: Images per class, one number or one for each class; or give ``fraction``.
        fraction: Share of the real images to keep, in (0, 1].
        balanced: Choose inside each class, or among all images at once.
        weighted: Train on the images with the weights that the method gives them: the loss of a batch is
            ``sum(w * l) / sum(w)``.
        network: Architecture of the proxy models, which is evaluated on too unless the evaluation lists others.
        proxy: How the proxy models are trained; default: 10 epochs of SGD.
        evaluation: How the set is evaluated; default: protocol ``coreset``.
        seed: Seed of every draw; by default the one given to ``seed_everything``, else 0.
    """

    words = ("selected", "selecting", "selected")
    checkpoint_format = 3
    checkpoint_holds = "indices"

    indices: Tensor
    """``(k,)`` int64, into the training split, class-major; empty before the selection."""
    weights: Tensor
    """``(k,)`` float32, or empty where the method has none."""

    def __init__(
        self,
        selection: Selection,
        ipc: int | list[int] | None = None,
        *,
        fraction: float | None = None,
        balanced: bool = True,
        weighted: bool = False,
        network: NetworkFactory = ResNet18,
        proxy: ProxyTraining | None = None,
        evaluation: Evaluation | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(network, evaluation or Evaluation(protocol="coreset"), seed)
        self.automatic_optimization = False
        self.budget = Budget(ipc, fraction, balanced)
        if weighted and not selection.weighted:
            raise SettingsError(
                f"Expected a selection with weights for weighted: true, {type(selection).__name__} gives none. Set "
                "weighted: false, or take one that does (CRAIG, GradMatch, or a method with its own weighted: true)."
            )
        self.selection = selection
        self.ipc = ipc
        self.fraction = fraction
        self.balanced = balanced
        self.weighted = weighted
        self.proxy = proxy or ProxyTraining()
        self.register_buffer("indices", torch.empty(0, dtype=torch.int64))
        self.register_buffer("weights", torch.empty(0, dtype=torch.float32))
        # Registered, unlike an inner network: here the network is what Lightning trains, moves, wraps and saves.
        self.proxy_model: nn.Module | None = None
        self.nothing: nn.Parameter | None = None
        self._to_train: list[int] = []
        self._trained: dict[int, TrainedNetwork] = {}
        self._from_cache = 0
        self._history: History | None = None
        self._step_limit: int | None = None

    # ---------------------------------------------------------------- life cycle

    @classmethod
    def intervals(cls, max_steps: int) -> Intervals:
        """Return how often a run saves and evaluates by default: before the selection there is little to evaluate."""
        return Intervals(500, 1000)

    def held(self) -> dict[str, Tensor]:
        """Return what the set consists of, by name."""
        return {"indices": self.indices, "weights": self.weights}

    @property
    def training_steps(self) -> int:
        """Steps of this run: those of every network that is not in the cache."""
        return len(self._to_train) * self.proxy.steps(self.data.real)

    def setup(self, stage: str) -> None:
        """Check the settings against the data; for a fit, find out which networks are to be trained."""
        if self.trainer.precision != "32-true":
            raise SettingsError(
                f"Expected trainer.precision 32-true for a selection, got {self.trainer.precision}. Leave it out."
            )
        check_validations(self.trainer)
        keep_dry(self.trainer)
        check_enough_classes(self.data.real)
        self.budget.groups(self.data.real)
        if stage != "fit" and self._origin is not None:
            self.check_meaning(self._origin["meaning"])
        if stage == "fit":
            outputs.check_checkpoints(self.trainer)
            outputs.announce_missing(self.trainer)
            if self.proxy.cache is not None and self.trainer.is_global_zero and not is_dry(self.trainer):
                check_writable(Path(self.proxy.cache))
            self._hold(torch.empty(0, dtype=torch.int64), torch.empty(0))
            self._updates = 0
            self._plan()
            self.made_now()

    def _plan(self) -> None:
        """Take what is in the cache, if every rank finds it there, and make the network to train the others in."""
        found = {i: self.proxy.ready(self.task, i) for i in range(self.selection.networks)}
        seen = torch.tensor([float(one is not None) for one in found.values()])
        everywhere = self.share.sum(seen.to(self.trainer.strategy.root_device)) == self.share.world_size
        self._trained = {i: one for i, one in found.items() if one is not None and bool(everywhere[i])}
        self._to_train = [i for i in found if i not in self._trained]
        self._from_cache, self._history = len(self._trained), None
        self._make_network()

    def _make_network(self) -> None:
        network = self.proxy.start(self.task, self._to_train[0]) if self._to_train else None
        self.proxy_model = network
        # Lightning wants an optimizer, and DDP a parameter, where there is nothing to train too.
        self.nothing = nn.Parameter(torch.zeros(1)) if network is None else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the proxy model: the trainer's global step counts its steps."""
        if self.proxy_model is None:
            return torch.optim.SGD(self.parameters())
        return self.proxy.optimizer(self.proxy_model)

    def on_fit_start(self) -> None:
        """Say how long the run is, and select at once where nothing is to be trained."""
        self.data.to(self.device)
        self._step_limit = given = self.trainer.max_steps
        steps = self.training_steps
        self.trainer.fit_loop.epoch_loop.max_steps = steps if given < 0 else min(given, steps)
        rank_zero_info(
            f"Selecting {self.budget.total(self.data.real)} of {len(self.data.real)} images of "
            f"{self.data.dataset_name} by {self.selection.tag}: {self.selection.networks} proxy model(s) "
            f"({network_name(self.network)}), {self._from_cache} of them trained before; {self.training_steps} steps."
        )
        self._try_proxies(self.proxy, [self.selection], "proxy")
        counts = [count for _, count in self.budget.groups(self.data.real)]
        self.try_evaluations(counts)
        if self.unfinished and self._select_if_trained():
            self.keep_last()

    def teardown(self, stage: str) -> None:
        """Give the trainer its own limit back."""
        super().teardown(stage)
        if self._step_limit is not None:
            self.trainer.fit_loop.epoch_loop.max_steps, self._step_limit = self._step_limit, None

    # ---------------------------------------------------------------- training and selecting

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Do step ``batch`` of the run: one of the network whose turn it is. After the last one, select."""
        number, step = divmod(int(batch), self.proxy.steps(self.data.real))
        index, network = self._to_train[number], cast(nn.Module, self.proxy_model)
        optimizer = cast(Any, self.optimizers())
        if step == 0:
            network.load_state_dict(self.proxy.start(self.task, index).state_dict())
            optimizer.optimizer.state.clear()
            self._history = History.new(len(self.data.real), self.device)
        history = cast(History, self._history)
        loss, accuracy = self.proxy.step(network, optimizer, history, self.task, index, step, self.manual_backward)
        self._updates += 1
        self.log_dict({"train/loss": loss, "train/acc": accuracy}, prog_bar=True)
        if step + 1 == self.proxy.steps(self.data.real):
            # rank 0's count: float drift between devices must not fork the run
            self.share.broadcast([*network.state_dict().values(), history.forgotten])
            self._trained[index] = self.proxy.trained(network, history, index)
            if self.trainer.is_global_zero and not is_dry(self.trainer):
                self.proxy.keep(self.task, self._trained[index])
            self._select_if_trained()

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Write the selection into ``last.ckpt``, whatever the checkpoint callback's interval is."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if not self.unfinished:
            self.keep_last()

    def _select_if_trained(self) -> bool:
        if len(self._trained) < self.selection.networks:
            return False
        trained = [self._trained[i] for i in range(self.selection.networks)]
        key = self.key.fold("selection")
        chosen = select(self.selection, trained, self.proxy, self.task, self.budget, key, self.share)
        self._hold(chosen.indices, torch.empty(0) if chosen.weights is None else chosen.weights)
        return True

    def _hold(self, indices: Tensor, weights: Tensor) -> None:
        self.indices, self.weights = indices.to(self.device), weights.to(self.device)
        labels = self.data.real.labels_at(self.indices)
        self._counts = torch.bincount(labels, minlength=self.data.real.num_classes).tolist()

    # ---------------------------------------------------------------- what the set holds

    @property
    def unfinished(self) -> str:
        """Why there is no selection yet; empty where there is one."""
        if len(self.indices):
            return ""
        return (
            f"No images are selected yet ({len(self._trained)} of {self.selection.networks} proxy models are "
            "trained). Run fit to its end, from a checkpoint with --ckpt_path last."
        )

    def training_set(self) -> SmallSet:
        """Return the selected images, normalised, with their labels, and with weights where they are trained with.

        Raises:
            CheckpointError: Nothing is selected yet.
        """
        if self.unfinished:
            raise CheckpointError(self.unfinished)
        real = self.data.real
        weights = self.weights.to(real.device) if self.weighted else None
        return SmallSet(real.at(self.indices), real.labels_at(self.indices), weights)

    def pixels(self) -> Tensor:
        """Return the images as they are in the data, in [0, 1]: not even rounded by normalising them."""
        return self.data.real.pixels_at(self.indices)

    def weights_of_images(self) -> Tensor | None:
        """Return the weights that the method gave, used in training or not."""
        return self.weights.cpu() if len(self.weights) else None

    def evaluation_indices(self, stage: Literal["validate", "test"]) -> range:
        """Return the indices of this rank's evaluation networks; none in a fit that has not selected yet."""
        if self.trainer.state.fn == "fit" and self.unfinished:
            return range(0)
        return super().evaluation_indices(stage)

    def particulars(self) -> Plain:
        """Return what was selected, and how, for the card."""
        weights = self.weights_of_images()
        return {
            "selected": {
                "by": self.selection.tag,
                "budget": {"ipc": self.ipc, "fraction": self.fraction, "balanced": self.balanced},
                "indices": self.indices.tolist(),
                "indices_into": "the training split named under data, as it was loaded",
                "weights": None if weights is None else weights.tolist(),
                "trained_with_weights": self.weighted,
                "proxy_models": {"all": self.selection.networks, "trained_before": self._from_cache},
            }
        }

    # ---------------------------------------------------------------- checkpoints

    def settings(self) -> Plain:
        """Return what decides the result of a run: a network is the same wherever it is kept."""
        settings = super().settings()
        del settings["model"]["proxy"]["init_args"]["cache"]
        return settings

    def meaning(self) -> Plain:
        """Return what decides the meaning of the indices: the data, and whether the weights count."""
        return {**super().meaning(), "weighted": self.weighted}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings and, before the selection, what the training needs to go on; after it, drop that."""
        state = {
            "format": self.checkpoint_format,
            "settings": self.settings(),
            "meaning": self.meaning(),
            "arguments": settings_of(self),
            "from_cache": self._from_cache,
            "to_train": self._to_train,
            "trained": {},
            "history": None,
        }
        if self.unfinished:
            state["trained"] = {i: [one.weights, one.forgetting] for i, one in self._trained.items()}
            state["history"] = None if self._history is None else [self._history.forgotten, self._history.right]
        else:
            kept = (*self.held(), "_extra_state")
            checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in kept}
            checkpoint["optimizer_states"] = []
        checkpoint["lit_condense"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over a selection, or in a fit the middle of the training; insist on the same data and settings."""
        state = own_part(checkpoint, self.checkpoint_format, self.checkpoint_holds)
        saved = checkpoint["state_dict"]
        self._from_cache = state["from_cache"]
        self._check_origin(state, len(saved["indices"]) > 0)
        self._to_train = [] if len(saved["indices"]) else state["to_train"]
        self._trained = {i: TrainedNetwork(i, *parts) for i, parts in state["trained"].items()}
        self._make_network()
        if len(saved["indices"]):
            saved.update({name: value for name, value in self.state_dict().items() if name not in saved})
        elif state["history"] is not None:  # none before the first step
            self._history = History(*(part.to(self.trainer.strategy.root_device) for part in state["history"]))

    def _check_origin(self, state: dict[str, Any], selected: bool) -> None:
        """Refuse a checkpoint of other data, and one without a selection where one is needed."""
        running = self._trainer is not None
        if running and self.trainer.state.fn == "fit":
            insist_on_same_settings(state["settings"], self.settings())
        elif not selected:
            raise CheckpointError(
                "Expected the checkpoint of a finished selection, got one from the training of its proxy models. "
                "Go on with it first: fit --ckpt_path with the same checkpoint."
            )
        if running:
            self.check_meaning(state["meaning"])
