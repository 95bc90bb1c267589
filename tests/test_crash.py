"""Sudden death: a run that is killed at any moment, again and again, ends with the bytes of one that was left alone."""

from __future__ import annotations

import itertools
import os
import signal
import sys

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SyntheticSet
from lit_condense.cli import main
from lit_condense.export.condensed_set import save_condensed
from lit_condense.inner import Pool, TrainOnSynthetic
from lit_condense.rng import RandomKey
from lit_condense.runs.files import write_atomically
from tests.cli_helpers import card_of, checkpoint_of, tiny_config
from tests.processes import ended, process, wait_for
from tests.test_resume import same, tensor_bytes

MOMENTS = {
    SyntheticSet.training_step.__name__: 3000,  # an update
    TrainOnSynthetic._train_epoch.__name__: 400,  # training of the inner network
    SyntheticSet._evaluate.__name__: 1500,  # an evaluation
    write_atomically.__name__: 60,  # a checkpoint, until it is renamed
    # the checkpoints of one update: one is written, one removed, last is written
    ModelCheckpoint._save_topk_checkpoint.__name__: 900,
    save_condensed.__name__: 200,  # the result
    "any": 0,  # whatever goes on, the start of the process too
}
"""Name of a function -> calls (of any function) after which a random moment in it or shortly after it lies."""


def die_in(function, times, calls):
    """Kill this process so many calls after a function was called for the given time."""
    left = [times, calls]

    def count(frame, event, argument):
        if left[0] > 0:
            left[0] -= event == "call" and frame.f_code.co_name == function
            return
        left[1] -= 1
        if left[1] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def run(args, moment=None):
    """Be a process of the command line, which dies at a moment."""
    torch.set_num_threads(1)
    if moment is not None:
        die_in(*moment)
    main(args)


def write_run(folder, name, updates):
    inner = {
        "class_path": "lit_condense.inner.TrainOnSynthetic",
        "init_args": {"updates": 5, "epochs": 2, "momentum": 0.9},
    }
    config = tiny_config(folder, name, inner=inner)
    config["trainer"].update(max_steps=updates, val_check_interval=3)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["fit", "--config", str(path)]


def start(folder, name, args, moment=None):
    """Start a process, or one that goes on where the last one was killed."""
    if (folder / name / "checkpoints" / "last.ckpt").exists():
        args = [*args, "--ckpt_path", "last"]
    return process(run, args, moment, log=folder / f"{name}.log")


def finish(folder, name, args):
    with ended([start(folder, name, args)]) as (one,):
        assert wait_for([one], 300) == [0], (folder / f"{name}.log").read_text()[-3000:]


def kill_once(folder, name, args, function, generator, earliest=1, latest=2):
    """Kill a process at a random moment after one of these calls of a function; return whether it still ran."""
    draw = int(torch.randint(1 << 30, (1,), generator=generator))
    moment = (
        None
        if function == "any"
        else (function, earliest + draw % (latest + 1 - earliest), 1 + draw % MOMENTS.get(function, 400))
    )
    with ended([start(folder, name, args, moment)]) as (one,):
        one.join(timeout=2 * draw / (1 << 30) if moment is None else 120)
        if moment is None:
            one.kill()
            one.join()
        assert one.exitcode in (0, -signal.SIGKILL), (folder / f"{name}.log").read_text()[-3000:]
        return one.exitcode != 0


def assert_like_one_left_alone(folder):
    """The set, the checkpoint and the scores are the same, and nothing lies about."""
    alone, killed = folder / "alone", folder / "killed"
    assert tensor_bytes(alone) == tensor_bytes(killed)
    one, other = checkpoint_of(alone), checkpoint_of(killed)
    for part in ("state_dict", "optimizer_states", "lit_condense", "global_step"):
        assert same(one[part], other[part]), part
    scores = [card_of(run)["evaluation"]["condensed"][0]["accuracies"] for run in (alone, killed)]
    assert scores[0] == scores[1]
    files = [
        {path.relative_to(run) for path in run.rglob("*") if "tfevents" not in path.name} for run in (alone, killed)
    ]
    assert files[0] == files[1]
    assert len(list((killed / "checkpoints").iterdir())) == 3  # two and the last


