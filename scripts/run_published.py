"""Condense CIFAR-10 with published settings on one GPU: cards and curves in results/published/.

Each row is one `lit-condense fit` of a shipped config: width 128, its published batches, learning rates, start and
evaluation protocol (IDC's shortened, which takes longer than the condensing here). What is changed is a limit of time,
how often a curve is measured, how many networks judge, and that nothing but the final report is written. All rows run
side by side and share the GPU. Needs data/cifar10 (an image folder) or data/cifar10.npz (the same as arrays). A row
whose card exists is skipped.

Usage: python scripts/run_published.py MINUTES [ROW ...]
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fitting import condense, keep, quick_evaluations, report_only
from tables import ROOT

from lit_condense.cli.shipped import read

RESULTS = ROOT / "results" / "published"
ROWS = {  # row -> config, image updates between two points of its curve
    "dc_ipc1": ("dc/cifar10_ipc1", 200),
    "dc_ipc10": ("dc/cifar10_ipc10", 250),
    "dm_ipc10": ("dm/cifar10_ipc10", 1000),
    "egm_mda_ipc10": ("egm/cifar10_ipc10_mda", 250),
    "dsa_ipc10": ("dsa/cifar10_ipc10", 150),
    "idc_i_ipc10": ("idc_i/cifar10_ipc10", 250),
    "dream_ipc10": ("dream/cifar10_ipc10", 100),
    "lcmat_c_ipc10": ("lcmat_c/cifar10_ipc10", 250),
}
JUDGED = {"repeats": 5, "quick_repeats": 1, "baselines": [], "full_data_steps": 0}
IDC_EPOCHS = 200
PACKED = ROOT / "data" / "cifar10.npz"


def main(minutes: float, rows: list[str]) -> None:
    """Make the rows that do not exist yet, all at once."""
    missing = [row for row in rows or ROWS if not (RESULTS / row / "card.json").exists()]
    with ThreadPoolExecutor(len(missing) or 1) as pool:
        for done in [pool.submit(make, row, minutes) for row in missing]:
            done.result()


def make(row: str, minutes: float) -> None:
    """Run one row and keep its card, its grid and its curve."""
    folder, kept = ROOT / "runs" / "published" / row, RESULTS / row
    condense(settings(row, minutes, str(folder)), folder)
    keep(folder, kept)
    (kept / "curve.json").write_text(json.dumps(points(folder), indent=1) + "\n")


def settings(row: str, minutes: float, folder: str) -> dict[str, Any]:
    """Return the row's config with what the module's documentation says is changed."""
    name, interval = ROWS[row]
    config = read(name)
    evaluation = config["model"]["init_args"]["evaluation"]["init_args"]
    evaluation |= JUDGED | ({"epochs": IDC_EPOCHS} if evaluation.get("protocol") == "idc" else {})
    preset = config["data"]["init_args"].get("normalization", "dc")
    source = ("ArrayFile", {"path": str(PACKED)}) if PACKED.exists() else ("ImageFolder", {"root": "data/cifar10"})
    config["data"] = {
        "class_path": f"lit_condense.data.{source[0]}",
        "init_args": {**source[1], "name": "cifar10", "normalization": preset},
    }
    report_only(config, folder)
    whole, seconds = divmod(round(60 * minutes), 60)
    time_limit = f"00:{whole // 60:02}:{whole % 60:02}:{seconds:02}"
    config["trainer"] |= {"max_time": time_limit, "val_check_interval": interval}
    return config


def points(folder: Path) -> list[dict[str, float]]:
    """Return one point for each quick evaluation; seconds are those of condensing until then, evaluations apart."""
    return [
        {
            "updates": int(row["step"]) + 1,
            "seconds": round(float(row["time/condensing"]), 1),
            "accuracy": round(float(row["val/acc"]), 4),
        }
        for row in quick_evaluations(folder)
    ]


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
