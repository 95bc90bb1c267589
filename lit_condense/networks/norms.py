"""The normalisation layers a convolutional network can be built with."""

from __future__ import annotations

from typing import Literal

from torch import nn

from lit_condense.errors import SettingsError, check_choice

Norm = Literal["instance", "batch", "layer", "group", "none"]

GROUPS = 4
"""Groups of the "group" norm (Zhao et al., ICLR 2021, networks of the published program)."""


def make_norm(norm: Norm, channels: int, size: tuple[int, int], network: str) -> nn.Module:
    """Return the layer that normalises feature maps (n, channels, height, width).

    "instance" is a group norm with one channel a group, with learned scale and shift, as in the published programs
    (not ``nn.InstanceNorm2d``, which has neither by default). Every layer starts with scale 1, shift 0 and uses
    PyTorch's epsilon 1e-5.

    Args:
        norm: Which layer.
        channels: Channels of the feature map.
        size: Height and width of the feature map at this depth; "layer" has one scale and shift for each entry.
        network: Name of the network, for messages.

    Raises:
        SettingsError: The norm is unknown, does not divide the channels, or would see a single pixel.
    """
    check_choice(f"{network}.norm", norm, Norm)
    if norm == "instance":
        # PyTorch computes this without complaint, and every feature becomes its shift whatever the image
        if size == (1, 1):
            raise SettingsError(
                f"{network} would apply instance norm to feature maps of one pixel, which erases the image: use larger "
                "images, or norm batch, layer, group or none."
            )
        return nn.GroupNorm(channels, channels)
    if norm == "group":
        if channels % GROUPS:
            raise SettingsError(
                f"{network} with group norm needs a width that {GROUPS} divides, but got {channels}: change the width."
            )
        return nn.GroupNorm(GROUPS, channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "layer":
        return nn.LayerNorm([channels, *size])
    return nn.Identity()
