"""The file of one expert: a safetensors file with its snapshots as the rows of one tensor, read row by row.

Letters: E epochs, P trainable weights.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_condense.errors import CheckpointError, first_line

SNAPSHOTS = "snapshots"
"""Name of the tensor, ``(E + 1, P)``: the weights before training and after each epoch, in the network's own order."""
FORMAT = 1
ROOM, ROOM_PER_EPOCH = 4096, 64
"""Bytes that a header keeps free for the scores."""

Storage = Literal["float32", "bfloat16"]
STORED: dict[str, tuple[torch.dtype, str]] = {
    "float32": (torch.float32, "F32"),
    "bfloat16": (torch.bfloat16, "BF16"),
}
"""How snapshots may be kept -> the type, and what safetensors calls it."""


class ExpertFile:
    """A recorded expert, mapped into memory: a snapshot is read when it is asked for.

    Args:
        path: The file.

    Raises:
        CheckpointError: It is no such file, or is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            opened: Any = safe_open(path, framework="pt")
            self.card: dict[str, Any] = json.loads((opened.metadata() or {}).get("card", "{}"))
            self._rows = opened.get_slice(SNAPSHOTS)
            shape: tuple[int, int] = tuple(self._rows.get_shape())
            self.snapshots, self.weights = shape
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"Expected a recorded expert at {path}, it cannot be read ({first_line(error)}). Delete the file; "
                "running the config of the experts again records it anew."
            ) from error
        if self.card.get("format") != FORMAT:
            raise CheckpointError(
                f"Expected a recorded expert of format {FORMAT} at {path}, got {self.card.get('format')!r}. Use the "
                "version that wrote it, or record it again."
            )

    def at(self, epoch: int) -> Tensor:
        """Return the weights after an epoch (0: before training), ``(P,)`` float32 on the CPU."""
        return cast(Tensor, self._rows[epoch]).to(torch.float32)


@dataclass(frozen=True)
class Layout:
    """What the rows of a file are."""

    epochs: int
    """E; there is a row more."""
    weights: int
    """P."""
    storage: Storage

    @property
    def row_bytes(self) -> int:
        """Bytes of a snapshot."""
        return self.weights * STORED[self.storage][0].itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of all snapshots of an expert."""
        return (self.epochs + 1) * self.row_bytes

    def row(self, weights: Tensor) -> bytes:
        """Return a snapshot ``(P,)`` as the bytes of a row."""
        kept = weights.detach().to("cpu", STORED[self.storage][0]).contiguous()
        return kept.view(torch.uint8).numpy().tobytes()

    def header(self, card: dict[str, Any], scores: dict[str, Any] | None = None) -> bytes:
        """Return what stands before the rows: as many bytes without scores as with them.

        Args:
            card: What the file says of itself.
            scores: What is known of the expert when it is trained: numbers, and lists with one an epoch.
        """
        said = json.dumps({"format": FORMAT, **card, "scores": scores})
        described = {
            "__metadata__": {"card": said},
            SNAPSHOTS: {
                "dtype": STORED[self.storage][1],
                "shape": [self.epochs + 1, self.weights],
                "data_offsets": [0, self.file_bytes],
            },
        }
        text = json.dumps(described).encode()
        room = 2 * len(json.dumps(card)) + ROOM + ROOM_PER_EPOCH * self.epochs  # quotation marks are escaped in a card
        room += -room % 8
        if len(text) > room:
            raise CheckpointError(f"Expected a card of at most {room} bytes for an expert, got {len(text)}.")
        return struct.pack("<Q", room) + text.ljust(room)
