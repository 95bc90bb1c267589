"""The files below the class folders of one split: which are images, and what else a reader of the folder would see.

Everything that is left out, counted twice or stands where it may not belong is noted, so that nothing is lost silently.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lit_condense.errors import DataError

# the endings that torchvision.datasets.ImageFolder takes
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
OTHER_ENDINGS = (
    *(".apng", ".avif", ".cr2", ".dcm", ".dds", ".dng", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".j2k"),
    *(".jfif", ".jp2", ".jpe", ".jpf", ".jxl", ".nef", ".npy", ".pbm", ".pcx", ".pfm", ".pnm", ".psd", ".svg", ".tga"),
)
"""Images too, which neither torchvision nor this program reads."""

T = TypeVar("T")
Identity = tuple[int, int]
"""Device and number of a file or folder: the same along every link."""

OTHER = "image(s) of other kinds are not read ({endings}; convert them to PNG)"
HIDDEN = "hidden image(s) are left out (their names, or a folder's, start with a dot)"
LOOP = "link(s) that lead back to a folder above them are not followed"
DEAD = "link(s) lead to nothing"
SPECIAL = "entries with an image's ending are no files"
LOOSE = "image(s) stand beside the class folders, in none of them, and are left out"
SPLIT_NAME = "sub-folder(s) are called like a split, and their images belong to the class that they stand in"


@dataclass
class Tree:
    """What one split's folder holds.

    Args:
        folder: The split's folder.
        images: The image files of each class, sorted by path.
    """

    folder: Path
    images: list[list[Path]] = field(default_factory=list)
    identities: list[list[Identity]] = field(default_factory=list)
    """Of ``images``."""
    notes: dict[str, list[Path]] = field(default_factory=dict)
    """What else was seen: what it is -> where."""

    def note(self, what: str, path: Path) -> None:
        """Remember something to be said at the end."""
        self.notes.setdefault(what, []).append(path)

    def sentences(self) -> list[str]:
        """Return what was noted, one clause a kind, with an example."""
        clauses = [
            f"{len(paths)} {what.format(endings=_endings(paths))}, for instance {paths[0]}"
            for what, paths in self.notes.items()
        ]
        return clauses + _repeated(self.images, self.identities)


def class_folders(folder: Path, layout: str) -> list[str]:
    """Return the names of the class folders, sorted as torchvision sorts them; hidden ones are left out.

    Raises:
        DataError: There are none, a link leads to nothing, or a class folder is a link to a folder above it.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder.resolve()}; {layout}.")
    above = _above(folder)
    names = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            if identity(Path(entry.path)) in above:
                raise DataError(f"The class folder {entry.path} is a link to a folder above it. Remove the link.")
            names.append(entry.name)
        elif _is_dead(entry):
            raise _dead(entry)
    if not names:
        raise DataError(f"{folder.resolve()} has no class folders; {layout}.")
    return names


def read_tree(folder: Path, classes: Sequence[Path], splits: Sequence[str]) -> Tree:
    """Find the images of each class, in sub-folders too; links are followed, except back to a folder above them.

    Args:
        folder: The split's folder.
        classes: The class folders.
        splits: What the folders of the splits are called.

    Raises:
        DataError: A class has no images, a link to an image leads to nothing, or a folder cannot be read.
    """
    tree = Tree(folder)
    above = _above(folder)
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.name.startswith(".") and path.is_dir() and identity(path) not in above:
            _walk(path, above | {identity(path)}, tree, hidden=True)
        elif path.suffix.lower() in ENDINGS and path.is_file():
            tree.note(HIDDEN if entry.name.startswith(".") else LOOSE, path)
    for one in classes:
        files = sorted(_walk(one, above | {identity(one)}, tree, splits=splits))
        if not files:
            said = "; ".join(tree.sentences())
            raise DataError(
                f"The class folder {one.absolute()} has no images (files ending in {', '.join(ENDINGS)}). Add images "
                f"or remove the folder from both splits.{' Seen so far: ' + said + '.' if said else ''}"
            )
        tree.images.append(files)
        tree.identities.append([identity(file) for file in files])
    return tree


