"""What the device of a run is, and what it computes itself."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

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


def device_name(device: torch.device) -> str:
    """Return what a device calls itself, a processor with its instructions and the threads of this process.

    Seconds of two runs can only be compared where this is the same.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    instructions = [torch.backends.cpu.get_cpu_capability(), *(["bfloat16"] if multiplies_bfloat16(device) else [])]
    return f"{_processor()} ({', '.join(instructions)}), {torch.get_num_threads()} threads"


def _processor() -> str:
    """Return the processor's name; Linux keeps it where Python does not look."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
