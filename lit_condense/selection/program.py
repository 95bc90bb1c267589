"""What the published programs (DeepCore and LCMat) do to the gradients that they select by."""

from __future__ import annotations

import torch
from torch import Tensor

PROGRAM_BATCH = 128
"""Images that the published programs average a loss over before they differentiate it (DeepCore and LCMat)."""


PROGRAM_OFFSET = 10.0
"""What LCMat's program subtracts distances from."""


def program_scales(n: int) -> Tensor:
    """Return what the published programs multiply each gradient by, ``(n, 1)`` float64: one over its batch's size.

    Their loaders walk through the candidates in the order of the data, and the last batch has what is left: 5,000
    images are 39 batches of 128 and one of 8, whose gradients come out 16 times as large as the others.
    """
    sizes = torch.full((n, 1), float(PROGRAM_BATCH), dtype=torch.float64)
    if rest := n % PROGRAM_BATCH:
        sizes[n - rest :] = rest
    return 1 / sizes
