"""What the device of a run computes itself."""

from __future__ import annotations

import torch

NATIVE_FROM = (8, 0)
"""Compute capability of the first NVIDIA GPUs with bfloat16 units (Ampere)."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16.

    PyTorch computes them everywhere. Without such instructions it converts back and forth, and a convolution takes many
    times as long as in float32 (``torch.cuda.is_bf16_supported()`` says yes to GPUs that emulate, too). Processors are
    asked for AVX512-BF16 and AMX. All others count as having none; ARM was never measured.

    Args:
        device: Where a run computes.
    """
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= NATIVE_FROM
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
