"""Checkpoints that outlive a sudden end: written whole or not at all, read back, and found again."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense.errors import CheckpointError, ExportError, first_line
from lit_condense.runs.files import write_atomically
from lit_condense.runs.resuming import own_part

Location = str | Path

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")
"""A URL, also where it went through a ``Path``, which keeps one slash of several; no drive of one letter."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, reads it back and renames it there: its path never holds half of one.

    Lightning's own way goes over the system's temporary folder, from where a move to another file system is a copy that
    can be cut short. The command line uses this one; in Python: ``Trainer(plugins=[AtomicCheckpointIO()], ...)``.
    Remote paths (``s3://...``) are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Location, storage_options: Any | None = None) -> None:
        """Write ``checkpoint``; what stood at ``path`` stays there until the new one is complete.

        Raises:
            CheckpointError: It cannot be written, or could not be read again without unpickling.
        """
        there = local_path(path)
        if storage_options is not None or there is None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            buffer.seek(0)
            torch.load(buffer, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types
            raise CheckpointError(
                f"Expected a checkpoint of plain data and tensors, it could not be read again ({unreadable(error)}). "
                "Look at the state_dict of the callbacks that are not lit_condense's."
            ) from None  # PyTorch's own words advise to switch the safety off
        try:
            write_atomically(there, buffer.getvalue())
        except ExportError as error:
            raise CheckpointError(f"{error} Make room for it, then go on with --ckpt_path last.") from error

    def load_checkpoint(
        self, path: Location, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, from wherever it is; nothing is ever unpickled.

        Raises:
            CheckpointError: It is missing or broken.
        """
        return read(path)


def read(path: Location | IO[bytes]) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Args:
        path: A path, a URL that fsspec can open, or an open file.

    Raises:
        CheckpointError: It is missing, broken or unsafe.
    """
    file = _opened(path) if isinstance(path, str | Path) else path
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for broken files
        raise CheckpointError(
            f"Expected a complete checkpoint at {path}, it cannot be read ({unreadable(error)})."
        ) from None  # PyTorch's own words advise to switch the safety off
    return content if isinstance(content, dict) else {}


def _opened(location: Location) -> Path | io.BytesIO:
    """Return a file of this machine as its path, and one from elsewhere whole."""
    path = local_path(location)
    if path is not None:
        if not path.is_file():
            raise CheckpointError(f"Expected a checkpoint at {path}, found no file. Give the path of an existing one.")
        return path
    url = URL.sub(r"\1://\2", str(location))
    try:
        with get_filesystem(url).open(url, "rb") as file:
            return io.BytesIO(file.read())
    except Exception as error:  # every kind of file system raises its own
        raise CheckpointError(
            f"Expected a checkpoint at {url}, it cannot be opened ({type(error).__name__}: {first_line(error)}). Copy "
            "it to this machine, or install what fsspec needs for such URLs."
        ) from error


def local_path(location: Location) -> Path | None:
    """Return the path of a file of this machine, also where it is given as a ``file://`` URL; None elsewhere."""
    url = URL.fullmatch(str(location))
    if url is None or Path(location).exists():
        return Path(location)
    return Path("/", url[2]) if url[1] == "file" else None


def check_readable(path: Location, expected: int, holds: str) -> None:
    """Refuse a checkpoint that is missing, broken or foreign, before a run starts, and name one to go on from.

    Args:
        path: The checkpoint, as a path or a URL.
        expected: Its format.
        holds: See :func:`lit_condense.runs.resuming.own_part`.
    """
    try:
        own_part(read(path), expected, holds)
    except CheckpointError as error:
        there = local_path(path)
        advice = "" if there is None else f" {_advice(there, expected, holds)}"
        raise CheckpointError(f"{error}{advice}") from error


def previous(path: Path, expected: int, holds: str) -> tuple[int, Path] | None:
    """Return the step and the path of the latest other checkpoint in the folder that can be gone on from."""
    found = []
    for other in path.parent.glob("*.ckpt"):
        if other.name == path.name:
            continue
        try:
            content = read(other)
            own_part(content, expected, holds)
        except CheckpointError:
            continue
        found.append((int(content["global_step"]), other))
    return max(found, default=None)


class DryRunIO(CheckpointIO):
    """Reads checkpoints and writes none: Lightning's ``fast_dev_run`` still writes ``last.ckpt`` at its end.

    Args:
        reading: What reads them.
    """

    def __init__(self, reading: CheckpointIO) -> None:
        self.reading = reading

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Location, storage_options: Any | None = None) -> None:
        """Do nothing."""

    def remove_checkpoint(self, path: Location) -> None:
        """Do nothing."""

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        return self.reading.load_checkpoint(*args, **kwargs)


def keep_dry(trainer: Trainer) -> None:
    """Let a dry run (``fast_dev_run``) write no checkpoint, whoever asks for one."""
    strategy = trainer.strategy
    if is_dry(trainer) and not isinstance(strategy.checkpoint_io, DryRunIO):
        strategy.checkpoint_io = DryRunIO(strategy.checkpoint_io)


def is_dry(trainer: Trainer) -> bool:
    """Return whether a run only tries whether everything works: it touches no file."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def save_last(trainer: Trainer, unless_saved: bool = False) -> None:
    """Save as the checkpoint callbacks would, which do so in training only, and only at their intervals.

    Args:
        trainer: Whose callbacks.
        unless_saved: Only where the callback has not saved this very update.
    """
    if is_dry(trainer):
        return
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.save_last and callback.dirpath is not None:
            path = Path(callback.last_model_path or last_path(callback))
            saved = bool(callback._last_checkpoint_saved) and callback._last_global_step_saved == trainer.global_step
            if unless_saved and saved:
                continue
            if trainer.is_global_zero and path.is_symlink():
                path.unlink()
            with _as_after_update(trainer):
                trainer.save_checkpoint(path)


@contextmanager
def _as_after_update(trainer: Trainer) -> Iterator[None]:
    """Let Lightning's counters, which a checkpoint holds, stand as when it saves by itself, right after an update.

    Wherever else it is saved, a run that goes on from it would number the lines of its log from one too many.
    """
    loop = trainer.fit_loop.epoch_loop
    counted = cast(Any, (loop.batch_progress.total, loop.batch_progress.current))
    evaluated = cast(Any, (loop.val_loop.batch_progress.total, loop.val_loop.batch_progress.current))
    before, steps = [(one, copy.copy(vars(one))) for one in (*counted, *evaluated)], loop._batches_that_stepped
    after_one = all(one.processed > 0 for one in counted)
    for one in counted:
        one.ready = one.started = one.processed  # an update that failed or was not to be begun does not count
        one.completed = one.processed - 1 if after_one else one.processed
    for one in evaluated:  # an evaluation that was cut off is not gone on with
        one.ready = one.started = one.processed = one.completed
    loop._batches_that_stepped = max(0, trainer.global_step - 1) if after_one else steps
    try:
        yield
    finally:
        for one, values in before:
            vars(one).update(values)
        loop._batches_that_stepped = steps


def last_path(callback: ModelCheckpoint) -> Path:
    """Return where a checkpoint callback keeps its last checkpoint."""
    return Path(cast(Location, callback.dirpath)) / f"{callback.CHECKPOINT_NAME_LAST}{callback.FILE_EXTENSION}"


def _advice(path: Path, expected: int, holds: str) -> str:
    good = previous(path, expected, holds)
    if good is None:
        return "There is no other one beside it to go on from."
    return f"The latest good one beside it is of step {good[0]}: go on with --ckpt_path '{good[1]}'."


def unreadable(error: Exception) -> str:
    """Return why a file cannot be read, without PyTorch's advice to switch off what keeps it from running code."""
    text = str(error)
    if "eights_only" not in text and "eights only" not in text:
        return first_line(error)
    named = re.search(r"GLOBAL (\S+)", text)
    if named is None:
        return "it is no file of plain data and tensors, or a damaged one"
    return f"it names {named[1]}: more than plain data and tensors could run code, and is never loaded"
