"""Make the sets behind the README's results table: shipped configs on real data, on one core each, into results/.

Needs data/MNIST and data/cifar10 (image folders). Hours on one core in all. Rows that exist are kept; an interrupted
row goes on from its last checkpoint.

Usage: python scripts/run_results.py [ROW ...]
"""

from __future__ import annotations

import sys

from fitting import fit, keep
from tables import RESULTS, ROOT

ROWS: dict[str, tuple[str, ...]] = {  # config in configs/dc -> what the row needs beyond it
    "digits_ipc1": (),
    "digits_ipc10": (),
    "mnist_ipc1": (  # as many of the published 1,000 updates as fitted, and judged by 3 networks instead of 10
        *("--trainer.max_steps", "129", "--trainer.limit_val_batches", "0"),
        *("--model.evaluation.repeats", "3", "--model.evaluation.full_data_steps", "100"),
    ),
    "cifar10_ipc1": (  # 200 of the published 1,000 updates; data as an image folder
        *("--data", "lit_condense.data.ImageFolder", "--data.root", "data/cifar10", "--data.normalization", "dc"),
        *("--trainer.max_steps", "200", "--trainer.val_check_interval", "100"),
    ),
}


def main(rows: list[str]) -> None:
    """Make the rows that do not exist yet."""
    for row in rows or ROWS:
        kept, run = RESULTS / f"dc_{row}", ROOT / "runs" / "dc" / row
        if (kept / "condensed.safetensors").exists():
            continue
        unfinished = (run / "checkpoints" / "last.ckpt").exists()
        fit(
            *("--config", f"dc/{row}", "--out", str(run), "--trainer.enable_progress_bar", "false"),
            *ROWS[row],
            *(("--ckpt_path", "last") if unfinished else ()),
        )
        keep(run, kept)


if __name__ == "__main__":
    main(sys.argv[1:])
