"""Any classification images kept as files: one folder a split, one folder a class below it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lit_condense.data.image_files import Size, list_images, read_headers, read_images
from lit_condense.data.module import CondenseDataModule, NormalizationChoice, Splits
from lit_condense.data.names import in_one_form
from lit_condense.data.normalization import Normalization
from lit_condense.errors import DataError, SettingsError

LAYOUT = "expected <root>/<train_folder>/<class>/<image files> and the same below <root>/<test_folder>"


class ImageFolder(CondenseDataModule):
    """Serve the images below ``root/train/<class>/`` and ``root/test/<class>/``, decoded once into memory.

    Classes are the sub-folders, sorted by name, as ``torchvision.datasets.ImageFolder`` sorts them; names are compared
    and sorted with accented letters as one character (NFC), whatever the file system gives. Images are sorted by path.
    Names that start with a dot are skipped, and so are files that are not images by their ending. Transparency is
    dropped. Classes may differ in size.

    Args:
        root: The folder that holds the two splits.
        image_size: Needed where the files differ in size: one number for a square, or height and width. Each image is
            scaled (bilinear, antialiased) until it covers that size and its centre is cut out. Images that have the
            size are not touched.
        channels: "rgb" or "grey" converts; "auto" keeps one channel only if every image of both splits is grey.
        train_folder: Name of the training split's folder.
        test_folder: Name of the test split's folder.
        name: The dataset's name, under which normalisation constants are looked up; for instance ``cifar10`` with
            ``normalization: dc`` for CIFAR-10 kept as files. The name of ``root`` by default.
        normalization: As for every data module; measured by default.
        classes: As for every data module, numbered in the sorted order.
        train_limit_per_class: As for every data module.
        held_out: As for every data module.

    Raises:
        SettingsError: A setting is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int | tuple[int, int] | None = None,
        channels: Literal["auto", "grey", "rgb"] = "auto",
        train_folder: str = "train",
        test_folder: str = "test",
        name: str | None = None,
        normalization: NormalizationChoice | Normalization = "measured",
        classes: list[int] | None = None,
        train_limit_per_class: int | None = None,
        held_out: float = 0.0,
    ) -> None:
        self.root = root
        self.image_size = image_size
        self.channels = channels
        self.train_folder = train_folder
        self.test_folder = test_folder
        self.name = name
        super().__init__(normalization, classes, train_limit_per_class, held_out)
        _check_image_size(image_size)
        if channels not in ("auto", "grey", "rgb"):
            raise SettingsError(f"Expected `channels` to be 'auto', 'grey' or 'rgb' but got '{channels}'.")

    @property
    def dataset_name(self) -> str:
        """``name``, or else the name of ``root``."""
        return self.name if self.name is not None else Path(self.root).resolve().name

    def load(self) -> Splits:
        """Find, check and decode all images.

        Raises:
            DataError: A folder or class is missing or empty, a file cannot be read, or sizes differ.
        """
        folders = {split: _class_folders(Path(self.root, split)) for split in (self.train_folder, self.test_folder)}
        names = self._class_names(folders)
        train, train_labels = _files(folders[self.train_folder], names)
        test, test_labels = _files(folders[self.test_folder], names)
        headers = read_headers([*train, *test])
        size = self._size() or headers.common_size("give `image_size` to scale and crop them all")
        grey = self.channels == "grey" or (self.channels == "auto" and headers.all_grey)
        return Splits(read_images(train, size, grey), train_labels, read_images(test, size, grey), test_labels, names)

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


def _files(folders: dict[str, Path], names: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    by_class = [list_images(folders[name]) for name in names]
    counts = torch.tensor([len(files) for files in by_class])
    return [file for files in by_class for file in files], torch.repeat_interleave(counts)


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each class by its name in one Unicode form, in which the other split may not keep it."""
    names = _sub_folders(folder)
    found = dict(zip(in_one_form(names), (folder / name for name in names), strict=True))
    if len(found) < len(names):
        twice = [name for name, count in Counter(in_one_form(names)).items() if count > 1]
        raise DataError(
            f"Expected folders of different names in {folder.resolve()}, got {', '.join(twice)} twice, with its "
            "accented letters written as one character and as two. Merge or rename them."
        )
    return found


def _sub_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder.resolve()}; {LAYOUT}.")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{folder.resolve()} has no class folders; {LAYOUT}.")
    return names


def _check_image_size(image_size: int | tuple[int, int] | None) -> None:
    sides = image_size if isinstance(image_size, tuple) else (image_size,)
    if any(side is not None and side < 1 for side in sides):
        raise SettingsError(f"`image_size` must be 1 or more but is {image_size}.")
