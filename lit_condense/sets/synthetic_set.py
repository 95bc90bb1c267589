"""The synthetic set: a LightningModule whose parameters are what it learns, with the bilevel loop as training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.data.sizes import check_fits, counts_of, images_per_class
from lit_condense.engine import Engine, RunningEngine
from lit_condense.errors import SettingsError, check_choice
from lit_condense.evaluation import Evaluation, SmallSet
from lit_condense.init import Initialization, Noise
from lit_condense.init.base import check_logits, check_start
from lit_condense.inner import InnerContext, InnerLoop, InnerNetwork, TrainOnSynthetic
from lit_condense.inner.contract import one_by_one, slots_of, updates
from lit_condense.inner.networks import Keeping
from lit_condense.matching import Loss, Progress
from lit_condense.matching.base import needs_of
from lit_condense.matching.contract import check_losses, check_network
from lit_condense.matching.quantity import Need, read_features
from lit_condense.matching.whole import IMAGES, WholeSetLoss
from lit_condense.networks import ConvNet, NetworkFactory, network_name
from lit_condense.optim import insist_on_momentum, steps_images
from lit_condense.parametrization import Parametrization, Pixels
from lit_condense.parametrization.contract import check_counts
from lit_condense.runs import outputs
from lit_condense.runs.checkpointing import keep_dry
from lit_condense.runs.resuming import insist_on_same_settings, own_part, warn_of_other_plan
from lit_condense.runs.timing import Stopwatch
from lit_condense.runs.trainer import check_length, check_precision, check_validations
from lit_condense.sampling import RandomSampling, Sampling
from lit_condense.sampling.contract import check_weighed, of_classes, size
from lit_condense.sets import meaning
from lit_condense.sets.evaluated_set import EvaluatedSet
from lit_condense.settings import Plain, settings_of
from lit_condense.synthetic import Gatherer, ImageStep, NonFinite, UpdateResult
from lit_condense.synthetic.data import Learnables, SyntheticData, insist_on_leaves, keep_names
from lit_condense.synthetic.grad_share import GradShares
from lit_condense.synthetic.image_step import check_set
from lit_condense.synthetic.inner_training import InnerTraining, with_births
from lit_condense.synthetic.log import losses_to_log, rates_to_log, seconds_to_log
from lit_condense.synthetic.matcher import Matcher
from lit_condense.synthetic.schedule import check_numbers, check_schedule
from lit_condense.trial import first_update

CHECKPOINT_FORMAT = 3

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
        evaluation: How the set is evaluated; default: protocol ``dc``.
        seed: Seed of every draw; by default the one given to ``seed_everything``, else 0.
        non_finite: What happens where a loss, a gradient or an image becomes NaN or infinite: ``stop`` the run, or
            ``skip`` the update on all ranks, count it (``skipped_updates`` in the log and the card) and go on.
        grad_share_every: Image updates between two looks at how much of the image gradient each matching loss makes
            (``set/grad_share/<loss>``), where several are on; null: never. A look costs one more matching a loss.
        learnables: What is learned beside the images: soft labels, a step size; by default nothing.
        average: Decay, between 0 and 1, of an average of the images over the updates, which is evaluated beside them
            and exported (FTD: 0.999 to 0.9999); by default there is none.
    """

    words = ("condensed", "condensing", "synthetic")
    checkpoint_format = CHECKPOINT_FORMAT
    checkpoint_holds = "images"

    def __init__(
        self,
        ipc: int | list[int] = 1,
        network: NetworkFactory = ConvNet,
        *,
        inner: InnerLoop | None = None,
        sampling: Sampling | None = None,
        parametrization: Parametrization | None = None,
        init: Initialization | None = None,
        augmentation: Augmentation | None = None,
        optimizer: OptimizerCallable | None = None,
        engine: Engine | None = None,
        evaluation: Evaluation | None = None,
        seed: int | None = None,
        non_finite: NonFinite = "stop",
        grad_share_every: int | None = 50,
        learnables: Learnables | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__(network, evaluation, seed)
        self.automatic_optimization = False
        self.ipc = images_per_class(ipc)
        self.inner = inner or TrainOnSynthetic()
        self.sampling = sampling or RandomSampling()
        self.parametrization = parametrization or Pixels()
        self.init = init or Noise()
        self.augmentation = augmentation or NoAugmentation()
        self.optimizer = steps_images(optimizer or DC_OPTIMIZER)
        self.engine = engine or Engine()
        check_choice("non_finite", non_finite, NonFinite)
        self.non_finite = non_finite
        self.grad_share_every = grad_share_every
        self._shares = GradShares(grad_share_every)
        self.learnables = learnables
        if learnables is not None and learnables.label_momentum is not None:
            insist_on_momentum(self.optimizer)
        if average is not None and not 0 < average < 1:
            raise SettingsError(
                f"Expected SyntheticSet.average to be between 0 and 1, got {average}. Leave it out for none."
            )
        self.average = average
        self.synthetic_data = SyntheticData(learnables, average)
        keep_names(self, "synthetic_data")
        self._start: Tensor | None = None  # on the CPU
        self._start_logits: Tensor | None = None
        self._resumed: dict[str, Any] | None = None
        self._step: ImageStep | None = None
        self._running: RunningEngine | None = None
        self._compiling = 0.0

    @property
    def images(self) -> nn.Parameter:
        """``(sum(ipc), C, H, W)``, class-major, in the parametrization's space; empty before a run."""
        return self.synthetic_data.images

    @property
    def labels(self) -> Tensor:
        """The class of each stored image, ``(sum(ipc),)``, int64."""
        return self.synthetic_data.labels

    # ---------------------------------------------------------------- life cycle

    @property
    def matching_losses(self) -> list[Loss]:
        """The trainer's matching losses, those on the whole set among them."""
        return [c for c in self.trainer.callbacks if isinstance(c, Loss)]  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Check the settings against the data and make the first images, unless a checkpoint brought them."""
        check_precision(self.trainer)
        check_validations(self.trainer)
        keep_dry(self.trainer)
        real = self.data.real
        self.parametrization.check_size((real.image_shape[1], real.image_shape[2]))
        self.parametrization.check_normalization(real.normalization)
        if self.images.numel() == 0 and stage != "fit":
            return  # a checkpoint may bring them, and is checked when it is loaded; see _begin_if_empty
        if self.images.numel() == 0:
            self._begin()
        elif stage == "fit" and self.evaluation.start and self._start is None:  # loaded before there was a trainer
            self.data.to(self.trainer.strategy.root_device)
            self._start = self._made_start(self.counts)
        check_fits(self.images, self.labels, real)
        if self._origin is not None:
            self.check_meaning(self._origin["meaning"])
        if stage == "fit":
            self.inner.begin_run(self.key)
            self.sampling.begin_run()
            self._check_fit()
            outputs.check_checkpoints(self.trainer)
            outputs.announce_missing(self.trainer)
            self.made_now()

    def _begin(self) -> None:
        """Make the first images, and what else is learned."""
        real = self.data.real
        self.data.to(self.trainer.strategy.root_device)  # a start may train networks
        counts = counts_of(self.ipc, real)
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        self._start, self._counts = self._made_start(counts), list(counts)
        self._start_logits = self._first_logits(counts)
        self.synthetic_data.begin(self._start, labels, real.num_classes, self._start_logits)

    def _begin_if_empty(self) -> None:
        """Make the first images for a stage that no checkpoint brought any for."""
        if self.images.numel() == 0:
            with torch.inference_mode(False):  # a fit may follow
                self._begin()
                self.to(self.device)

    def on_validation_start(self) -> None:
        """Begin where nothing was loaded, and bring the data to the device."""
        self._begin_if_empty()
        super().on_validation_start()

    def on_predict_start(self) -> None:
        """Begin where nothing was loaded."""
        self._begin_if_empty()

    def _check_fit(self) -> None:
        """Refuse a run whose losses, network, images and length do not fit one another, before it starts."""
        real, losses = self.data.real, self.matching_losses
        for stored in set(self.counts):
            check_counts(self.parametrization, stored)
        real_images = min(size(self.sampling, real, c) for c in range(real.num_classes))
        synthetic_images = min(map(self.parametrization.matched_count, self.counts))
        check_losses(losses, synthetic_images, real_images)
        check_weighed(self.sampling, losses)
        check_length(self.trainer, updates(self.inner, self.updates_per_network), one_by_one(self.inner))
        check_numbers(losses, self.inner)
        check_schedule(losses, self.inner, self.updates_per_network, self.trainer.max_steps)
        slots_of(self.inner, 0, self.updates_per_network)
        check_network(losses, self.network, real, self.key.fold("network", 0))
        for loss in losses:
            loss.check_data(self.data, self.network)

    def _made_start(self, counts: list[int]) -> Tensor:
        """Return what the images start from: the same whenever it is made, unless ``init`` reads what may change."""
        real = self.data.real
        start = self.init.start(self.parametrization, real, counts, self.network, self.key.fold("init"))
        return check_start(self.init, start, (sum(counts), *real.image_shape))

    def _first_logits(self, counts: list[int]) -> Tensor | None:
        """Return the logits of the first soft labels, where the start knows better than the classes."""
        if self.synthetic_data.label_logits is None:
            return None
        real, key = self.data.real, self.key.fold("init")
        logits = self.init.label_logits(self.parametrization, real, counts, self.network, key)
        return None if logits is None else check_logits(self.init, logits, (sum(counts), real.num_classes))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the one optimizer, over all that is learned: the trainer's global step counts image updates."""
        return self.optimizer(self.synthetic_data.groups())

    def on_fit_start(self) -> None:
        """Make the inner network and bind the engine to it."""
        self.data.to(self.device)
        real = self.data.real
        needs = needs_of(self.matching_losses) | self.sampling.needs
        keeping = self._keeping(self._try_first_update(needs))
        self.try_evaluations(torch.bincount(self._decoded()[1], minlength=real.num_classes).tolist())
        self.inner_network = self._new_inner_network(needs)
        self._training = self._new_training(keeping.home)
        batch, matched = self._gatherer(0).usual()
        self._running = self.engine.start(self.inner_network.network, batch, needs, matched, self._student_images())
        self._matcher = self._new_matcher()
        self._step = self._new_step(self.skipped, self.held_back)
        if self._resumed is not None:
            self._go_on(self._resumed)
        rank_zero_info(
            f"Condensing {self.data.dataset_name} to {len(self.labels)} images: {self._described(keeping)}, "
            f"{network_name(self.network)}; {self.running.description}."
        )

    def _student_images(self) -> list[int]:
        """Return the images of the usual step of students, for each loss that has any."""
        decoded = len(self._decoded()[1])
        losses = [loss for loss in self.matching_losses if isinstance(loss, WholeSetLoss)]
        return [size for loss in losses if (size := loss.student_images(decoded)) is not None]

    def _new_inner_network(self, needs: frozenset[Need]) -> InnerNetwork:
        made_for = (self.data.real, self.key, self.inner.optimizer, self.images, read_features(needs))
        return InnerNetwork(self.network, *made_for)

    def _keeping(self, tried: InnerNetwork) -> Keeping:
        """Return what the networks take at the end of the run, when a pool is fullest; ``tried`` is one of them."""
        alive = self.inner.alive(self.trainer.max_steps - 1, self.updates_per_network)
        return Keeping(len(alive), sum(tensor.nbytes for tensor in tried.tensors()), self.device)

    def _described(self, keeping: Keeping) -> str:
        """Return how many networks the run has; where it keeps several, what they take."""
        each = self.updates_per_network
        if keeping.most > 1:
            return keeping.described
        return f"{-(-self.trainer.max_steps // each)} network(s) x {each} update(s) each"

    def _new_training(self, home: torch.device) -> InnerTraining:
        return InnerTraining(
            self.inner,
            self.inner_network,
            key=self.key,
            share=self.share,
            updates_per_network=self.updates_per_network,
            context=self._context,
            home=home,
        )

    def _new_matcher(self) -> Matcher:
        losses, statistics = self.matching_losses, self.inner.batch_norm
        return Matcher(self.running, self._training, losses=losses, gatherer=self._gatherer, batch_norm=statistics)

    def _new_step(self, skipped: int, held_back: int) -> ImageStep:
        return ImageStep(
            leaves=self.synthetic_data.leaves(),
            optimizer=cast(LightningOptimizer, self.optimizers()),
            backward=self.manual_backward,
            share=self.share,
            non_finite=self.non_finite,
            project=self.project if self.parametrization.clamp == "every_update" else None,
            inner_tensors=self.inner_network.tensors,
            skipped=skipped,
            held_back=held_back,
        )

    def _try_first_update(self, needs: frozenset[Need]) -> InnerNetwork:
        """Try what the first update will do, on a network of its own, and return that."""
        gatherer, losses = self._gatherer(0), [loss for loss in self.matching_losses if loss.weight > 0]
        with self.key.fold("trial").isolated():
            blocks = first_update.first_blocks(gatherer)
            network = self._new_inner_network(needs)
            first_update.inner_training(network, self.inner, *self._decoded(), self.data.real)
            with network.frozen_batch_norm(self.inner.batch_norm, self.key.fold("statistics", 0)):
                first_update.losses(gatherer, blocks, network, losses, needs, self.engine.real_chunk)
        return network

    @property
    def skipped(self) -> int:
        """Updates that were not taken, because something in them was not finite."""
        return 0 if self._step is None else self._step.skipped

    @property
    def held_back(self) -> int:
        """Updates that were not taken, because a loss was above its threshold."""
        return 0 if self._step is None else self._step.held_back

    @property
    def _image_step(self) -> ImageStep:
        assert self._step is not None  # since on_fit_start
        return self._step

    @property
    def running(self) -> RunningEngine:
        """The engine, bound to the inner network of this fit."""
        assert self._running is not None  # since on_fit_start
        return self._running

    def _go_on(self, state: dict[str, Any]) -> None:
        self._training.load_state_dict(with_births(state["inner"], self.updates_per_network))
        self.sampling.load_state_dict(state["sampling"])
        self._step = self._new_step(state.get("skipped", 0), state.get("held_back", 0))
        warn_of_other_plan(state["plan"], self.running.description)
        self._resumed = None

    # ---------------------------------------------------------------- what the set holds

    @property
    def updates_per_network(self) -> int:
        """Image updates that one inner network serves."""
        return self.inner.updates_per_network(self.counts)

    def training_set(self) -> SmallSet:
        """Return what networks are trained on: decoded, normalised float32 images and their labels, detached."""
        return self._with_learned(self._small())

    def averaged_set(self) -> SmallSet | None:
        """Return the set with the average of its images over the updates, where it keeps one."""
        averaged = self.synthetic_data.averaged_images
        return None if averaged is None else self._with_learned(self._small(averaged))

    def _with_learned(self, small: SmallSet) -> SmallSet:
        """Return a set with the soft labels and the step size that are learned beside its images."""
        soft = self._soft_labels()
        soft = None if soft is None else soft.float().to(small.labels.device)
        return replace(small, soft_labels=soft, step_size=self.step_size())

    def start_set(self) -> SmallSet | None:
        """Return the set before its first update, also where a checkpoint brought the images."""
        if self._start is None and self.init.keyed:
            self._start = self._made_start(self.counts)
        if self._start is None:
            return None
        step_size = None if self.learnables is None else self.learnables.inner_lr
        small, logits = self._small(self._start.to(self.images)), self._start_logits
        if logits is None:
            return replace(small, step_size=step_size)
        rows = self.parametrization.for_training.decode_labels(torch.arange(len(logits)))
        return replace(small, step_size=step_size, soft_labels=logits.softmax(1)[rows].to(small.labels.device))

    @property
    def unfinished(self) -> str:
        """Why there is nothing to evaluate yet."""
        return "" if self.images.numel() else "no fit has made its images, and no checkpoint brought them."

    @property
    def storage(self) -> Parametrization:
        """The parametrization."""
        return self.parametrization

    def _small(self, stored: Tensor | None = None) -> SmallSet:
        images, labels = self._decoded(stored)
        device = self.data.real.device
        return SmallSet(images.float().to(device), labels.to(device))

    def raw(self) -> Tensor:
        """Return the parameter."""
        return self.images.detach()

    def stored(self) -> Tensor | None:
        """Return the parameter."""
        return self.raw().cpu()

    def _decoded(self, stored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        storage = self.parametrization.for_training
        stored = self.images.detach() if stored is None else stored
        return storage.decode(stored, self.data.real.normalization), storage.decode_labels(self.labels)

    def _soft_labels(self) -> Tensor | None:
        """Return the soft label of each decoded image, where labels are learned."""
        return self.synthetic_data.soft_labels_of(self.parametrization.for_training.decode_labels)

    def step_size(self) -> float | None:
        """Return the step size, where the set has one."""
        return self.synthetic_data.step_size()

    # ---------------------------------------------------------------- one image update

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Do image update ``batch``: match, step the images, train the inner network."""
        update = int(batch)
        watch = Stopwatch("sampling", "match", "inner")
        # Foreign layers may draw from the global generators (dropout): give them this update's own.
        with self.running.precision(), self.key.fold("update", update).isolated():
            if self._training.comes_in(update):
                with watch.part("inner"):
                    if self.parametrization.clamp == "every_network":
                        self.project()
                    self._training.bring_in(update)
            networks = self._training.progress(update)
            with watch.part("sampling"):
                self._refresh(networks[0])
            with watch.part("match"):
                matched = self._matcher(networks)
                self._log_shares(networks, matched.gradients["images"])
                grad_norm = self._image_step.take(
                    matched.gradients,
                    matched.losses,
                    update,
                    lambda tag: self._matcher.alone(networks, tag).gradients,
                    self._largest(networks[0]),
                )
                if self._image_step.taken:
                    self.synthetic_data.average()
                self._updates += 1
            if self._training.goes_on(update):
                with watch.part("inner"):
                    self._training.advance(update)
        self._log_update(networks, matched, grad_norm, watch)

    def _largest(self, progress: Progress) -> dict[str, float]:
        """Return the values of losses above which the update changes nothing, by tag."""
        limits = {loss.tag: loss.largest_at(progress) for loss in self.matching_losses}
        return {tag: most for tag, most in limits.items() if most is not None}

    def _refresh(self, progress: Progress) -> None:
        """Let the sampling look at the inner network, the first of them where an update has several."""
        self._training.use(progress)
        key = self.key.fold("sampling", progress.update)
        self.sampling.refresh(self.data.real, self.running.features, progress, key, self.share)
        if progress.update == 0:
            of_classes(self.sampling, self.data.real, self.key.fold("real", 0))

    def _gatherer(self, update: int) -> Gatherer:
        return Gatherer(
            real=self.data.real,
            stored=self.images.detach(),
            labels=self.labels,
            counts=self.counts,
            sampling=self.sampling,
            parametrization=self.parametrization,
            augmentation=self.augmentation,
            key=self.key,
            update=update,
            others={n: leaf.detach() for n, leaf in self.synthetic_data.leaves().items() if n != IMAGES},
            step_size=self.synthetic_data.fixed_step_size,
        )

    def _log_shares(self, networks: Sequence[Progress], gradient: Tensor) -> None:
        """Log how much of the image gradient each loss makes, in the updates that look; the run is not changed."""
        tags = [loss.tag for loss in self.matching_losses if any(loss.weight_at(one) != 0 for one in networks)]
        if self._shares.due(networks[0].update, tags):
            matcher = self._matcher
            shares = self._shares.look(
                gradient, tags, lambda tag: matcher.of_one(networks, tag).gradients["images"], self.share.sum
            )
            self.log_dict({f"set/grad_share/{tag}": share for tag, share in shares.items()})

    def project(self) -> None:
        """Clamp the images as the parametrization does."""
        self.parametrization.project_(self.images.data, self.data.real.normalization)

    def _context(self) -> InnerContext:
        loss = self.running.first_order
        images, labels = self._decoded()
        return InnerContext(images, labels, self.counts, self.augmentation, self.data.real, loss, self._soft_labels())

    def _log_update(
        self, networks: Sequence[Progress], matched: UpdateResult, grad_norm: Tensor, watch: Stopwatch
    ) -> None:
        compiling = self.running.clock.taken()
        self._compiling += compiling
        optimizers = {"images": cast(Any, self.optimizers()), "inner": self.inner_network.optimizer}
        values = losses_to_log(matched, self._matcher.weights(networks[0]), self.share, grad_norm)
        self.log("loss/total", values.pop("loss/total"), prog_bar=True)
        self.log_dict({**values, **rates_to_log(optimizers), **seconds_to_log({**watch.seconds, "compile": compiling})})
        self.log("set/grad_norm", grad_norm)
        if self.non_finite == "skip":
            self.log("skipped_updates", torch.tensor(float(self.skipped)))
        if (step_size := self.synthetic_data.fixed_step_size) is not None:
            self.log("set/step_size", step_size)
        if self._largest(networks[0]):
            self.log("held_back_updates", torch.tensor(float(self.held_back)))

    # ---------------------------------------------------------------- checkpoints

    def settings(self) -> Plain:
        """Return what decides the result of a run, as plain data: not the trainer, not the evaluation."""
        settings = super().settings()
        del settings["model"]["non_finite"]  # a run that stopped may go on with the other choice
        del settings["model"]["grad_share_every"]  # looking changes nothing
        for name in ("learnables", "average"):
            if settings["model"][name] is None:  # as sets were before there were any
                del settings["model"][name]
        return {**settings, "matching": {loss.tag: loss.identity() for loss in self.matching_losses}}

    def meaning(self) -> Plain:
        """Return what decides the meaning of the images: the data, and how stored images are decoded."""
        return {**super().meaning(), "parametrization": self.parametrization.meaning}

    def particulars(self) -> Plain:
        """Return how the updates were computed, and how many were skipped where that may happen, for the card."""
        found: Plain = {"skipped_updates": self.skipped} if self.non_finite == "skip" else {}
        if self.step_size() is not None:
            found["step_size"] = self.step_size()
        if self.held_back:
            found["held_back_updates"] = self.held_back
        if self._running is not None:
            found["engine"] = {"plan": self._running.description, "seconds_compiling": round(self._compiling, 1)}
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings and the inner network, so that a run can go on in the middle of a network's life."""
        check_set(self.synthetic_data.leaves(), self.trainer.global_step)
        checkpoint["lit_condense"] = {
            "format": CHECKPOINT_FORMAT,
            "settings": self.settings(),
            "meaning": self.meaning(),
            "arguments": settings_of(self),
            "plan": self.running.description,
            "inner": self._training.state_dict(),
            "sampling": self.sampling.state_dict(),
            "skipped": self.skipped,
            "held_back": self.held_back,
            "start": None if self.init.keyed else self._start,
            "start_logits": self._start_logits,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Insist on the settings that give the images of a checkpoint their meaning; where a fit resumes, on all."""
        state, saved = own_part(checkpoint, CHECKPOINT_FORMAT), checkpoint["state_dict"]
        if state["start"] is not None:
            self._start = state["start"]
        self._start_logits = state.get("start_logits")
        insist_on_leaves(saved, self.synthetic_data.held())
        if self._trainer is None:
            self._check_arguments(state["meaning"]["parametrization"], torch.bincount(saved["labels"]).tolist())
            return
        if self.trainer.state.fn == "fit":
            insist_on_same_settings(state["settings"], self.settings())
            self._resumed = state
        check_fits(saved["images"], saved["labels"], self.data.real)
        self.check_meaning(state["meaning"])

    def _check_arguments(self, parametrization: Plain, counts: list[int]) -> None:
        """Check what the set was made anew with, to be loaded without data."""
        now = {"parametrization": self.parametrization.meaning}
        meaning.insist_on_same({"parametrization": parametrization}, now, same_training_split=True)
        if counts not in (self.ipc, [self.ipc] * len(counts)):  # the checkpoint says how many images there are
            self.ipc = counts

    def held(self) -> dict[str, Tensor]:
        """Return what the set consists of, by name."""
        return self.synthetic_data.held()

    def _load_from_state_dict(self, state_dict: Plain, prefix: str, *args: Any) -> None:
        labels = state_dict.get(f"{prefix}labels", self.labels)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._counts = torch.bincount(labels).tolist()  # once: an update asks for them class by class
