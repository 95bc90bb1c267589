"""The one folder of a run: which it is, whose results stand in it, and what a refused run takes away again."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lit_condense.errors import SettingsError
from lit_condense.runs import ownership
from lit_condense.runs.files import check_writable

ROOT = Path("runs")
"""Where runs go that are told of no folder, below the working folder."""
CHECKPOINTS, LAST = "checkpoints", "last.ckpt"
VERSION = re.compile(r"version_(\d+)")
RESULTS = {
    "card.json": ownership.is_our_card,
    "condensed.safetensors": ownership.is_our_set,
    "grid.png": ownership.is_our_picture,
}
PAGES = "grid_*.png"
"""The second and further pages of the picture."""
EVENTS = "events.out.tfevents*"


class RunFolder:
    """A folder that holds everything of one run: log, checkpoints, set, card, picture and config.

    Args:
        path: The folder; it need not be there.
        goes_on: Whether the run goes on with what is in it.
        name: Its name, where it is a new version of one.
    """

    def __init__(self, path: Path, goes_on: bool = False, name: str | None = None) -> None:
        self.path = path
        self.other_reports: list[Path] = []
        """Other folders that a new run was told to put its set into."""
        self.other_checkpoints: list[Path] = []
        """Other folders that it was told to put checkpoints into."""
        self.goes_on = goes_on
        self._name = name
        self._made: list[Path] = []
        self._before: set[Path] | None = None
        self._stale: list[Path] = []

    @classmethod
    def new_version(cls, name: str) -> RunFolder:
        """Return the folder after the newest one of that name: ``runs/<name>/version_<k>``."""
        return cls(_next_version(name), name=name)

    @classmethod
    def newest(cls, name: str) -> RunFolder | None:
        """Return the newest one of that name that holds a last checkpoint, to go on with."""
        found = [(number, path) for number, path in _versions(name) if (path / CHECKPOINTS / LAST).is_file()]
        return cls(max(found)[1], goes_on=True) if found else None

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> RunFolder | None:
        """Return the folder that a run's checkpoint lies in; None where it lies elsewhere."""
        return cls(checkpoint.parent.parent, goes_on=True) if checkpoint.parent.name == CHECKPOINTS else None

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints go."""
        return self.path / CHECKPOINTS

    def claim(self, overwrite: bool) -> None:
        """Make the folder, if it may be used; a new version that another run has taken meanwhile becomes the next one.

        Args:
            overwrite: Whether results that stand there may be replaced. Those in the folder go after the first update,
                not before; elsewhere nothing goes but what the run writes over.

        Raises:
            SettingsError: It holds results of another run.
            ExportError: It cannot be written to.
        """
        if not self.goes_on:
            results = list(self._results())
            if results and not overwrite:
                raise SettingsError(
                    f"Expected a folder without results, but {results[0]} stands there. Go on with that run "
                    "(--ckpt_path last), choose another folder (--out), or let it be replaced (--overwrite true)."
                )
            own = [path for path in results if self.path in path.parents]
            self._stale = [*own, *self.path.glob(EVENTS)] if own else []  # a log alone may be another program's
        self.look()
        if self._name is not None:
            self._take_version(self._name)
        check_writable(self.path)
        self._before = set(self.path.iterdir())

    def look(self) -> None:
        """Note what is there, so that ``discard`` knows what a run that comes to nothing has added."""
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self._before = set(self.path.iterdir()) if self.path.is_dir() else set()

    def _take_version(self, name: str) -> None:
        """Make the folder, which nobody else has made; where that is not possible, ``check_writable`` says why."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    self.path.mkdir()
                    break
                except FileExistsError:
                    self.path = _next_version(name)
        self._made = [self.path, *(folder for folder in self._made if folder in self.path.parents)]

    def clear(self) -> None:
        """Remove what the run was allowed to replace."""
        for path in self._stale:
            path.unlink(missing_ok=True)
        self._stale = []

    def discard(self, *shared: Path) -> None:
        """Take away what a run that came to nothing has made: its log, its config, and its folders if empty then.

        Args:
            shared: Folders beside it, which go too where they are empty.
        """
        if self._before is None:
            return
        config = self.path / "config.yaml"
        ours = [config] if config.is_file() and ownership.is_our_config(config) else []
        logs = self.path.glob(f"{EVENTS}.{os.getpid()}.*")  # a fit may be going on there
        for file in [*ours, *logs, *self.path.glob("hparams.yaml")]:
            if file not in self._before:
                file.unlink()
        for folder in (*shared, self.checkpoints, *self._made):
            with contextlib.suppress(OSError):  # it is not empty, or was not there
                folder.rmdir()

    def _results(self) -> Iterator[Path]:
        """Go through the results that this program wrote where the run would write its own."""
        for folder in dict.fromkeys((self.path, *self.other_reports)):
            for name, is_ours in RESULTS.items():
                if (folder / name).is_file() and is_ours(folder / name):
                    yield folder / name
            yield from (path for path in sorted(folder.glob(PAGES)) if ownership.is_our_picture(path))
        for folder in dict.fromkeys((self.checkpoints, *self.other_checkpoints)):
            yield from (path for path in sorted(folder.glob("*.ckpt")) if ownership.is_our_checkpoint(path))


def _versions(name: str) -> list[tuple[int, Path]]:
    """Return the versions of a name that are there."""
    found = ((VERSION.fullmatch(path.name), path) for path in (ROOT / name).glob("version_*"))
    return [(int(match[1]), path) for match, path in found if match]


def _next_version(name: str) -> Path:
    return ROOT / name / f"version_{max((number for number, _ in _versions(name)), default=-1) + 1}"
