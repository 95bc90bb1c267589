"""How the scripts condense: one ``lit-condense fit`` in a process of its own, on one core."""

from __future__ import annotations

import os
import subprocess
import sys

from tables import ROOT


def fit(*options: str) -> None:
    """Run ``lit-condense fit`` with these options from the top folder, and raise where it fails."""
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    subprocess.run(
        [sys.executable, "-m", "lit_condense", "fit", *options],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
    )
