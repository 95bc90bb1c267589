"""bfloat16 only where the device has instructions for it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from lit_condense.engine import Engine
from lit_condense.engine.hardware import device_name, multiplies_bfloat16
from tests.engine.test_execution_plan import convnet

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True], ids=["emulates bfloat16", "multiplies bfloat16"])
def native(request, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: request.param)
    return request.param


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="reads the flags that Linux says of x86"
)
def test_the_processor_is_asked_for_what_linux_says_of_it():
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].splitlines()[0].split()
    assert multiplies_bfloat16(CPU) == bool({"avx512_bf16", "amx_tile"} & set(flags))


def test_either_instruction_is_enough_and_other_devices_have_none(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert multiplies_bfloat16(CPU) == amx
    assert not multiplies_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(("capability", "native"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_that_emulate_bfloat16_are_told_by_their_compute_capability(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert multiplies_bfloat16(torch.device("cuda", 0)) == native


def test_a_device_is_named_with_what_its_seconds_depend_on(native):
    found = device_name(CPU)
    assert found.endswith(f"{torch.get_num_threads()} threads")
    assert torch.backends.cpu.get_cpu_capability() in found
    assert ("bfloat16" in found) == native
    assert device_name(torch.device("meta")) == "meta"


def test_fast_is_float32_where_bfloat16_would_be_emulated(native):
    found = Engine().start(convnet(), torch.zeros(256, 3, 32, 32), synthetic_images=10, student_images=[100])
    forward = "bfloat16" if native else "float32"
    assert found.description == (
        f"real side and training: {forward}, compiled; synthetic side: {forward}, compiled; "
        f"students in batches of 100: {forward}, compiled"
    )
    assert Engine("exact").mode_on(CPU) == "exact"


@pytest.mark.usefixtures("native")
def test_who_wants_all_compiled_gets_bfloat16_everywhere():
    assert Engine(compile="always").mode_on(CPU) == "fast"
    assert Engine("exact", "always").mode_on(CPU) == "exact"
