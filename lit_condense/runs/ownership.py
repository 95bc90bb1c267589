"""Which files this program wrote: those it may replace. All others are the user's, and stay as they are."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path

from lit_condense.errors import ExportError

HEADER = "# Written by lit-condense; SHA-256 of the lines below: "
"""First line of a saved config: an edited one is the user's."""

PICTURE_MARK = ("Software", "lit_condense")
"""Text in our pictures."""

LARGEST_HEADER = 2**27
"""Bytes of a safetensors header above which a file is not looked at."""


def check_replaceable(path: Path, ours: Callable[[Path], bool]) -> None:
    """Refuse to write over something that this program did not write.

    Args:
        path: Where something is to be written.
        ours: Whether the file that stands there was written by this program.

    Raises:
        ExportError: There is something, and it was not.
    """
    if path.is_dir() or ((path.exists() or path.is_symlink()) and not (path.is_file() and ours(path))):
        raise ExportError(
            f"Expected to write {path}, but what stands there was not written by lit_condense. Move it away, or choose "
            "another folder."
        )


def is_our_config(path: Path) -> bool:
    """Whether a saved config is as this program wrote it, not a letter changed."""
    first, _, rest = path.read_bytes().partition(b"\n")
    return first.decode(errors="replace") == HEADER + hashlib.sha256(rest).hexdigest()


def marked_config(text: str) -> bytes:
    """Return a config with the first line by which it is known."""
    content = text.encode()
    return f"{HEADER}{hashlib.sha256(content).hexdigest()}\n".encode() + content


def free_config(path: Path) -> Path:
    """Return ``path``, or where the user's file stands there the first ``..._1``, ``..._2`` that is not the user's."""
    others = (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(1))
    return next(p for p in itertools.chain([path], others) if not p.exists() or (p.is_file() and is_our_config(p)))


def is_our_card(path: Path) -> bool:
    """Whether a JSON file is the card of a condensed set."""
    try:
        return _is_card(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return False


def is_our_set(path: Path) -> bool:
    """Whether a safetensors file carries a card."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size)) if size <= LARGEST_HEADER else {}
        return _is_card(json.loads(header["__metadata__"]["card"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error):
        return False


def is_our_picture(path: Path) -> bool:
    """Whether a picture says that it is ours or, as those of older versions do not, stands beside a card of ours."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            marked = picture.format == "PNG" and picture.info.get(PICTURE_MARK[0]) == PICTURE_MARK[1]
    except (OSError, ValueError, SyntaxError):
        return False
    return marked or ("Software" not in picture.info and is_our_card(path.parent / "card.json"))


def is_our_checkpoint(path: Path) -> bool:
    """Whether a checkpoint holds a set of this program."""
    from lit_condense.errors import CheckpointError
    from lit_condense.runs import checkpointing

    try:
        return "lit_condense" in checkpointing.read(path)
    except CheckpointError:
        return False


def _is_card(card: object) -> bool:
    return isinstance(card, dict) and "format_version" in card and "sha256" in card
