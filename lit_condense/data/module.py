"""The data module: loads a dataset once, keeps its two splits as keyed stores, and drives the loops with indices."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_condense.data.levels import warn_if_dark
from lit_condense.data.loaders import IndexLoader
from lit_condense.data.normalization import Normalization, Normalizer, preset
from lit_condense.data.real_images import RealImages
from lit_condense.data.store import TensorImages, check_shapes
from lit_condense.errors import DataError, SettingsError

NormalizationChoice = Literal["dc", "egm", "idc", "mtt", "measured", "zca"]
FITTED: tuple[NormalizationChoice, ...] = ("measured", "zca")
"""Families that follow from the training images in use, not from published constants."""


@dataclass(frozen=True)
class Splits:
    """What a dataset consists of, before any normalisation.

    Args:
        train_images: ``(N, C, H, W)``, uint8, or floating point in [0, 1].
        train_labels: ``(N,)``, whole numbers from 0.
        test_images: As ``train_images``, with its own N.
        test_labels: As ``train_labels``.
        class_names: One name a class; their number is the number of classes.
        white_level: The value of the files that became 1, where images are floating point and one was stated.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    white_level: float | None = None


@runtime_checkable
class EvaluatesNetworks(Protocol):
    """A module that says which evaluation networks this process trains."""

    def evaluation_indices(self, stage: Literal["validate", "test"]) -> range:
        """Return the indices of the networks to train and test."""


