"""What the names of files and folders tell of a set: published programs write there what the file does not say."""

from __future__ import annotations

import re
from pathlib import Path

from lit_condense.interchange.given import Packing
from lit_condense.settings import Plain

DATASETS = {
    "mnist": "mnist",
    "fashionmnist": "fashion_mnist",
    "svhn": "svhn",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "tiny": "tiny_imagenet",
    "tinyimagenet": "tiny_imagenet",
}
"""A program's name of a data set, in small letters without marks -> ours."""

RESULT = re.compile(r"res_(?P<method>[^_]+)_(?P<dataset>[^_]+)_(?P<network>.+)_(?P<ipc>\d+)ipc")
"""``res_DC_CIFAR10_ConvNet_10ipc.pt`` of Zhao et al.'s program and of IDM's."""
IPC, FACTOR = re.compile(r"_ipc(\d+)"), re.compile(r"_factor(\d+)")


def dataset_of(name: str) -> str | None:
    """Return our name of a data set that a file or folder is called after."""
    return DATASETS.get(re.sub("[^a-z0-9]", "", name.lower()))


def of_result(path: Path) -> Plain:
    """Return what the name of a ``res_*.pt`` tells; nothing where it is another name."""
    match = RESULT.fullmatch(path.stem)
    if match is None:
        return {}
    told: Plain = {"method": match["method"], "network": match["network"], "ipc": int(match["ipc"])}
    return told | ({"dataset": known} if (known := dataset_of(match["dataset"])) else {})


def of_folders(path: Path) -> Plain:
    """Return the data set after which a folder above the file is called, the nearest first."""
    for folder in path.resolve().parents:
        if known := dataset_of(folder.name):
            return {"dataset": known}
    return {}


def packing_of_tag(path: Path) -> Packing | None:
    """Return the packing that the folder of IDC's and DREAM's programs is called after.

    Their folder names list the settings that are not the defaults: one with images per class and without a factor has
    none. Another folder tells nothing.
    """
    tag = path.resolve().parent.name
    if factor := FACTOR.search(tag):
        return Packing(int(factor[1]), "row", "_multi" in tag)
    return Packing() if IPC.search(tag) else None
