"""How the scripts condense: one ``lit-condense fit`` in a process of its own, on one core; what they keep and read."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, Trainer
from tables import ROOT

from lit_condense import load_condensed
from lit_condense.export import save_condensed
from lit_condense.interchange.writing import packed


def fit(*options: str) -> None:
    """Run ``lit-condense fit`` with these options from the top folder, and raise where it fails."""
    paths = (str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", ""))
    subprocess.run(
        [sys.executable, "-m", "lit_condense", "fit", *options],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
    )


def quiet_trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    """Return a trainer on one CPU that writes nothing itself and evaluates nothing on the way."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "accelerator": "cpu",
        "devices": 1,
    }
    return Trainer(callbacks=list(callbacks), **{**quiet, **settings})


def condense(config: dict[str, Any], folder: Path) -> None:
    """Run what a config says, in a folder that is emptied first and keeps the config."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    fit("--config", str(path))


def keep(folder: Path, kept: Path, picture: bool = True) -> None:
    """Keep the set of a run, in half precision and without what only exact values need, with its card and its grid."""
    found = load_condensed(folder)
    save_condensed(kept, found if packed(found) else replace(found, stored=None), half=True)
    if picture:
        shutil.copy(folder / "grid.png", kept / "grid.png")


def report_only(config: dict[str, Any], folder: str) -> None:
    """Let a run write its set into ``folder``, ``log/metrics.csv`` beside it, and nothing else."""
    config["out"] = folder
    config["trainer"] |= {
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": folder, "name": "log", "version": ""},
        },
    }


def quick_evaluations(folder: Path) -> list[dict[str, str]]:
    """Return what such a run logged at each quick evaluation."""
    with (folder / "log" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("val/acc") and row.get("time/condensing")]