@pytest.mark.timeout(150)
def test_a_run_killed_a_few_times_ends_with_the_bytes_of_one_left_alone(tmp_path):
    alone, args = (write_run(tmp_path, name, updates=8) for name in ("alone", "killed"))
    finish(tmp_path, "alone", alone)
    generator = RandomKey(2).fold("kills").generator()
    for function in ("_train_epoch", "write_atomically"):
        assert kill_once(tmp_path, "killed", args, function, generator, earliest=6, latest=7)
        assert checkpoint_of(tmp_path / "killed")["global_step"] > 0
    assert kill_once(tmp_path, "killed", args, "save_condensed", generator, latest=1)
    finish(tmp_path, "killed", args)
    assert_like_one_left_alone(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_many_times_ends_with_the_bytes_of_one_left_alone(tmp_path):
    alone, args = (write_run(tmp_path, name, updates=120) for name in ("alone", "killed"))
    finish(tmp_path, "alone", alone)
    generator = RandomKey(1).fold("kills").generator()
    kills = [
        function
        for function, _ in itertools.product(MOMENTS, range(5))
        if function != "save_condensed" and kill_once(tmp_path, "killed", args, function, generator)
    ]
    assert len(kills) == 5 * (len(MOMENTS) - 1)  # the run was never over before its last kill
    assert kill_once(tmp_path, "killed", args, "save_condensed", generator, latest=1)
    finish(tmp_path, "killed", args)
    assert_like_one_left_alone(tmp_path)


POOL = {
    "network": {"class_path": "lit_condense.networks.ConvNet", "init_args": {"width": 4, "depth": 1}},
    "inner": {
        "class_path": "lit_condense.inner.Pool",
        "init_args": {"size": 5, "every": 2, "steps": 2, "batch_size": 10, "reset_meters_every": 7},
    },
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_with_a_pool_killed_many_times_ends_with_the_bytes_of_one_left_alone(tmp_path):
    for name in ("alone", "killed"):
        config = tiny_config(tmp_path, name, **POOL)
        losses = ["lit_condense.matching.FeatureMatching", "lit_condense.matching.ClassAwareCrossEntropy"]
        config["trainer"].update(max_steps=40, callbacks=[{"class_path": loss} for loss in losses])
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    args = {name: ["fit", "--config", str(tmp_path / f"{name}.yaml")] for name in ("alone", "killed")}
    finish(tmp_path, "alone", args["alone"])
    generator = RandomKey(4).fold("kills").generator()
    moments = (SyntheticSet.training_step.__name__, Pool.advance.__name__, write_atomically.__name__)
    kills = [kill_once(tmp_path, "killed", args["killed"], name, generator, 3, 5) for name in moments * 2]
    assert sum(kills) >= 5
    finish(tmp_path, "killed", args["killed"])
    assert_like_one_left_alone(tmp_path)


def write_trajectories(folder):
    """The command lines that record experts of a few digits and match them."""
    network = {"class_path": "lit_condense.networks.ConvNet", "init_args": {"width": 8, "depth": 2}}
    data = {"class_path": "lit_condense.data.Digits", "init_args": {"train_limit_per_class": 10}}
    model = {"experts": 3, "epochs": 6, "batch_size": 20, "network": network}
    experts = {"model": {"class_path": "ExpertTrajectories", "init_args": model}, "data": data}
    experts["trainer"] = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    (folder / "experts.yaml").write_text(yaml.safe_dump(experts))
    matching = {"experts": str(folder / "alone_experts"), "max_start_epoch": 4, "steps": 4, "batch_size": 6}
    config = tiny_config(
        folder,
        "matched",
        network=network,
        inner="lit_condense.inner.FreshNetwork",
        learnables={"class_path": "lit_condense.synthetic.Learnables", "init_args": {"inner_lr": 0.05}},
    )
    one = {"class_path": "lit_condense.matching.TrajectoryMatching", "init_args": matching}
    config["trainer"].update(max_steps=8, callbacks=[one])
    return ["fit", "--config", str(folder / "experts.yaml")], config


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_experts_and_runs_on_them_killed_again_and_again_end_with_the_bytes_of_those_left_alone(tmp_path):
    experts, config = write_trajectories(tmp_path)
    generator, alone, killed = RandomKey(3).fold("kills").generator(), tmp_path / "alone_experts", tmp_path / "experts"
    finish(tmp_path, "alone_experts", [*experts, "--out", str(alone)])
    kills = 0
    for moment in (("add", 3, 20), ("keep", 2, 40), ("write_atomically", 4, 15), ("finish", 1, 3), ("step", 30, 200)):
        with ended([start(tmp_path, "experts", [*experts, "--out", str(killed)], moment)]) as (one,):
            one.join(timeout=120)
            kills += one.exitcode == -signal.SIGKILL
    assert kills >= 4
    finish(tmp_path, "experts", [*experts, "--out", str(killed)])
    files = {path.name: path.read_bytes() for path in sorted(alone.glob("expert*"))}
    assert files == {path.name: path.read_bytes() for path in sorted(killed.glob("expert*"))}
    assert not [path.name for path in killed.iterdir() if path.name.startswith(".")]

    for name in ("alone", "killed"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**config, "out": str(tmp_path / name)}))
    args = {name: ["fit", "--config", str(tmp_path / f"{name}.yaml")] for name in ("alone", "killed")}
    finish(tmp_path, "alone", args["alone"])
    for function in (SyntheticSet.training_step.__name__, write_atomically.__name__):
        assert kill_once(tmp_path, "killed", args["killed"], function, generator, earliest=3, latest=5)
    finish(tmp_path, "killed", args["killed"])
    assert_like_one_left_alone(tmp_path)
