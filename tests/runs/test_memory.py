from __future__ import annotations

import subprocess
import sys

import pytest

from lit_condense.runs import memory

PROGRAM = """
import resource, sys
import torch
from lit_condense.runs.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def use():
    torch.ones(2**24).add(1)  # two blocks of 64 MiB: glibc learns to keep blocks of up to 32 MiB by itself
for _ in range(10):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the page faults of glibc's allocator")
def test_large_blocks_are_used_again_without_asking_the_system():
    assert 4 * page_faults("kept") < page_faults("by default")


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
