"""The arithmetic behind docs/scaling.md: memory, traffic and time of an update at ImageNet-1K, on paper."""

from __future__ import annotations

import torch
from tables import markdown
from torch.utils.flop_counter import FlopCounterMode

from lit_condense.networks import ConvNet

CLASSES, SIDE, CHANNELS = 1000, 224, 3
REAL_IMAGES = 256
COPIES = 3  # images, their gradient, their momentum
RATE = 150e12  # FLOP/s a GPU keeps up in the forward and backward passes (assumed)
NETWORK_BYTES = {8: 300e9, 64: 50e9}  # bytes/s between GPUs: within a node, between nodes (assumed)
GB = 1e9


def forward_flop(depth: int = 6, width: int = 128) -> float:
    """Return FLOP of the forward pass of one image."""
    with torch.device("meta"):
        network = ConvNet(CHANNELS, SIDE, CLASSES, width=width, depth=depth)
        image = torch.empty(1, CHANNELS, SIDE, SIDE)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops())


def table() -> str:
    """Return one row for each number of images a class and of GPUs."""
    flop = forward_flop()
    rows = []
    for ipc in (1, 10, 50):
        images = ipc * CLASSES * CHANNELS * SIDE**2 * 4.0
        # real: forward and backward; synthetic: forward, backward and their double backward, about 9 forward passes
        update = CLASSES * (3 * REAL_IMAGES + 9 * ipc) * flop
        for gpus in (8, 64):
            traffic = 2 * (gpus - 1) / gpus * images
            rows.append(
                [
                    str(ipc),
                    str(gpus),
                    f"{COPIES * images / GB:.1f} GB",
                    f"{update / 1e15:.1f} PFLOP",
                    f"{update / gpus / RATE:.2f} s",
                    f"{traffic / GB:.1f} GB",
                    f"{traffic / NETWORK_BYTES[gpus]:.3f} s",
                ]
            )
    header = ("images per class", "GPUs", "memory", "arithmetic of an update", "its time", "traffic", "its time")
    return markdown(header, rows)