def shared(one: Tree, other: Tree) -> str:
    """Return how many images of ``one`` are files of ``other`` too, as a clause; empty where there are none."""
    known = {number for numbers in other.identities for number in numbers}
    files = zip(_flat(one.images), _flat(one.identities), strict=True)
    both = [file for file, number in files if number in known]
    return f"{len(both)} image(s) are files of {other.folder} too, for instance {both[0]}" if both else ""


def identity(path: Path) -> Identity:
    """Return which file or folder a path leads to."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _walk(
    folder: Path, above: frozenset[Identity], tree: Tree, hidden: bool = False, splits: Sequence[str] = ()
) -> list[Path]:
    """Return the image files below ``folder``; what is not one of them is noted in ``tree``."""
    files = []
    for entry in _entries(folder):
        path, out_of_sight = Path(entry.path), hidden or entry.name.startswith(".")
        if _is_folder(entry):
            if identity(path) in above:
                tree.note(LOOP, path)
                continue
            if entry.name in splits:
                tree.note(SPLIT_NAME, path)
            files += _walk(path, above | {identity(path)}, tree, out_of_sight, splits)
        elif _is_wanted(entry, out_of_sight, tree):
            files.append(path)
    return files


def _is_wanted(entry: os.DirEntry[str], hidden: bool, tree: Tree) -> bool:
    """Whether an entry that is no folder is an image file to read; if not, it may be noted."""
    path = Path(entry.path)
    ending = path.suffix.lower()
    if hidden:
        if ending in ENDINGS and not entry.name.startswith("._"):  # what macOS keeps beside a file is no image
            tree.note(HIDDEN, path)
        return False
    if _is_dead(entry):
        if ending in ("", *ENDINGS):  # an image, or a folder of them
            raise _dead(entry)
        tree.note(DEAD, path)
        return False
    if ending in OTHER_ENDINGS:
        tree.note(OTHER, path)
    elif ending in ENDINGS and not entry.is_file():  # to open a pipe would wait for ever
        tree.note(SPECIAL, path)
        return False
    return ending in ENDINGS


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"Cannot read the folder {folder}: {error}. Allow it, or remove the folder.") from error


def _above(folder: Path) -> frozenset[Identity]:
    resolved = folder.resolve()
    return frozenset(identity(one) for one in (resolved, *resolved.parents))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return (
        Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
    )  # an entry stumbles over a link to itself


def _is_dead(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()


def _dead(entry: os.DirEntry[str]) -> DataError:
    return DataError(
        f"The link {entry.path} leads to nothing ({Path(entry.path).readlink()}): what it stands for would be missing. "
        "Mend or remove it."
    )


def _endings(paths: Iterable[Path]) -> str:
    counts = Counter(path.suffix.lower() for path in paths)
    return ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))


def _repeated(images: list[list[Path]], identities: list[list[Identity]]) -> list[str]:
    """Say which files are counted more than once: inside a class, and, a fault in the labels, in several classes."""
    clauses: list[str] = []
    again: list[Path] = []
    for files, numbers in zip(images, identities, strict=True):
        known: set[Identity] = set()
        for file, number in zip(files, numbers, strict=True):
            if number in known:
                again.append(file)
            known.add(number)
    if again:
        clauses.append(f"{len(again)} image(s) are links to others of their class, for instance {again[0]}")
    classes = Counter(number for numbers in identities for number in set(numbers))
    several = [file for file, n in zip(_flat(images), _flat(identities), strict=True) if classes[n] > 1]
    if several:
        clauses.append(f"{len(several)} image(s) are files that stand in several classes, for instance {several[0]}")
    return clauses


def _flat(parts: list[list[T]]) -> list[T]:
    return [item for part in parts for item in part]
