"""The folder that experts are recorded into: under which settings, and how far each of them is."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lit_condense.errors import SettingsError
from lit_condense.experts.experts import CARD_NAME, card_of
from lit_condense.experts.file import FORMAT, ExpertFile, Layout
from lit_condense.export.versions import versions
from lit_condense.recording.writer import Recording
from lit_condense.runs.files import write_atomically
from lit_condense.settings import Plain, differences

LOCK = ".recording"
HELD: set[Path] = set()
"""Locks that this process holds."""


@dataclass(frozen=True)
class RecordedFolder:
    """Where experts of one description stand."""

    path: Path
    made_with: Plain
    """All that their weights depend on."""
    layout: Layout

    def insist_on_same_settings(self) -> None:
        """Refuse a folder of experts that were recorded with other settings.

        Raises:
            SettingsError: It is one; the settings that differ are named.
        """
        card = card_of(self.path)
        if card is None or not any(self.path.glob("*expert_*")):  # a run that came to nothing
            return
        found = differences(card.get("made_with", {}), self.made_with)
        if found:
            raise SettingsError(
                f"Expected the settings of the experts that are in {self.path}, got others ({'; '.join(found[:3])}). "
                "Choose another folder (--out), or delete that one to record its experts anew."
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder while experts are recorded into it; a process that dies lets go of it.

        Raises:
            SettingsError: Another run is recording there now.
        """
        path = self.path / LOCK
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                HELD.add(path.resolve())
            except BlockingIOError as error:
                if path.resolve() not in HELD:  # else by an earlier run of this process, which came to no end
                    raise SettingsError(
                        f"Expected {self.path} to be recorded into by one run at a time, another one is at work there. "
                        "Wait for it, or choose another folder (--out)."
                    ) from error
            yield
            path.unlink(missing_ok=True)
            HELD.discard(path.resolve())

    def write_card(self, experts: int) -> None:
        """Say what the experts have in common."""
        card = {"format": FORMAT, "experts": experts, "made_with": self.made_with, "versions": versions()}
        write_atomically(self.path / CARD_NAME, (json.dumps(card, indent=1) + "\n").encode())

    def epochs_left(self, expert: int) -> int:
        """Return how many epochs of an expert are still to be recorded.

        Raises:
            CheckpointError: Its file is broken.
        """
        if self._file(expert).is_file():
            found = differences(ExpertFile(self._file(expert)).card.get("made_with", {}), self.made_with)
            if found:
                raise SettingsError(
                    f"Expected {self._file(expert)} to be of these settings, it is of others ({'; '.join(found[:3])}). "
                    "Choose another folder (--out), or delete it to record it anew."
                )
            return 0
        state = self.recording(expert).state()
        return self.layout.epochs if state is None else self.layout.epochs - int(state["epoch"])

    def recording(self, expert: int, kind: type[Recording] = Recording) -> Recording:
        """Return the growing file of an expert."""
        return kind(self._file(expert), {"expert": expert, "made_with": self.made_with}, self.layout)

    def _file(self, expert: int) -> Path:
        return self.path / f"expert_{expert:04d}.safetensors"
