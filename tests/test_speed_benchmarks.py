"""The speed benchmarks at a tiny size: who does the work that is measured, never how long it takes."""

from __future__ import annotations

import importlib
import time

import pytest

from benchmarks import common, evaluation, growth, memory, update
from lit_condense.engine import RunningEngine
from lit_condense.evaluation import several
from tests.cli_helpers import REPOSITORY


@pytest.fixture
def tiny(monkeypatch):
    """Settings of a benchmark with a network that takes no time."""

    def settings(method, ipc, updates, mode):
        config = published(method, ipc, updates, mode)
        model = config["model"]["init_args"]
        model["network"]["init_args"]["width"] = 4
        model["sampling"]["init_args"]["batch_size"] = 8
        return config

    published = update.settings
    monkeypatch.setattr(memory, "settings", settings)
    monkeypatch.setattr(update, "settings", settings)


@pytest.fixture
def engine_calls(monkeypatch):
    """Written down: every call of the engine."""
    calls, run = [], RunningEngine.run

    def counted(self, *args, **kwargs):
        calls.append(args[0])
        return run(self, *args, **kwargs)

    monkeypatch.setattr(RunningEngine, "run", counted)
    return calls


@pytest.mark.parametrize("method", ["dc", pytest.param("idc", marks=pytest.mark.slow)])
def test_each_process_of_the_memory_benchmark_does_its_own_updates_only(tiny, engine_calls, monkeypatch, method):
    slow = []
    start = update.Alternating.on_train_batch_start
    monkeypatch.setattr(
        update.Alternating, "on_train_batch_start", lambda self, *args: (slow.append(args), start(self, *args))
    )
    assert memory.peak_of("reference", method, 1, "fast") > 0
    assert (len(slow), len(engine_calls)) == (memory.UPDATES, 0)
    assert memory.peak_of("engine", method, 1, "fast") > 0
    assert len(slow) == memory.UPDATES
    assert engine_calls


def test_a_cell_of_the_growth_table_says_what_it_did(monkeypatch):
    monkeypatch.setattr(growth, "network_of", lambda classes, size: {"width": 4, "real": 6})
    started = time.perf_counter()
    found = growth.cell(2, 4, 16, 3, updates=2, mode="fast")
    elapsed = time.perf_counter() - started
    seconds = found["seconds"]
    assert 0 < seconds["min"] <= seconds["median"] < elapsed
    imported = 100  # MiB that a process with PyTorch holds at least
    assert imported < found["peak_mib"] <= common.peak_mib()
    assert "eager" in found["plan"]


@pytest.mark.slow
def test_a_process_that_fails_is_no_process_without_memory():
    with pytest.raises(RuntimeError, match=r"benchmarks\.growth"):
        common.child("benchmarks.growth", ipc=0)


def test_every_table_of_speed_can_be_built_and_says_what_was_not_measured(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    tables = importlib.import_module("speed_tables")
    names = ("updates", "allocator", "arithmetic", "memory", "startup", "growth", "processes")
    for name in names:
        text = getattr(tables, name)()
        assert "Not measured yet" in text or len(text.splitlines()) > 2
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert all("Not measured yet" in getattr(tables, name)() for name in names)


@pytest.mark.parametrize("who", evaluation.WHO)
def test_each_process_of_the_evaluation_benchmark_evaluates_its_own_way(monkeypatch, who):
    calls = []
    for name in ("train_network", "evaluate"):
        home = several if name == "train_network" else evaluation
        real = getattr(home, name)
        monkeypatch.setattr(home, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    found = evaluation.judged_by(who, ipc=10, networks=2, epochs=3)
    assert 0 < found["accuracy"] <= 1
    assert found["seconds"] > 0
    assert set(calls) == {"evaluate" if who == "reference" else "train_network"}
