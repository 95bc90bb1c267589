"""What a run logs of an update, as tensors: Lightning reads them when it writes a line, and no update waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_condense.sharding import Share
from lit_condense.synthetic.update import UpdateResult


def losses_to_log(matched: UpdateResult, weights: Mapping[str, float], share: Share, like: Tensor) -> dict[str, Tensor]:
    """Return the total that the images descend on, and each loss.

    Args:
        matched: With losses that are summed over the ranks.
        weights: Of all losses, by tag, on the update's first network.
        share: The rank.
        like: A number of the type and device of the total.
    """
    if matched.weighted is None:
        total = sum((weights[tag] * value for tag, value in matched.losses.items()), torch.zeros_like(like))
    else:  # each network has weights of its own
        total = share.sum(matched.weighted)
    # Lightning repeats the last value of what is not logged any more: a loss that is off now says NaN, not that.
    each = {f"loss/{tag}": matched.losses.get(tag, torch.tensor(torch.nan)) for tag in weights}
    return {"loss/total": total, **each}


def rates_to_log(optimizers: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the learning rate of the first parameter group of each optimizer."""
    return {f"lr/{name}": torch.tensor(one.param_groups[0]["lr"]) for name, one in optimizers.items()}


def seconds_to_log(seconds: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the seconds of an update's parts."""
    return {f"time/{part}": torch.tensor(spent) for part, spent in seconds.items()}