class CondenseDataModule(LightningDataModule, ABC):
    """Serve the real images of one dataset: ``real`` (training split) and ``test``, loaded once on first use.

    A subclass implements ``load``. The loaders yield indices only, because the images of an update must not be drawn
    before the previous update has trained the network.

    Args:
        normalization: The family whose published constants to use, or "measured" (mean and population standard
            deviation of the training images in use), or "zca" (:class:`~lit_condense.data.ZCA`, fitted to the training
            images in use, and no constants before it), or the values themselves as ``mean`` and ``std``.
        classes: Keep only these classes, numbered as the dataset numbers them; they are relabelled 0, 1, ... in the
            order given. All classes by default.
        train_limit_per_class: Keep only the first so many training images of each class. All by default.
        held_out: To choose settings by: this share of each class's training images, evenly spaced over them, is held
            back and takes the place of the test split, which is not looked at. 0 by default.

    Raises:
        SettingsError: A setting is out of range, or the family has no constants for this dataset.
    """

    source: ClassVar[str] = "given by the user"
    licence: ClassVar[str] = "see source"
    citation: ClassVar[str] = ""

    def __init__(
        self,
        normalization: NormalizationChoice | Normalization = "measured",
        classes: list[int] | None = None,
        *,
        train_limit_per_class: int | None = None,
        held_out: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self.classes = classes
        self.train_limit_per_class = train_limit_per_class
        self.held_out = held_out
        self._stores: tuple[RealImages, RealImages] | None = None
        self._white_level: float | None = None
        self._check_settings()

    @property
    @abstractmethod
    def dataset_name(self) -> str:
        """The name under which normalisation constants and results are filed."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the whole dataset; called once."""

    def stores(self) -> tuple[RealImages, RealImages]:
        """Return the training and the test split, made once; by default each is one tensor of what ``load`` read.

        A module with a store of its own, for images that do not fit into memory for instance, returns that. Both splits
        have the training split's normalisation.
        """
        return self._make_stores(self.load())

    @property
    def real(self) -> RealImages:
        """The training split."""
        return self._loaded()[0]

    @property
    def test(self) -> RealImages:
        """The test split, under the training split's normalisation."""
        return self._loaded()[1]

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class in use."""
        return self.real.class_names

    @property
    def num_classes(self) -> int:
        """The number of classes in use."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.real.image_shape

    def setup(self, stage: str | None = None) -> None:
        """Load both splits, the first time only; ``stage`` makes no difference.

        Raises:
            DataError: The data are missing or cannot be used.
            SettingsError: ``classes`` names a class that the data do not have.
        """
        self._loaded()

    def to(self, device: torch.device | str) -> None:
        """Let both splits deliver on ``device``; called by the model when a loop starts."""
        real, test = self._loaded()
        self._stores = real.to(device), test.to(device)

    def describe(self) -> dict[str, Any]:
        """Return what a card says about the data, as plain strings, numbers, lists and dictionaries."""
        used = self.real.normalization
        family = self.normalization if isinstance(self.normalization, str) else "given"
        return {
            "dataset": self.dataset_name,
            "class_names": list(self.class_names),
            "classes": self.classes,
            "image_shape": list(self.image_shape),
            "train": _describe_split(self.real),
            "test": _describe_split(self.test),
            "held_out": self.held_out,
            "white_level": self._white_level,
            "normalization": {"family": family, **used.describe()},
            "source": self.source,
            "licence": self.licence,
            "citation": self.citation,
        }

    def train_dataloader(self) -> IndexLoader:
        """Yield update indices without end, from the trainer's ``global_step`` at the time of ``iter()``."""
        return IndexLoader(lambda: itertools.count(self._running_trainer().global_step))

    def val_dataloader(self) -> IndexLoader:
        """Yield the indices of the evaluation networks that the model asks for in validation."""
        return IndexLoader(lambda: self._evaluation_indices("validate"))

    def test_dataloader(self) -> IndexLoader:
        """Yield the indices of the evaluation networks that the model asks for in the test."""
        return IndexLoader(lambda: self._evaluation_indices("test"))

    def predict_dataloader(self) -> IndexLoader:
        """Yield the single index 0: prediction is the decoded training set, made once."""
        return IndexLoader(lambda: range(1))

    def _check_settings(self) -> None:
        if isinstance(self.normalization, str) and self.normalization not in FITTED:
            preset(self.normalization, self.dataset_name)
        _check_classes(self.classes)
        if self.train_limit_per_class is not None and self.train_limit_per_class < 1:
            raise SettingsError(
                f"`train_limit_per_class` must be 1 or more but is {self.train_limit_per_class}. "
                "Leave it out to use all training images."
            )
        if not 0 <= self.held_out < 1:
            raise SettingsError(f"Expected `held_out` to be a share from 0 to below 1 but got {self.held_out}.")

    def _loaded(self) -> tuple[RealImages, RealImages]:
        if self._stores is None:
            self._stores = self.stores()
        return self._stores

    def _make_stores(self, splits: Splits) -> tuple[RealImages, RealImages]:
        train, test = (splits.train_images, splits.train_labels), (splits.test_images, splits.test_labels)
        check_shapes(*train, "train")
        check_shapes(*test, "test")
        if train[0].shape[1:] != test[0].shape[1:]:
            raise DataError(
                f"Training and test images must have the same (C, H, W) but have {tuple(train[0].shape[1:])} and "
                f"{tuple(test[0].shape[1:])}."
            )
        names = splits.class_names
        if self.classes is not None:
            if max(self.classes) >= len(names):
                raise SettingsError(
                    f"`classes` asks for class {max(self.classes)} but {self.dataset_name} has the classes 0 to "
                    f"{len(names) - 1}."
                )
            train, test = _only_classes(*train, self.classes), _only_classes(*test, self.classes)
            names = tuple(names[index] for index in self.classes)
        if self.train_limit_per_class is not None:
            train = _first_of_each_class(*train, self.train_limit_per_class)
        if self.held_out:
            train, test = _held_out(*train, self.held_out)
        if self.normalization == "zca":
            rank_zero_info(f"Fitting ZCA to the {len(train[0])} training images in use of {self.dataset_name}.")
        real = TensorImages(*train, len(names), self._to_apply(), names, "train")
        warn_if_dark(real.images, splits.white_level)
        self._white_level = splits.white_level
        return real, TensorImages(*test, len(names), real.normalization, names, "test")

    def _to_apply(self) -> Normalizer | Literal["zca"] | None:
        """Return what the training split takes: a normalisation, or how it comes to one of its own."""
        if isinstance(self.normalization, Normalization):
            return self.normalization
        if self.normalization == "zca":
            return "zca"
        return None if self.normalization == "measured" else preset(self.normalization, self.dataset_name)

    def _running_trainer(self) -> Trainer:
        if self.trainer is None:
            raise SettingsError("The loaders yield indices of a Trainer's loop: give this data module to a Trainer.")
        return self.trainer

    def _evaluation_indices(self, stage: Literal["validate", "test"]) -> range:
        module = self._running_trainer().lightning_module
        if not isinstance(module, EvaluatesNetworks):
            raise SettingsError(
                "The model says which networks to evaluate by `evaluation_indices(stage)`, but "
                f"{type(module).__name__} has no such method. Use this data module with a SyntheticSet."
            )
        return module.evaluation_indices(stage)


def _check_classes(classes: list[int] | None) -> None:
    if classes is None:
        return
    if not classes or len(set(classes)) != len(classes) or min(classes) < 0:
        raise SettingsError(f"`classes` must be a list of different class numbers from 0 but is {classes}.")


def _only_classes(images: Tensor, labels: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Keep the images of ``classes``, in their order, with labels that count from 0 along ``classes``."""
    matches = labels.unsqueeze(1) == torch.tensor(classes)
    kept = matches.any(dim=1)
    return images[kept], matches[kept].long().argmax(dim=1)


def _first_of_each_class(images: Tensor, labels: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Keep the first ``limit`` images of each class, in their order."""
    firsts = [torch.nonzero(labels == label).flatten()[:limit] for label in torch.unique(labels)]
    kept = torch.cat(firsts).sort().values
    return images[kept], labels[kept]


def _held_out(images: Tensor, labels: Tensor, share: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Cut a split in two: what is left, and of each class ``share`` of its images (1 or more), evenly spaced."""
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in torch.unique(labels):
        members = torch.nonzero(labels == label).flatten()
        count = max(1, round(share * len(members)))
        if count == len(members):
            raise DataError(
                f"Expected `held_out` to leave training images of every class, {share} of the {len(members)} images of "
                f"class {label} are all of them. Lower it."
            )
        chosen[members[(torch.arange(count) * len(members)) // count]] = True
    return (images[~chosen], labels[~chosen]), (images[chosen], labels[chosen])


def _describe_split(split: RealImages) -> dict[str, Any]:
    return {"images": len(split), "per_class": split.class_sizes, "sha256": split.fingerprint()}


def datamodule_of(trainer: Trainer) -> CondenseDataModule:
    """Return the trainer's data module."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, CondenseDataModule):
        raise SettingsError(
            f"Expected the real images in a lit_condense data module, got {type(data).__name__}. "
            "Call trainer.fit(synthetic_set, datamodule=...) with one of lit_condense.data."
        )
    return data
