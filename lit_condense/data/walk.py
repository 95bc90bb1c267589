"""Batches without replacement over a whole pass: the way a data loader goes through its images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_condense.data.batching import batch_at, batch_count
from lit_condense.rng import RandomKey

Batches = Literal["anew", "epochs"]
"""``anew``: each batch is drawn from all images; ``epochs``: batches go through all images, pass after pass."""


def walked(images: int, batch_size: int, number: int, key: RandomKey, keep_short: bool = True) -> Tensor:
    """Return batch ``number`` of an endless walk: pass after pass over all images, each in a new order, cut up.

    A batch follows from its number and the key alone, so that a run goes on anywhere, on any rank.

    Args:
        images: How many there are.
        batch_size: Images in a batch; at most all of them.
        number: Which batch, counted from 0.
        key: Names the walk.
        keep_short: Whether what is left at the end of a pass makes a shorter batch (a single image joins the batch
            before it) or is left out.

    Returns:
        Positions from 0 to ``images - 1``, int64 on the CPU, all different.
    """
    size = min(batch_size, images)
    per_pass = batch_count(images, size) if keep_short else images // size
    passed, position = divmod(number, per_pass)
    order = torch.randperm(images, generator=key.fold("pass", passed).generator())
    return batch_at(order, size, position) if keep_short else order[position * size : (position + 1) * size]
