"""Any classification images kept as files: one folder a split, one folder a class below it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.data.deep_images import DEEP_WHITE
from lit_condense.data.image_files import Headers, Size, read_headers, read_images
from lit_condense.data.image_tree import Tree, class_folders, read_tree, shared
from lit_condense.data.levels import check_white_level
from lit_condense.data.module import CondenseDataModule, NormalizationChoice, Splits
from lit_condense.data.names import in_one_form
from lit_condense.data.normalization import Normalization
from lit_condense.errors import DataError, SettingsError, check_choice
from lit_condense.rng import RandomKey

Channels = Literal["auto", "grey", "rgb"]

LAYOUT = (
    "expected <root>/<train_folder>/<class>/<image files> and the same below <root>/<test_folder>, or a `test_share` "
    "of the images to test on where there is no such folder"
)
SPLIT = RandomKey(0, ("test split",))
"""Draws the test split of a ``test_share``: whatever the seed of a run is, runs are tested on the same images."""


class ImageFolder(CondenseDataModule):
    """Serve the images below ``root/train/<class>/`` and ``root/test/<class>/``, decoded once into memory.

    Classes are the sub-folders, sorted by name, as ``torchvision.datasets.ImageFolder`` sorts them; names are compared
    and sorted with accented letters as one character (NFC), whatever the file system gives. Images are sorted by path,
    sub-folders included. Links are followed, except back to a folder above them. Names that start with a dot are
    skipped, and so are files that are not images by their ending. Transparency is dropped, EXIF rotation is not
    applied, and of several frames the first is taken, as torchvision does. A warning counts what is left out and what
    is counted twice. Classes may differ in size.

    Files of 16 bits a value (PNG; grey TIFF and PGM) make all images floating point, so that no level is lost.

    Args:
        root: The folder that holds the two splits.
        image_size: Needed where the files differ in size: one number for a square, or height and width. Each image is
            scaled (bilinear, antialiased) until it covers that size and its centre is cut out. Images that have the
            size are not touched.
        channels: "rgb" or "grey" converts; "auto" keeps one channel only if every image of both splits is grey.
        train_folder: Name of the training split's folder.
        test_folder: Name of the test split's folder.
        test_share: Where there is no test folder: this share of each class's images is the test split, drawn once for
            all runs, whatever their seed. The images are those of the training folder, or of ``root`` itself where
            class folders stand in it.
        name: The dataset's name, under which normalisation constants are looked up; for instance ``cifar10`` with
            ``normalization: dc`` for CIFAR-10 kept as files. The name of ``root`` by default.
        normalization: As for every data module; measured by default.
        classes: As for every data module, numbered in the sorted order.
        train_limit_per_class: As for every data module.
        held_out: As for every data module.
        white_level: The value that is white in 16-bit files, for instance 4095 where they hold 12-bit values; 65535 by
            default. Files of 8 bits have white at 255, and PGM files say it themselves.

    Raises:
        SettingsError: A setting is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int | tuple[int, int] | None = None,
        *,
        channels: Channels = "auto",
        train_folder: str = "train",
        test_folder: str = "test",
        test_share: float | None = None,
        name: str | None = None,
        normalization: NormalizationChoice | Normalization = "measured",
        classes: list[int] | None = None,
        train_limit_per_class: int | None = None,
        held_out: float = 0.0,
        white_level: float | None = None,
    ) -> None:
        self.root = root
        self.image_size = image_size
        self.channels = channels
        self.train_folder = train_folder
        self.test_folder = test_folder
        self.test_share = test_share
        self.name = name
        self.white_level = white_level
        super().__init__(normalization, classes, train_limit_per_class=train_limit_per_class, held_out=held_out)
        _check_image_size(image_size)
        check_white_level(white_level, DEEP_WHITE)
        check_choice("ImageFolder.channels", channels, Channels)
        if test_share is not None and not 0 < test_share < 1:
            raise SettingsError(f"Expected ImageFolder.test_share to be a share between 0 and 1, got {test_share}.")

    @property
    def dataset_name(self) -> str:
        """``name``, or else the name of ``root``."""
        return self.name if self.name is not None else Path(self.root).resolve().name

    def load(self) -> Splits:
        """Find, check and decode all images.

        Raises:
            DataError: A folder or class is missing or empty, a file cannot be read, sizes differ, or ``white_level``
                is given and no file has 16 bits.
        """
        names, trees = self._trees()
        files = [_files(tree) for tree in trees]
        (train, train_labels), (test, test_labels) = files if len(files) > 1 else self._cut(*files[0], names)
        headers = read_headers([*train, *test])
        _warn(trees, headers)
        size = self._size() or headers.common_size("give `image_size` to scale and crop them all")
        grey = self.channels == "grey" or (self.channels == "auto" and headers.all_grey)
        white = self._white(headers)
        images = [read_images(files, size, grey, white) for files in (train, test)]
        return Splits(images[0], train_labels, images[1], test_labels, names, white)

    def describe(self) -> dict[str, Any]:
        """Return what a card says about the data, and which share of them is the test split."""
        return {**super().describe(), "test_share": self.test_share}

    def _trees(self) -> tuple[tuple[str, ...], list[Tree]]:
        """Return the class names, and what the folders of both splits hold, or the one that is cut into two."""
        if self.test_share is None:
            splits = (self.train_folder, self.test_folder)
            folders = {split: _class_folders(Path(self.root, split)) for split in splits}
            names = self._class_names(folders)
            called = [Path(split).name for split in splits]
            return names, [read_tree(Path(self.root, s), [folders[s][name] for name in names], called) for s in splits]
        if Path(self.root, self.test_folder).is_dir():
            raise DataError(
                f"Expected no folder {Path(self.root, self.test_folder)} with a `test_share`, there is one. Leave "
                "`test_share` out to test on its images, or name another `test_folder`."
            )
        folder = Path(self.root, self.train_folder)
        folder = folder if folder.is_dir() else Path(self.root)
        classes = _class_folders(folder)
        names = tuple(sorted(classes))
        return names, [read_tree(folder, [classes[name] for name in names], [])]

    def _cut(self, files: list[Path], labels: Tensor, names: tuple[str, ...]) -> list[tuple[list[Path], Tensor]]:
        """Cut images in two, class by class: those to train with, those to test on."""
        assert self.test_share is not None
        tested = torch.zeros_like(labels, dtype=torch.bool)
        for c, name in enumerate(names):
            members = torch.nonzero(labels == c).flatten()
            count = max(1, round(self.test_share * len(members)))
            if count == len(members):
                raise DataError(
                    f"Expected images of {name} to train with and to test on, {count} of its {len(members)} are to be "
                    "tested on (`test_share`). Lower it, or add images."
                )
            order = torch.randperm(len(members), generator=SPLIT.fold(name).generator())
            tested[members[order[:count]]] = True
        masks = (~tested, tested)
        return [([files[i] for i in torch.nonzero(mask).flatten().tolist()], labels[mask]) for mask in masks]

    def _white(self, headers: Headers) -> float | None:
        if headers.any_deep:
            return self.white_level or DEEP_WHITE
        if self.white_level is not None:
            raise DataError(
                f"`white_level` is the white of 16-bit files, but all images of {self.root} have 8 bits. Leave it out."
            )
        return None

    def _size(self) -> Size | None:
        if self.image_size is None or isinstance(self.image_size, tuple):
            return self.image_size
        return self.image_size, self.image_size

    def _class_names(self, folders: dict[str, dict[str, Path]]) -> tuple[str, ...]:
        train, test = folders[self.train_folder], folders[self.test_folder]
        if train.keys() != test.keys():
            raise DataError(
                f"Both splits of {self.root} must have the same class folders, but '{self.train_folder}' alone has "
                f"{sorted(set(train) - set(test))} and '{self.test_folder}' alone has {sorted(set(test) - set(train))}."
            )
        return tuple(sorted(train))


