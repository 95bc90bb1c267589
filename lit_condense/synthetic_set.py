"""The synthetic set: a LightningModule with the images as its one parameter and the bilevel loop as training step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_condense import checks
from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.engine import Block, Engine, RunningEngine, Work, match
from lit_condense.engine.blocks import cut_classes
from lit_condense.engine.engine import needs_of
from lit_condense.errors import NonFiniteError
from lit_condense.evaluated_set import EvaluatedSet
from lit_condense.evaluation import Evaluation, SmallSet
from lit_condense.inner import InnerLoop, InnerNetwork, TrainingMaterial, TrainOnSynthetic
from lit_condense.matching import MatchingLoss, Progress
from lit_condense.networks import ConvNet, NetworkFactory, network_name
from lit_condense.parametrization import Initialization, Noise, Pixels
from lit_condense.sampling import RandomSampling, Sampling
from lit_condense.settings import Plain, settings_of

CHECKPOINT_FORMAT = 1

DC_OPTIMIZER = partial(torch.optim.SGD, lr=0.1, momentum=0.5)
"""Optimizer of the images (Zhao et al., ICLR 2021, and their program)."""


class SyntheticSet(EvaluatedSet):
    """A condensed training set: a few images per class, learned so that networks trained on them do well.

    What is matched is said by the :class:`~lit_condense.matching.MatchingLoss` callbacks of the trainer; all else is an
    argument here. One training step is one image update: renew the inner network if its life is over, match on
    blocks of classes, step the images, train the inner network.

    Args:
        ipc: Images per class; one number, or one for each class.
        network: Architecture that real and synthetic images are matched on.
        inner: How the inner network is trained between updates; default: on the synthetic set, as DC does.
        sampling: Which real images an update sees; default: 256 random images a class.
        parametrization: How images are stored; default: pixels in normalised space, never clamped.
        init: What the images start from; default: noise.
        augmentation: What both sides go through before they are matched; default: nothing.
        optimizer: Optimizer of the images; default: SGD with learning rate 0.1 and momentum 0.5.
        engine: How an update is computed; default: fast.
        evaluation: How the set is judged; default: protocol ``dc``.
        seed: Seed of every draw; by default the one given to ``seed_everything``, else 0.
    """

    images: nn.Parameter
    """``(sum(ipc), C, H, W)``, class-major, in the parametrization's space."""
    labels: Tensor
    """``(sum(ipc),)``, int64."""

    def __init__(
        self,
        ipc: int | list[int] = 1,
        network: NetworkFactory = ConvNet,
        inner: InnerLoop | None = None,
        sampling: Sampling | None = None,
        parametrization: Pixels | None = None,
        init: Initialization | None = None,
        augmentation: Augmentation | None = None,
        optimizer: OptimizerCallable | None = None,
        engine: Engine | None = None,
        evaluation: Evaluation | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(network, evaluation, seed)
        self.automatic_optimization = False
        self.ipc = checks.images_per_class(ipc)
        self.inner = inner or TrainOnSynthetic()
        self.sampling = sampling or RandomSampling()
        self.parametrization = parametrization or Pixels()
        self.init = init or Noise()
        self.augmentation = augmentation or NoAugmentation()
        self.optimizer = checks.optimizer(optimizer or DC_OPTIMIZER)
        self.engine = engine or Engine()
        # Empty until setup knows the data, or a checkpoint brings the images.
        self.images = nn.Parameter(torch.empty(0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))
        self._counts: list[int] = []
        self._resumed: dict[str, Any] | None = None

    # ---------------------------------------------------------------- life cycle

    @property
    def matching_losses(self) -> list[MatchingLoss]:
        """The trainer's matching losses."""
        return [c for c in self.trainer.callbacks if isinstance(c, MatchingLoss)]  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Check the settings against the data and make the first images, unless a checkpoint brought them."""
        checks.precision(self.trainer)
        real = self.data.real
        if self.images.numel() == 0:
            counts = checks.counts(self.ipc, real)
            self._hold(torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)))
            start = self.init.start(self.parametrization, real, counts, self.network, self.key.fold("init"))
            self.images = nn.Parameter(start)
        checks.set_fits(self.images, self.labels, real)
        if stage == "fit":
            real_images = min(self.sampling.size(real, c) for c in range(real.num_classes))
            checks.matching_losses(self.matching_losses, min(self.counts) * self.parametrization.factor**2, real_images)
            checks.length_of_run(self.trainer, self.updates_per_network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the one optimizer, over the images: the trainer's global step counts image updates."""
        return self.optimizer([self.images])

    def on_fit_start(self) -> None:
        """Make the inner network and bind the engine to it."""
        self.data.to(self.device)
        real = self.data.real
        needs = needs_of(self.matching_losses) | self.sampling.needs
        self._inner = InnerNetwork(
            self.network, real, self.key, self.inner.optimizer, self.images, needs_features=not needs <= {"gradients"}
        )
        largest = max(range(real.num_classes), key=lambda c: self.sampling.size(real, c))
        batch = real.at(self.sampling.select(real, largest, self.key.fold("shape"))).to(self.images.dtype)
        self._engine: RunningEngine = self.engine.start(self._inner.network, batch, needs)
        if self._resumed is not None:
            self._go_on(self._resumed)
        networks = -(-self.trainer.max_steps // self.updates_per_network)
        rank_zero_info(
            f"Condensing {self.data.dataset_name} to {len(self.labels)} images: {networks} network(s) x "
            f"{self.updates_per_network} update(s) each, {network_name(self.network)}; {self._engine.route}."
        )

    def _go_on(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state["inner"])
        self.sampling.load_state_dict(state["sampling"])
        if state["route"] != self._engine.route:
            rank_zero_warn(
                f"The checkpoint was written with other arithmetic ({state['route']}) than this run uses "
                f"({self._engine.route}): the result will agree to rounding, not to the byte."
            )
        self._resumed = None

    # ---------------------------------------------------------------- what the set holds

    @property
    def counts(self) -> list[int]:
        """Stored images of each class."""
        return self._counts

    @property
    def updates_per_network(self) -> int:
        """Image updates that one inner network serves."""
        return self.inner.updates_per_network(self.counts)

    def training_set(self) -> SmallSet:
        """Return what networks are trained on: decoded, normalised float32 images and their labels, detached."""
        return SmallSet(self._decoded().float(), self.parametrization.decode_labels(self.labels))

    def _decoded(self) -> Tensor:
        return self.parametrization.decode(self.images.detach(), self.data.real.normalization)

    def rows_of(self, class_index: int) -> slice:
        """Return where the stored images of a class stand."""
        counts = self.counts
        start = sum(counts[:class_index])
        return slice(start, start + counts[class_index])

    # ---------------------------------------------------------------- one image update

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Do image update ``batch``: match, step the images, train the inner network."""
        update = int(batch)
        network_index, match_index = divmod(update, self.updates_per_network)
        progress = Progress(update, network_index, match_index)
        started = time.perf_counter()
        # Foreign layers may draw from the global generators (dropout): give them this update's own.
        with self.key.fold("update", update).isolated():
            if match_index == 0:
                self._renew(network_index)
            self._refresh(progress)
            gradient, losses = self._match(progress)
            self._step(gradient, losses, update)
            matched = time.perf_counter()
            if match_index + 1 < self.updates_per_network:
                self._advance(progress)
        self._log_update(progress, losses, gradient)
        self.log_dict({"time/match": matched - started, "time/inner": time.perf_counter() - matched})

    def _renew(self, network_index: int) -> None:
        if self.parametrization.clamp == "every_network":
            self._project()
        self._inner.renew(network_index)

    def _refresh(self, progress: Progress) -> None:
        started = time.perf_counter()
        key = self.key.fold("sampling", progress.update)
        self.sampling.refresh(self.data.real, self._engine.features, progress, key, self.share)
        self.log("time/sampling", time.perf_counter() - started)

    def _match(self, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this rank's part of the image gradient, and the losses summed over the rank's classes."""
        real, share = self.data.real, self.share
        losses = [loss for loss in self.matching_losses if loss.weight_at(progress) != 0]
        sizes = [(self.sampling.size(real, c), count) for c, count in enumerate(self.counts)]
        mine = share.take(range(real.num_classes))
        with self._inner.frozen_batch_norm(self.inner.batch_norm, self.key.fold("statistics", progress.update)):
            work = Work(
                blocks=cut_classes(mine, sizes, self.engine.classes_per_block),
                block=lambda classes: self._block(classes, progress),
                whole=lambda: self._whole(progress),
                num_classes=real.num_classes,
                share=share,
            )
            result = match(self._engine, work, losses, progress, self.images.new_zeros(()))
        gradient = torch.zeros_like(self.images)
        for classes, found in result.blocks:
            rows = [self.rows_of(c) for c in classes]
            for row, part in zip(rows, torch.split(found, [row.stop - row.start for row in rows]), strict=True):
                gradient[row] += part
        return gradient, result.losses

    def _whole(self, progress: Progress) -> Block:
        """Gather one block of all images of all classes, for losses that see the whole set at once."""
        blocks = [self._block([c], progress) for c in range(self.data.real.num_classes)]
        counts = self.counts

        def views(stored: Tensor) -> Tensor:
            parts = zip(blocks, torch.split(stored, counts), strict=True)
            return torch.cat([block.views(part) for block, part in parts], dim=1)

        return Block(
            real_images=torch.cat([block.real_images for block in blocks], dim=1),
            real_labels=torch.cat([block.real_labels for block in blocks], dim=1),
            stored=torch.cat([block.stored.detach() for block in blocks]).requires_grad_(),
            views=views,
            synthetic_labels=torch.cat([block.synthetic_labels for block in blocks], dim=1),
            keys=(self.key.fold("layers", progress.update),),
        )

    def _block(self, classes: Sequence[int], progress: Progress) -> Block:
        """Gather a block: real images, and a leaf of stored images with the way from it to the network's input."""
        real, update = self.data.real, progress.update
        chosen = torch.stack([self.sampling.select(real, c, self.key.fold("real", update, c)) for c in classes])
        size = (real.image_shape[1], real.image_shape[2])
        # One draw for both sides of a class: the augmentation is siamese (Zhao and Bilen, ICML 2021).
        draws = [self.augmentation.draw(self.key.fold("augment", update, c), size, samples=1) for c in classes]
        rows = [self.rows_of(c) for c in classes]

        def augmented(images: Sequence[Tensor]) -> Tensor:
            return torch.stack([self.augmentation.apply(x, draw) for x, draw in zip(images, draws, strict=True)])

        def views(stored: Tensor) -> Tensor:
            per_class = torch.split(stored, [row.stop - row.start for row in rows])
            return augmented([self.parametrization.decode(images, real.normalization) for images in per_class])

        return Block(
            real_images=augmented(real.at(chosen).to(self.images.dtype).unbind()),
            real_labels=real.labels_at(chosen),
            stored=torch.cat([self.images.detach()[row] for row in rows]).requires_grad_(),
            views=views,
            synthetic_labels=torch.stack([self.parametrization.decode_labels(self.labels[row]) for row in rows]),
            keys=tuple(self.key.fold("layers", update, c) for c in classes),
        )

    def _step(self, gradient: Tensor, losses: dict[str, Tensor], update: int) -> None:
        """Hand the gradient to Lightning and take one optimizer step on the images."""
        summed = self.share.sum(torch.stack([*losses.values(), (~gradient.isfinite()).sum().to(gradient.dtype)]))
        losses.update(zip(losses, summed, strict=False))
        checks.finite_update(losses, summed, update)
        before = self.images.detach().clone()
        optimizer = cast(Any, self.optimizers())
        optimizer.zero_grad()
        # A surrogate whose gradient is `gradient`: only manual_backward arms DDP's reducer, which averages over ranks.
        self.manual_backward((self.images * gradient).sum() * self.share.world_size)
        optimizer.step()
        if self.parametrization.clamp == "every_update":
            self._project()
        if not bool(self.images.isfinite().all()):
            self.images.data.copy_(before)
            raise NonFiniteError(
                f"Update {update} made images that are NaN or infinite; the set was put back to before it. "
                "Lower the learning rate of the images."
            )

    def _project(self) -> None:
        self.parametrization.project_(self.images.data, self.data.real.normalization)

    def _advance(self, progress: Progress) -> None:
        """Train the inner network until the next update; rank 0's weights count."""
        material = TrainingMaterial(
            images=self._decoded(),
            labels=self.parametrization.decode_labels(self.labels),
            ipc=self.counts,
            augmentation=self.augmentation,
            real=self.data.real,
            loss=self._engine.first_order,
        )
        key = self.key.fold("inner", progress.network_index, progress.match_index)
        self.inner.advance(self._inner, material, progress, key)
        self.share.broadcast(self._inner.tensors())

    def _log_update(self, progress: Progress, losses: dict[str, Tensor], gradient: Tensor) -> None:
        weights = {loss.tag: loss.weight_at(progress) for loss in self.matching_losses}
        self.log("loss/total", sum(weights[tag] * float(value) for tag, value in losses.items()), prog_bar=True)
        # Lightning repeats the last value of what is not logged any more: a loss that is off now says NaN, not that.
        self.log_dict({f"loss/{tag}": losses.get(tag, torch.tensor(torch.nan)) for tag in weights})
        self.log("set/grad_norm", gradient.norm())
        self.log("lr/images", cast(Any, self.optimizers()).param_groups[0]["lr"])
        self.log("lr/inner", self._inner.optimizer.param_groups[0]["lr"])

    # ---------------------------------------------------------------- checkpoints

    def settings(self) -> Plain:
        """Return what decides the result of a run, as plain data: not the trainer, not the evaluation."""
        own = settings_of(self)["init_args"]
        del own["evaluation"]
        data = self.data.describe()
        names = ("dataset", "train", "normalization", "image_shape")
        losses = {loss.tag: settings_of(loss) for loss in self.matching_losses}
        return {"model": own, "matching": losses, "data": {name: data[name] for name in names}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings and the inner network, so that a run can go on in the middle of a network's life."""
        checkpoint["lit_condense"] = {
            "format": CHECKPOINT_FORMAT,
            "settings": self.settings(),
            "route": self._engine.route,
            "inner": self._inner.state_dict(),
            "sampling": self.sampling.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the images of a checkpoint; when a fit resumes, insist on the same settings."""
        state = checks.checkpoint(checkpoint, CHECKPOINT_FORMAT)
        if self._trainer is not None and self.trainer.state.fn == "fit":
            checks.same_settings(state["settings"], self.settings())
            self._resumed = state
        saved = checkpoint["state_dict"]
        self._loaded_updates = int(checkpoint["global_step"])
        if self._trainer is not None:
            checks.set_fits(saved["images"], saved["labels"], self.data.real)
        self._hold(saved["labels"])
        if self._trainer is None:  # load_from_checkpoint: the checkpoint says how many images there are
            self.ipc = self.counts
        if self.images.shape != saved["images"].shape:
            self.images = nn.Parameter(torch.empty_like(saved["images"]))

    def _hold(self, labels: Tensor) -> None:
        self.labels = labels.clone().to(self.labels.device)
        self._counts = torch.bincount(labels).tolist()  # once: an update asks for them class by class
