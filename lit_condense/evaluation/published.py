"""Published accuracies, read from ``configs/published.yaml``, the only place where they stand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
"""Where the shipped configs are in an installed package, and in a checkout."""


@dataclass(frozen=True)
class PublishedAccuracy:
    """A number from a paper, for orientation; never a target of a test."""

    accuracy: float
    """In [0, 1]."""
    source: str
    spread: float | None = None
    """What stands behind ``+-``, in [0, 1]; None where nothing does."""

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" +- {100 * self.spread:.1f}"
        return f"{100 * self.accuracy:.1f}{spread} % ({self.source})"


def shipped_configs() -> Path:
    """Return the folder of the shipped configs."""
    return next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])


@functools.cache
def published() -> dict[str, Any]:
    """Return the whole table; empty where the configs do not ship with the package."""
    path = shipped_configs() / "published.yaml"
    table: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return table


def figure(method: str, dataset: str, ipc: int) -> str | None:
    """Return a method's published accuracy in per cent, with its spread if that was published; None without any."""
    found = published().get(method, {}).get("accuracy", {}).get(dataset, {}).get(ipc)
    return None if found is None else str(found)


def of_row(row: str, dataset: str, ipc: Sequence[int], real: Sequence[int]) -> PublishedAccuracy | None:
    """Return the published accuracy of a shipped config, if the run is still about its data and its number of images.

    Args:
        row: Name of the config, as in ``dc/cifar10_ipc10``.
        dataset: What the run condensed or selected from, all classes of it.
        ipc: Images of each class.
        real: Training images of each class.
    """
    method, _, name = row.partition("/")
    dataset = dataset.replace("_", "")
    if method == "selection":
        known = published().get(method, {})
        one_percent = [round(count / 100) for count in real]
        if dataset != "cifar10" or list(ipc) != one_percent:
            return None
        chosen = known.get("methods", {}).get(name.removesuffix(f"_{dataset}"), {})
        return _read(chosen.get("accuracy"), known.get("source"))
    if len(set(ipc)) != 1 or name != f"{dataset}_ipc{ipc[0]}":
        return None
    return _read(figure(method, dataset, ipc[0]), published().get(method, {}).get("source"))


def _read(accuracy: Any, source: Any) -> PublishedAccuracy | None:
    """Return an accuracy that may be followed by its spread, as in ``44.9 +- 0.5``."""
    if accuracy is None:
        return None
    mean, _, spread = str(accuracy).partition(" +- ")
    return PublishedAccuracy(float(mean) / 100, source, float(spread) / 100 if spread else None)


def of_whole_data_set(dataset: str) -> PublishedAccuracy | None:
    """Return the published accuracy of a ConvNet trained on the whole training split, the ceiling of a set's."""
    whole = published().get("whole", {})
    accuracy = whole.get("accuracy", {}).get(dataset)
    return None if accuracy is None else PublishedAccuracy(accuracy / 100, f"{whole['network']}: {whole['source']}")
