"""Trajectory matching: a student that starts where an expert stood, trained on the set, should follow the expert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lit_condense.augmentation import Augmentation
from lit_condense.augmentation.contract import applied
from lit_condense.data import CondenseDataModule
from lit_condense.errors import CheckpointError, SettingsError, check_choice, is_count
from lit_condense.experts import Experts
from lit_condense.experts.description import describe
from lit_condense.matching.base import Progress
from lit_condense.matching.whole import Parameters, Student, Unroll, Whole, WholeSetLoss
from lit_condense.networks import NetworkFactory
from lit_condense.rng import RandomKey
from lit_condense.settings import Plain


class TrajectoryMatching(WholeSetLoss):
    """Match the weights that a network reaches by training on the set with those that recorded experts reached (MTT).

    A segment is a draw of an expert and of a start epoch t. A student starts at the expert's weights after epoch t and
    takes ``steps`` steps of plain SGD on augmented batches of the decoded set, with the set's step size. The loss is
    the mean over the segments of an update of ``|w_N - e_{t+M}|^2 / |e_t - e_{t+M}|^2``: 1 where the student did not
    move, 0 where it is where the expert was M epochs later (Cazenavette et al., CVPR 2022). Experts are recorded by
    :class:`lit_condense.recording.ExpertTrajectories`; each takes part once before any does so again.

    The set needs a step size (``model.learnables.inner_lr``), learned or not.

    Args:
        max_start_epoch: Start epochs are drawn below it.
        experts: Folder of the recorded experts, or its name below ``runs/experts``; default: that of the data set.
        expert_epochs: M, the epochs of an expert that a student is to cover.
        steps: N, the student's steps.
        batch_size: Decoded images in a step; default: all. The set is shuffled and cut into batches, the rest first.
        unroll: ``full`` differentiates through all steps (MTT); ``constant_memory`` leaves out the cross terms between
            steps, so that memory does not grow with their number (TESLA, Cui et al., ICML 2023, its factor 2 included).
        checkpointing: With ``full``: compute each step again for its derivative, in place of a graph of all: the same
            gradient, less memory. By default where steps are compiled, where it is faster too.
        min_start_epoch: Start epochs are drawn from it on (DATM).
        initial_max_start_epoch: Start epochs are drawn below it at first (DATM, Guo et al., ICLR 2024); the bound then
            grows evenly to ``max_start_epoch``.
        expansion_updates: Image updates in which it does so.
        threshold: An update whose loss is above it changes nothing, optimizers included (DATM); default: none is.
        segments_per_update: Segments of an update, which processes share out.
        weight: As for every loss.
        name: As for every loss.

    Raises:
        SettingsError: A setting is out of range, or there are no experts.
    """

    shared = True

    def __init__(
        self,
        max_start_epoch: int,
        experts: str | None = None,
        *,
        expert_epochs: int = 2,
        steps: int = 30,
        batch_size: int | None = None,
        unroll: Unroll = "full",
        checkpointing: bool | None = None,
        min_start_epoch: int = 0,
        initial_max_start_epoch: int | None = None,
        expansion_updates: int | None = None,
        threshold: float | None = None,
        segments_per_update: int = 1,
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name)
        counts: dict[str, int | None] = {
            "expert_epochs": expert_epochs,
            "steps": steps,
            "segments_per_update": segments_per_update,
        }
        counts |= {"max_start_epoch": max_start_epoch, "batch_size": batch_size, "expansion_updates": expansion_updates}
        counts |= {"initial_max_start_epoch": initial_max_start_epoch}
        counts |= {"min_start_epoch": min_start_epoch if min_start_epoch != 0 else None}
        for setting, value in counts.items():
            if value is not None and not is_count(value):
                raise SettingsError(
                    f"Expected TrajectoryMatching.{setting} to be a whole number from 1, got {value!r}."
                )
        check_choice("TrajectoryMatching.unroll", unroll, Unroll)
        if threshold is not None and not threshold > 0:
            raise SettingsError(f"Expected TrajectoryMatching.threshold to be above 0, got {threshold}.")
        self.experts = experts
        self.max_start_epoch = max_start_epoch
        self.expert_epochs = expert_epochs
        self.steps = steps
        self.batch_size = batch_size
        self.unroll: Unroll = unroll
        self.checkpointing = checkpointing
        self.min_start_epoch = min_start_epoch
        self.initial_max_start_epoch = initial_max_start_epoch
        self.expansion_updates = expansion_updates
        self.threshold = threshold
        self.segments_per_update = segments_per_update
        self._check_range()
        self._recorded: Experts | None = None

    def _check_range(self) -> None:
        first, last = self.initial_max_start_epoch, self.max_start_epoch
        if (first is None) != (self.expansion_updates is None):
            raise SettingsError(
                "Expected TrajectoryMatching.initial_max_start_epoch and expansion_updates together, got "
                f"{first} and {self.expansion_updates}. Give both, or none for a range that does not grow."
            )
        lowest = last if first is None else min(first, last)
        if not 0 <= self.min_start_epoch < lowest or (first is not None and first > last):
            raise SettingsError(
                "Expected TrajectoryMatching.min_start_epoch below initial_max_start_epoch, and that not above "
                f"max_start_epoch, got {self.min_start_epoch}, {first} and {last}."
            )

    # ---------------------------------------------------------------- the experts

    @property
    def recorded(self) -> Experts:
        """The experts."""
        assert self._recorded is not None  # since check_data
        return self._recorded

    def check_data(self, data: CondenseDataModule, network: NetworkFactory) -> None:
        """Refuse experts that are not there, or of other data, another network, or too few epochs.

        Raises:
            SettingsError: There are none, or they are too short.
            CheckpointError: They are others, or a file is broken.
        """
        self._recorded = Experts(self.experts or data.dataset_name)
        self.recorded.insist_on(describe(data.real, network))
        needed = self.max_start_epoch - 1 + self.expert_epochs
        if self.recorded.epochs < needed:
            raise SettingsError(
                f"Expected experts of {needed} epochs (max_start_epoch - 1 + expert_epochs), those in "
                f"{self.recorded.folder} have {self.recorded.epochs}. Lower max_start_epoch, or record longer ones."
            )

    def identity(self) -> Plain:
        """Return its settings, with what the experts are in place of where they lie."""
        plain = super().identity()
        return {**plain, "init_args": {**plain["init_args"], "experts": self.recorded.identity}}

    def start_epochs(self, update: int) -> range:
        """Return the epochs that the segments of an update may start at."""
        first, last = self.initial_max_start_epoch, self.max_start_epoch
        if first is None or self.expansion_updates is None:
            return range(self.min_start_epoch, last)
        grown = first + (last - first) * update // self.expansion_updates
        return range(self.min_start_epoch, min(grown, last))

    # ---------------------------------------------------------------- an update

    def student_images(self, decoded: int) -> int | None:
        """Return the images of the usual step."""
        return min(self.batch_size or decoded, decoded)

    def largest_at(self, progress: Progress) -> float | None:
        """Return the threshold."""
        return self.threshold

    def loss(self, whole: Whole) -> Sequence[Student]:
        """Return the students of this process's segments."""
        return [self._student(whole, segment) for segment in whole.share.take(range(self.segments_per_update))]

    def _student(self, whole: Whole, segment: int) -> Student:
        draws = whole.key
        key = draws.fold("segment", segment)
        drawn = self._draw(whole.progress.update * self.segments_per_update + segment, whole, key)
        start, target = (self.recorded.weights(drawn.expert, epoch, whole.parameters) for epoch in drawn.epochs)
        distance = squared_distance(start, target)
        if not float(distance) > 0:
            raise CheckpointError(
                f"Expected expert {drawn.expert} in {self.recorded.folder} to move between epochs "
                f"{drawn.epochs[0]} and {drawn.epochs[1]}, it does not. Record experts anew, at a higher rate."
            )
        return Student(
            start=start,
            batches=list(student_batches(whole.decoded, self.batch_size or whole.decoded, self.steps, key)),
            augmented=partial(_augmented, whole.augmentation, key),
            value=partial(normalised_distance, target=target, scale=distance * self.segments_per_update),
            key=key,
            unroll=self.unroll,
            checkpointing=self.checkpointing,
        )

    def _draw(self, number: int, whole: Whole, key: RandomKey) -> Segment:
        """Draw segment ``number`` of the run: experts take turns in an order that is shuffled for each round."""
        turn, position = divmod(number, len(self.recorded))
        order = torch.randperm(len(self.recorded), generator=whole.run_key.fold("experts", turn).generator())
        epochs = self.start_epochs(whole.progress.update)
        chosen = torch.randint(epochs.start, epochs.stop, (), generator=key.fold("epoch").generator())
        return Segment(int(order[position]), (int(chosen), int(chosen) + self.expert_epochs))


