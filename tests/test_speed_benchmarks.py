"""The speed benchmarks at a tiny size: who does the work that is measured, never how long it takes."""

from __future__ import annotations

import importlib
import json
import time

import pytest
import torch

from benchmarks import common, evaluation, growth, memory, trajectory, update
from lit_condense.engine import RunningEngine
from lit_condense.engine.unrolling import Unroller
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
    names += ("trajectory", "trajectory_memory")
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


TINY_STUDENTS = {"steps": 3, "width": 4, "ipc": 2, "image_size": 8}


@pytest.fixture
def unrolled(monkeypatch):
    """Written down: every student that the engine trains."""
    calls, call = [], Unroller.__call__
    monkeypatch.setattr(Unroller, "__call__", lambda self, *args: (calls.append(args[0]), call(self, *args))[1])
    return calls


@pytest.mark.parametrize("way", [way for way in trajectory.WAYS if way != "literal"])
def test_the_literal_loops_of_trajectory_matching_and_the_engine_do_the_same_update(unrolled, way):
    unroll, checkpointing = trajectory.WAYS[way]
    update = trajectory.Update(trajectory.Work(unroll, **TINY_STUDENTS))
    wanted = update.literally()
    assert not unrolled
    found = update.on(update.started("exact", "never"), checkpointing)
    assert len(unrolled) == 1
    agreement = trajectory.agreement(found, wanted)
    assert agreement["cosine"] == pytest.approx(1, abs=1e-6)
    assert max(agreement[name] for name in ("relative_error", "step_size", "value")) < 1e-4
    assert float(wanted.images.norm()) > 0


@pytest.fixture
def in_this_process(monkeypatch, capsys):
    """The command line of the benchmark of trajectories, its processes and their settings in this one."""
    sizes = {"width": 4, "ipc": 2, "image_size": 8}
    works = [trajectory.Work("full", 2, **sizes), trajectory.Work("constant_memory", 3, **sizes)]
    monkeypatch.setattr(trajectory, "SPEED", dict(zip(works, (True, False), strict=True)))
    monkeypatch.setattr(trajectory, "MEMORY", {4: (1, 2)})
    for name in ("limit_memory", "keep_freed_memory"):
        monkeypatch.setattr(trajectory, name, lambda *_: None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # is set, and put back after the test

    def child(module, **options):
        assert module == "benchmarks.trajectory"
        trajectory.benchmark(**options)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(trajectory, "child", child)


def test_every_piece_of_work_with_trajectories_is_timed_in_turns(in_this_process, unrolled, tmp_path):
    trajectory.benchmark(rounds=2, threads=torch.get_num_threads(), folder=tmp_path)
    cases = json.loads((tmp_path / "trajectory.json").read_text())["cases"]
    assert [case["unroll"] for case in cases] == ["full", "constant_memory"]
    for case in cases:
        for one in filter(None, (case, case["where_both_keep_freed_memory"])):
            engine = one["engine"]["fast"]  # too small to be compiled: both modes are one
            assert set(one["engine"]) == {"fast"}
            assert engine["faster"] == pytest.approx(
                one["literal_loop"]["median"] / engine["seconds"]["median"], abs=0.006
            )
            assert engine["against_literal_loop"]["relative_error"] < 1e-4
    # two pieces of work, one of them under two allocators; one update that is not counted
    assert len(unrolled) == 3 * (1 + 2)


def test_memory_of_trajectories_is_measured_for_every_way(in_this_process, unrolled, tmp_path):
    trajectory.benchmark(memory=True, threads=torch.get_num_threads(), folder=tmp_path)
    cases = json.loads((tmp_path / "trajectory_memory.json").read_text())["cases"]
    assert [(case["way"], case["steps"]) for case in cases] == [(way, n) for way in trajectory.WAYS for n in (1, 2)]
    assert all(0 < case["before_mib"] <= case["peak_mib"] for case in cases)
    assert len(unrolled) == 2 * 3  # not by the literal loop


@pytest.mark.slow
def test_an_update_of_trajectories_that_finds_no_memory_does_not_fit():
    options = {"measure": "memory", "steps": 2, "width": 128, "ipc": 50}
    assert common.child("benchmarks.trajectory", **options, way="literal", most_gib=1.5) is None
