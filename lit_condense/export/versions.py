"""The versions of programs that a result depends on."""

from __future__ import annotations

import platform

import lightning
import torch
import torchvision

from lit_condense._version import __version__


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "lit_condense": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }
