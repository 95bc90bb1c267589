"""A folder of recorded experts, as those who read it see it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.experts.file import ExpertFile
from lit_condense.settings import Plain, differences

CARD_NAME = "experts.json"
"""What all experts of a folder have in common."""
PATTERN = "expert_*.safetensors"


RUNS = Path("runs/experts")
"""Where the experts of shipped configs are recorded, below the working folder."""


class Experts:
    """Reads recorded experts; each file is opened when it is first asked for, and never held in memory.

    Args:
        place: The folder that they were recorded into, or the name of one below ``runs/experts``, which is that of the
            config they were recorded with.

    Raises:
        SettingsError: There is none.
    """

    def __init__(self, place: str | Path) -> None:
        places = (Path(place), RUNS / place)
        self.folder = next((folder for folder in places if any(folder.glob(PATTERN))), places[-1])
        self.paths = sorted(self.folder.glob(PATTERN))
        if not self.paths:
            raise SettingsError(
                f"Expected recorded experts in {self.folder}, found none. Record them first (lit-condense fit --config "
                f"experts/{Path(place).name}, for instance), or give the folder that they are in."
            )
        self._opened: dict[int, ExpertFile] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # open files do not travel to another process

    def file(self, expert: int) -> ExpertFile:
        """Return the file of an expert, numbered as the files are sorted."""
        if expert not in self._opened:
            self._opened[expert] = ExpertFile(self.paths[expert])
        return self._opened[expert]

    def at(self, expert: int, epoch: int) -> Tensor:
        """Return the weights of an expert after an epoch, ``(P,)`` float32."""
        return self.file(expert).at(epoch)

    def weights(self, expert: int, epoch: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of an expert after an epoch by name.

        Args:
            expert: Its number.
            epoch: 0: before training.
            like: The trainable parameters of its network by name: shapes, type and device.

        Raises:
            CheckpointError: It is of another network.
        """
        flat, sizes = self.at(expert, epoch), [own.numel() for own in like.values()]
        if len(flat) != sum(sizes):
            raise CheckpointError(
                f"Expected experts of {sum(sizes)} weights in {self.folder}, got {len(flat)}. Give the folder of "
                "experts of this network."
            )
        parts = torch.split(flat, sizes)
        return {name: part.view(own.shape).to(own) for (name, own), part in zip(like.items(), parts, strict=True)}

    @cached_property
    def epochs(self) -> int:
        """Epochs that every expert has been recorded for."""
        return min((self.file(expert).snapshots for expert in range(len(self))), default=1) - 1

    def insist_on(self, description: Plain) -> None:
        """Refuse experts of another network, of other data, or of images that were normalised in another way.

        Args:
            description: What is wanted, as :func:`describe` gives it.

        Raises:
            CheckpointError: They are; or a file is broken.
        """
        for expert, path in enumerate(self.paths):
            made_with = self.file(expert).card.get("made_with", {})
            known = {name: made_with.get(name, {}) for name in description}
            same = {name: {key: known[name].get(key) for key in wanted} for name, wanted in description.items()}
            found = differences(same, description)
            if found:
                raise CheckpointError(
                    f"Expected experts of this run's data and network in {self.folder}, {path.name} was recorded with "
                    f"others ({'; '.join(found[:3])}). Record experts with these settings, or give their folder."
                )

    @cached_property
    def identity(self) -> Plain:
        """What decides which weights they are: how they were made, and how many there are; not where they lie."""
        made_with = [self.file(expert).card.get("made_with") for expert in range(len(self))]
        digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
        return {"experts": len(self), "made_with_sha256": digest}


def card_of(folder: Path) -> Plain | None:
    """Return what a folder of experts says of itself; None where there is nothing that can be read."""
    try:
        card = json.loads((folder / CARD_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected the card of recorded experts at {folder / CARD_NAME}, it cannot be read ({error}). Choose "
            "another folder, or delete it together with the experts."
        ) from error
    return card if isinstance(card, dict) else {}
