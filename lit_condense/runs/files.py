"""Write files so that a reader finds the old content or the new, never half of it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from lit_condense.errors import ExportError

UNFINISHED = ".unfinished"
"""Ending of a file that is being written, or was when its process was killed."""


def write_atomically(path: Path, content: bytes, sole_writer: bool = True) -> None:
    """Write ``content`` to a neighbour of ``path``, read it back and rename it over ``path``.

    Args:
        path: Where it is to stand.
        content: All of it.
        sole_writer: No other process writes to ``path`` now: what killed ones left beside it is removed.

    Raises:
        ExportError: The folder cannot be made or written to; what stood at ``path`` is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sole_writer:
            _remove_unfinished(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if Path(name).read_bytes() != content:
                raise OSError("what was written reads back differently")
            Path(name).chmod(0o644)  # mkstemp makes it private
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ExportError(f"Expected to write {path}, got: {error}. What stood there is untouched.") from error


def _remove_unfinished(path: Path) -> None:
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.") and left.name.endswith(UNFINISHED):
            left.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make ``folder`` and write a file into it, so that a run fails at its start and not at its end.

    Raises:
        ExportError: That is not possible.
    """
    first = folder.parts[0] if folder.parts else "."
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", first) and not Path(first).exists():
        raise ExportError(
            f"Expected an output folder on this machine, got the URL {folder}. Give a path, and copy what is written "
            "there to where it is to stay."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExportError(
            f"Expected an output folder to write to, {folder} is none ({error}). Choose another folder."
        ) from error
