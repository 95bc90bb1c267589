"""Draws are made on the CPU, so that all devices agree; this brings them to a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``, queued behind the work there: a plain ``to`` waits until that is done.

    The way back to the CPU does wait, because what comes from there is read at once.
    """
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")
