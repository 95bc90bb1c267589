"""Record one expert so that it can be gone on with after any sudden end.

While an expert is trained its file is a hidden one that grows by a row an epoch, with the state of its training beside
it. A kill at any moment loses the epoch under way and nothing else.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.errors import CheckpointError, ExportError, first_line
from lit_condense.experts.file import Layout
from lit_condense.runs.files import UNFINISHED, write_atomically

STATE = ".state.pt"


class Recording:
    """The growing file of an expert.

    Args:
        path: Where the finished file is to stand.
        card: What it says of itself.
        layout: What its rows are.
    """

    def __init__(self, path: Path, card: dict[str, Any], layout: Layout) -> None:
        self.path = path
        self._card, self._layout, self._header = card, layout, layout.header(card)
        self._growing = path.with_name(f".{path.name}{UNFINISHED}")
        self._state = path.with_name(f".{path.name}{STATE}")

    def state(self) -> dict[str, Any] | None:
        """Return the state after the last epoch that was recorded; None where there is none, or it cannot be used."""
        try:
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"Expected to read {self._state}, got: {error}. Run the command again.") from error
        except Exception as error:  # torch raises many types for broken files
            rank_zero_warn(
                f"{self._state} is broken ({first_line(error)}): {self.path.name} is recorded from its start."
            )
            return None
        size = self._growing.stat().st_size if self._growing.is_file() else 0
        whole = size >= self._place(state["epoch"] + 1)
        return state if whole and state["card"] == self._card else None

    def begin(self, weights: Tensor) -> None:
        """Start the file with the weights before training, ``(P,)``."""
        self._growing.parent.mkdir(parents=True, exist_ok=True)
        with self._growing.open("wb") as file:
            file.write(self._header)
        self.add(0, weights)

    def add(self, epoch: int, weights: Tensor) -> None:
        """Write the weights after an epoch; rows of later epochs, which a killed process left, go."""
        try:
            with self._growing.open("r+b") as file:
                file.seek(self._place(epoch))
                file.write(self._layout.row(weights))
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ExportError(
                f"Expected to write an epoch to {self._growing}, got: {error}. Make room for it and run the same "
                "command again: epochs that are recorded stay."
            ) from error

    def keep(self, epoch: int, state: dict[str, Any]) -> None:
        """Keep the state of the training after an epoch whose weights are written."""
        buffer = io.BytesIO()
        torch.save({"epoch": epoch, "card": self._card, **state}, buffer)
        write_atomically(self._state, buffer.getvalue())

    def finish(self, scores: dict[str, Any]) -> None:
        """Put the scores into the card and the file into its place."""
        with self._growing.open("r+b") as file:
            file.write(self._layout.header(self._card, scores))
            file.flush()
            os.fsync(file.fileno())
        self._growing.replace(self.path)
        self._state.unlink(missing_ok=True)

    def _place(self, epoch: int) -> int:
        """Return where in the file the row of an epoch begins."""
        return len(self._header) + epoch * self._layout.row_bytes


class DryRecording(Recording):
    """Touches no file."""

    def state(self) -> None:
        """Return None."""

    def begin(self, weights: Tensor) -> None:
        """Do nothing."""

    def add(self, epoch: int, weights: Tensor) -> None:
        """Do nothing."""

    def keep(self, epoch: int, state: dict[str, Any]) -> None:
        """Do nothing."""

    def finish(self, scores: dict[str, Any]) -> None:
        """Do nothing."""
