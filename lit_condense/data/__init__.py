"""The real data: datasets as Lightning data modules, their keyed stores and their normalisation."""

from lit_condense.data.array_file import ArrayFile
from lit_condense.data.digits import Digits
from lit_condense.data.image_folder import ImageFolder
from lit_condense.data.module import CondenseDataModule, Splits
from lit_condense.data.normalization import PRESETS, Normalization, Normalizer, measured, preset
from lit_condense.data.real_images import RealImages
from lit_condense.data.store import TensorImages
from lit_condense.data.torchvision_datasets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST, TorchvisionData
from lit_condense.data.zca import ZCA

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "PRESETS",
    "SVHN",
    "ZCA",
    "ArrayFile",
    "CondenseDataModule",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Normalization",
    "Normalizer",
    "RealImages",
    "Splits",
    "TensorImages",
    "TorchvisionData",
    "measured",
    "preset",
]