def _files(tree: Tree) -> tuple[list[Path], Tensor]:
    counts = torch.tensor([len(files) for files in tree.images])
    return [file for files in tree.images for file in files], torch.repeat_interleave(counts)


def _warn(trees: list[Tree], headers: Headers) -> None:
    """Say once what is left out, and what is counted more than once."""
    found = [f"below {tree.folder}: {clause}" for tree in trees for clause in tree.sentences()]
    both = shared(trees[1], trees[0]) if len(trees) > 1 else ""
    found += [clause for clause in [*headers.sentences(), both] if clause]
    if found:
        rank_zero_warn("A look at the image files:\n  " + "\n  ".join(found))


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each class by its name in one Unicode form, in which the other split may not keep it."""
    names = class_folders(folder, LAYOUT)
    found = dict(zip(in_one_form(names), (folder / name for name in names), strict=True))
    if len(found) < len(names):
        twice = [name for name, count in Counter(in_one_form(names)).items() if count > 1]
        raise DataError(
            f"Expected folders of different names in {folder.resolve()}, got {', '.join(twice)} twice, with its "
            "accented letters written as one character and as two. Merge or rename them."
        )
    return found


def _check_image_size(image_size: int | tuple[int, int] | None) -> None:
    sides = image_size if isinstance(image_size, tuple) else (image_size,)
    if any(side is not None and side < 1 for side in sides):
        raise SettingsError(f"`image_size` must be 1 or more but is {image_size}.")