@dataclass(frozen=True)
class Segment:
    """A part of an expert's training."""

    expert: int
    epochs: tuple[int, int]
    """After which it starts and ends."""


def student_batches(images: int, size: int, steps: int, key: RandomKey) -> Iterator[Tensor]:
    """Yield which images each step of a student sees, ``(b,)``.

    All images are shuffled and cut into batches, which are taken from the end, so that a smaller rest comes first; then
    they are shuffled anew (the order of MTT's program).

    Args:
        images: Decoded images of the set.
        size: Of a batch.
        steps: Batches in all.
        key: Names the shuffles.
    """
    left: list[Tensor] = []
    shuffles = 0
    for _ in range(steps):
        if not left:
            order = torch.randperm(images, generator=key.fold("order", shuffles).generator())
            left, shuffles = list(torch.split(order, size)), shuffles + 1
        yield left.pop()


def squared_distance(one: Parameters, other: Parameters) -> Tensor:
    """Return the squared Euclidean distance of two sets of weights, ``()``."""
    return torch.stack([(one[name] - other[name]).square().sum() for name in other]).sum()


def normalised_distance(reached: Parameters, target: Parameters, scale: Tensor) -> Tensor:
    """Return the squared distance from ``reached`` to ``target``, over ``scale``, ``()``."""
    return squared_distance(reached, target) / scale


def _augmented(augmentation: Augmentation, key: RandomKey, images: Tensor, step: int) -> Tensor:
    """Augment the images of a step: the operation is drawn for the batch, its parameters for each image."""
    size = (int(images.shape[-2]), int(images.shape[-1]))
    draw = augmentation.draw(key.fold("augment", step), size, samples=len(images))
    return applied(augmentation, images, draw)
