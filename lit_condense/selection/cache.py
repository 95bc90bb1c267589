"""A folder of trained proxy models, shared by all selections that look through the same ones."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import torch
from torch import Tensor

from lit_condense.errors import CheckpointError
from lit_condense.runs.files import write_atomically
from lit_condense.selection.task import TrainedNetwork
from lit_condense.settings import Plain

FORMAT = 1


class NetworkCache:
    """Files named by a digest of all that a trained network depends on.

    Args:
        folder: Where the files are; made when the first is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, description: Plain) -> Path:
        """Return where the network of this description is kept, whether it is there or not."""
        text = json.dumps(description, sort_keys=True).encode()
        return self.folder / f"proxy_{hashlib.sha256(text).hexdigest()[:20]}.pt"

    def read(self, description: Plain) -> TrainedNetwork | None:
        """Return the network of this description, or None where it was not trained yet.

        Raises:
            CheckpointError: The file is broken or is not what its name says.
        """
        path = self.path(description)
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for broken files
            raise _broken(path, next(iter(str(error).splitlines()), type(error).__name__)) from error
        return _checked(content, description, path)

    def write(self, description: Plain, trained: TrainedNetwork) -> Path:
        """Keep a network; a reader finds the whole file or none."""
        content = {
            "format": FORMAT,
            "description": json.dumps(description, sort_keys=True),
            "index": trained.index,
            "weights": trained.weights,
            "forgetting": trained.forgetting,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = self.path(description)
        write_atomically(path, buffer.getvalue(), sole_writer=False)  # runs share a cache
        return path


def _checked(content: object, description: Plain, path: Path) -> TrainedNetwork:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _broken(path, f"it is no proxy model of format {FORMAT}")
    if content.get("description") != json.dumps(description, sort_keys=True):
        raise _broken(path, "it says that it is another one")
    weights, forgetting = content.get("weights"), content.get("forgetting")
    images = sum(description["data"]["per_class"])
    if not isinstance(weights, dict) or not isinstance(forgetting, Tensor) or forgetting.shape != (images,):
        raise _broken(path, "parts of it are missing")
    return TrainedNetwork(description["index"], weights, forgetting)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"Expected a trained proxy model at {path}, it cannot be used: {why}. Delete the file to train it again."
    )
