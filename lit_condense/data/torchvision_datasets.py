"""The published benchmark datasets, read through torchvision."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lit_condense.data.module import CondenseDataModule, NormalizationChoice, Splits
from lit_condense.data.normalization import Normalization
from lit_condense.errors import DataError, SettingsError

Split = Literal["train", "test"]


class TorchvisionData(CondenseDataModule):
    """Serve a dataset that torchvision can download and read.

    Args:
        root: The folder that torchvision calls ``root``.
        download: Fetch what is missing; one process a node does so before the others look.
        normalization: As for every data module.
        classes: As for every data module.
        train_limit_per_class: As for every data module.
        held_out: As for every data module.
    """

    reader: ClassVar[str]
    """The class in ``torchvision.datasets``."""
    folder: ClassVar[str]
    """Where below ``root`` torchvision looks."""
    files: ClassVar[str]
    """What it expects there."""
    all_names: ClassVar[tuple[str, ...] | None] = tuple("0123456789")
    """Class names; None takes torchvision's."""
    class_count: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]]

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        *,
        normalization: NormalizationChoice | Normalization = "dc",
        classes: list[int] | None = None,
        train_limit_per_class: int | None = None,
        held_out: float = 0.0,
    ) -> None:
        super().__init__(normalization, classes, train_limit_per_class=train_limit_per_class, held_out=held_out)
        self.root = root
        self.download = download
        if classes is not None and max(classes) >= self.class_count:
            raise SettingsError(
                f"`classes` asks for class {max(classes)} but {self.dataset_name} has the classes 0 to "
                f"{self.class_count - 1}."
            )

    @property
    def num_classes(self) -> int:
        """The number of classes in use, known without reading the data."""
        return len(self.classes) if self.classes is not None else self.class_count

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width, known without reading the data."""
        return self.shape

    def prepare_data(self) -> None:
        """Fetch the dataset where ``download`` asks for it."""
        if self.download:
            self._open("train")
            self._open("test")

    def load(self) -> Splits:
        """Read both splits through torchvision.

        Raises:
            DataError: Files are missing or unusable.
        """
        train, test = self._open("train"), self._open("test")
        names = self.all_names if self.all_names is not None else tuple(train.classes)
        return Splits(*self.tensors(train), *self.tensors(test), names)

    def open(self, split: Split) -> Any:
        """Open one split with torchvision, which checks the files and downloads them if asked to."""
        return self._reader()(self.root, train=split == "train", download=self.download)

    @staticmethod
    @abstractmethod
    def tensors(dataset: Any) -> tuple[Tensor, Tensor]:
        """Return a split's images ``(N, C, H, W)`` uint8 and labels ``(N,)`` int64."""

    def _open(self, split: Split) -> Any:
        try:
            return self.open(split)
        except Exception as error:  # a reader raises nearly anything when a file is broken
            folder = Path(self.root, self.folder).resolve()
            raise DataError(
                f"Cannot read {self.dataset_name} from {folder}, which should hold {self.files} ({error}). "
                "Set `download: true` to fetch them, or point `root` at the folder that has them."
            ) from error

    def _reader(self) -> Any:
        import torchvision.datasets  # imported late: slow, and user data do not need it

        return getattr(torchvision.datasets, self.reader)


class MNIST(TorchvisionData):
    """Serve MNIST: 60,000 + 10,000 handwritten digits, 28x28 pixels, one channel, 10 classes."""

    dataset_name: ClassVar[str] = "mnist"
    reader = "MNIST"
    source = "https://ossci-datasets.s3.amazonaws.com/mnist/ (torchvision.datasets.MNIST)"
    citation = "LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE, 1998"
    folder = "MNIST/raw"
    files = "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte"
    shape = (1, 28, 28)

    @staticmethod
    def tensors(dataset: Any) -> tuple[Tensor, Tensor]:
        """Add the channel axis."""
        return dataset.data.unsqueeze(1), dataset.targets


class FashionMNIST(MNIST):
    """Serve FashionMNIST: 60,000 + 10,000 photographs of clothes, 28x28 pixels, one channel, 10 classes."""

    dataset_name: ClassVar[str] = "fashion_mnist"
    reader = "FashionMNIST"
    source = "https://github.com/zalandoresearch/fashion-mnist (torchvision.datasets.FashionMNIST)"
    licence = "MIT"
    citation = "Xiao et al., Fashion-MNIST, arXiv 1708.07747, 2017"
    folder = "FashionMNIST/raw"
    all_names = None


class SVHN(TorchvisionData):
    """Serve SVHN: 73,257 + 26,032 street-view house numbers, 32x32 pixels, three channels, 10 classes.

    The 'train' split alone, without 'extra', as the condensation papers use it.
    """

    dataset_name: ClassVar[str] = "svhn"
    reader = "SVHN"
    source = "http://ufldl.stanford.edu/housenumbers/ (torchvision.datasets.SVHN)"
    citation = "Netzer et al., Reading digits in natural images, NIPS workshop, 2011"
    folder = ""
    files = "train_32x32.mat and test_32x32.mat"
    shape = (3, 32, 32)

    def open(self, split: Split) -> Any:
        """Open one split with torchvision, whose argument is named differently here."""
        return self._reader()(self.root, split=split, download=self.download)

    @staticmethod
    def tensors(dataset: Any) -> tuple[Tensor, Tensor]:
        """Take torchvision's arrays, already channels first."""
        return torch.tensor(dataset.data), torch.tensor(dataset.labels)


class CIFAR10(TorchvisionData):
    """Serve CIFAR-10: 50,000 + 10,000 photographs, 32x32 pixels, three channels, 10 classes.

    torchvision reads the original pickles only after comparing their hashes with the published ones. A CIFAR-10 that
    is kept as image files is read by ``ImageFolder`` with ``name: cifar10``.
    """

    dataset_name: ClassVar[str] = "cifar10"
    reader = "CIFAR10"
    source = "https://www.cs.toronto.edu/~kriz/cifar.html (torchvision.datasets.CIFAR10)"
    citation = "A. Krizhevsky, Learning multiple layers of features from tiny images, 2009"
    folder = "cifar-10-batches-py"
    files = "data_batch_1 to data_batch_5, test_batch and batches.meta"
    all_names = None
    shape = (3, 32, 32)

    @staticmethod
    def tensors(dataset: Any) -> tuple[Tensor, Tensor]:
        """Put the channels first."""
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)


class CIFAR100(CIFAR10):
    """Serve CIFAR-100: 50,000 + 10,000 photographs, 32x32 pixels, three channels, 100 classes.

    Read as CIFAR-10 is. The families differ here: ``idc`` uses CIFAR-10's constants.
    """

    dataset_name: ClassVar[str] = "cifar100"
    reader = "CIFAR100"
    source = "https://www.cs.toronto.edu/~kriz/cifar.html (torchvision.datasets.CIFAR100)"
    folder = "cifar-100-python"
    files = "train, test and meta"
    class_count = 100
