"""A set that was given, by this program or another one: to be evaluated as any other set is."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.data.module import CondenseDataModule
from lit_condense.data.normalization import Normalization, Normalizer, preset
from lit_condense.data.zca import FAMILY
from lit_condense.errors import ExportError
from lit_condense.evaluation import Evaluation, SmallSet
from lit_condense.interchange.given import PIXEL, ZCA, Given, implied_labels
from lit_condense.networks import ConvNet, NetworkFactory
from lit_condense.parametrization import Parametrization
from lit_condense.runs.trainer import Intervals
from lit_condense.sets.evaluated_set import EvaluatedSet
from lit_condense.sets.report import Report
from lit_condense.settings import Plain, settings_of

WHITENING = ("eps", "fitted_on")
"""What decides a whitening."""
ROUNDING = 1e-6
"""Difference of two constants that are taken to be the same."""


class GivenSet(EvaluatedSet):
    """A condensed set from a file, for ``evaluate`` and ``save``; it is not trained.

    Args:
        given: What :func:`~lit_condense.interchange.read_set` returned.
        network: Architecture to evaluate on, unless the evaluation lists others.
        evaluation: How the set is evaluated; default: protocol ``dc``.
        seed: Seed of every draw.
    """

    words = ("given", "condensing", "given")
    checkpoint_format = 0
    checkpoint_holds = "given"

    def __init__(
        self,
        given: Given,
        network: NetworkFactory = ConvNet,
        *,
        evaluation: Evaluation | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(network, evaluation, seed)
        self.given = given
        card = given.found.told.get("card", {})
        self._updates = int(card.get("update") or 0)

    @classmethod
    def intervals(cls, max_steps: int) -> Intervals:
        """Return what is never used: there is nothing to train."""
        return Intervals(1, 1)

    def held(self) -> dict[str, Tensor]:
        """Return nothing: the set is in its file."""
        return {}

    def evaluate(self, datamodule: CondenseDataModule | None = None) -> Report:
        """Train fresh networks on the set and on its baselines, as the evaluation says.

        Raises:
            ExportError: The set cannot be of these data.
        """
        with self._using(datamodule):
            self.fit_to(self.data)
        return super().evaluate(datamodule)

    def fit_to(self, data: CondenseDataModule) -> None:
        """Refuse data that the set cannot be of, and say where it may not be.

        Raises:
            ExportError: Images have another shape, labels or classes are others, or it is whitened and the data are
                not.
        """
        found, where = self.given.found, self.given.found.files[0]
        shape = tuple(found.images.shape[1:])
        if shape != tuple(data.image_shape):
            raise ExportError(
                f"Expected images of shape {tuple(data.image_shape)}, that of {data.dataset_name}, in {where}, got "
                f"{shape}. Give the data that the set was made of (--data)."
            )
        if found.soft_labels is not None and found.soft_labels.shape[1] != data.num_classes:
            raise ExportError(
                f"Expected soft labels of {data.num_classes} classes in {where}, got {found.soft_labels.shape[1]}."
            )
        if found.labels is not None and int(found.labels.max()) >= data.num_classes:
            raise ExportError(
                f"Expected labels below {data.num_classes}, the classes of {data.dataset_name}, in {where}, got labels "
                f"up to {int(found.labels.max())}."
            )
        whitening = data.real.normalization.describe().get("family") == FAMILY
        if self.given.space != PIXEL and (self.given.space == ZCA) != whitening:
            raise ExportError(
                f"Expected --data.normalization zca for whitened values and for no others, those of {where} are "
                f"{'whitened' if self.given.space == ZCA else 'normalised'}."
            )
        said, used = found.told.get("normalization"), data.real.normalization.describe()
        if self.given.space == ZCA and isinstance(said, dict) and any(said.get(k) != used.get(k) for k in WHITENING):
            raise ExportError(
                f"Expected the training images that {where} was whitened by ({said.get('fitted_on')}, eps "
                f"{said.get('eps')}), got others ({used.get('fitted_on')}, eps {used.get('eps')}). Give its run's data."
            )
        told = found.told.get("dataset")
        if told is not None and told != data.dataset_name:
            rank_zero_warn(f"By its name {where} is a set of {told}, and is evaluated on {data.dataset_name}.")

    @property
    def _constants(self) -> Normalizer | None:
        """What the stored values were normalised by; None where they are in [0, 1]."""
        if self.given.space == PIXEL:
            return None
        if self.given.space == ZCA:
            return self.data.real.normalization
        return self.given.found.constants or preset(self.given.space, self.data.dataset_name)

    @property
    def _is_as_seen(self) -> bool:
        """Whether the stored values are those that networks see, cells apart: then they are never rounded."""
        constants, used = self._constants, self.data.real.normalization
        if isinstance(constants, Normalization) and isinstance(used, Normalization):
            pairs = zip(constants.mean + constants.std, used.mean + used.std, strict=False)
            return len(constants.mean) == len(used.mean) and all(abs(a - b) <= ROUNDING for a, b in pairs)
        return constants is used

    @property
    def storage(self) -> Parametrization:
        """How images are stored."""
        return self.given.packing.storage("normalized" if self._is_as_seen else "pixel")

    def raw(self) -> Tensor:
        """Return the images as :attr:`storage` reads them, on the device of the data."""
        stored, constants = self.given.images.to(self.data.real.device), self._constants
        return stored if constants is None or self._is_as_seen else constants.denormalize(stored)

    def stored(self) -> Tensor | None:
        """Return what is stored."""
        return self.raw().cpu()

    @property
    def labels(self) -> Tensor:
        """Of the stored images, in the classes of the data: matched by name where the set says its names."""
        found, names = self.given.found, self.data.class_names
        if found.labels is None:
            return implied_labels(len(found.images), self.data.num_classes, found.files[0])
        if found.class_names is None:
            return found.labels
        strange = sorted(set(found.class_names) - set(names))
        if strange:
            raise ExportError(
                f"Expected the classes of {self.data.dataset_name} ({', '.join(names[:12])}) in {found.files[0]}, got "
                f"{', '.join(strange[:5])} too. Rename its folders, or give the data that it is of (--data)."
            )
        return torch.tensor([names.index(name) for name in found.class_names])[found.labels]

    @property
    def _soft_labels(self) -> Tensor | None:
        """Soft labels with a column for each class of the data, in their order."""
        found, names = self.given.found, self.data.class_names
        if found.soft_labels is None or found.class_names is None or found.class_names == names:
            return found.soft_labels
        columns = torch.zeros(len(found.soft_labels), len(names))
        columns[:, [names.index(name) for name in found.class_names]] = found.soft_labels
        return columns

    @property
    def counts(self) -> list[int]:
        """Stored images of each class."""
        return torch.bincount(self.labels, minlength=self.data.num_classes).tolist()

    def training_set(self) -> SmallSet:
        """Return the decoded images, normalised, with labels, soft labels and step size where the set has them."""
        storage, device = self.storage, self.data.real.device
        images = storage.decode(self.raw(), self.data.real.normalization).float()
        position = storage.decode_labels(torch.arange(len(self.labels)))
        found = self.given.found
        soft, weights = (
            None if one is None else one[position].to(device) for one in (self._soft_labels, found.weights)
        )
        return SmallSet(images, self.labels[position].to(device), weights, soft, found.inner_lr)

    def weights_of_images(self) -> Tensor | None:
        """Return how much each image counts, where networks are trained with weights."""
        return self.given.found.weights

    def step_size(self) -> float | None:
        """Return the step size to train with, where the set has one."""
        return self.given.found.inner_lr

    def settings(self) -> Plain:
        """Return how the set was made, where its card says so, and how its images are stored."""
        method = self.given.found.told.get("method")
        known = method if isinstance(method, dict) else {}
        model = known.get("model") if isinstance(known.get("model"), dict) else {}
        storage = settings_of(self.storage)
        return {**known, "model": {**(model or {}), "seed": self.seed, "parametrization": storage}}

    def particulars(self) -> Plain:
        """Return what the card of a given set says beyond what all cards say."""
        found = self.given.found
        told: dict[str, Any] = {name: value for name, value in found.told.items() if name != "card"}
        return {
            "origin": {
                "layout": found.layout,
                "files": [path.name for path in found.files],
                "space": self.given.space,
                "packing": vars(self.given.packing),
                "told_by_names": told,
                "reported": found.reported,
                "notes": list(found.notes),
                "step_size": found.inner_lr,
            }
        }
