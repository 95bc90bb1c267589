"""Tiny runs through the command line, in this process or in a new one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lit_condense.cli import main, run
from lit_condense.cli.command import CondenseCLI
from lit_condense.rng import RandomKey

REPOSITORY = Path(__file__).resolve().parent.parent

EVALUATION = {"protocol": "dc", "repeats": 2, "quick_repeats": 1, "epochs": 2, "full_data_steps": 2}


def tiny_config(folder, name="tiny", save_every=1, **model):
    """A run of 4 updates on 10 digits a class, as plain data; everything is written into ``folder/name``."""
    return {
        "out": str(Path(folder) / name),
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 4,
            "val_check_interval": 4,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "lit_condense.matching.GradientMatching", "init_args": {"distance": "row_cosine"}},
            ],
        },
        "checkpoint": {"every_n_train_steps": save_every},
        "dashboard": {"every_n_updates": 2},
        "model": {
            "class_path": "lit_condense.SyntheticSet",
            "init_args": {
                "ipc": 1,
                "network": {"class_path": "lit_condense.networks.ConvNet", "init_args": {"width": 4, "depth": 1}},
                "inner": {"class_path": "lit_condense.inner.TrainOnSynthetic", "init_args": {"updates": 4}},
                "sampling": {"class_path": "lit_condense.sampling.RandomSampling", "init_args": {"batch_size": 4}},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.5}},
                "evaluation": {"class_path": "lit_condense.evaluation.Evaluation", "init_args": dict(EVALUATION)},
                **model,
            },
        },
        "data": {"class_path": "lit_condense.data.Digits", "init_args": {"train_limit_per_class": 10}},
    }


def write_config(folder, name="tiny", save_every=1, **model):
    """Write ``tiny_config`` and return ``["--config", its path]``."""
    path = Path(folder) / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tiny_config(folder, name, save_every, **model), sort_keys=False))
    return ["--config", str(path)]


def write_arrays(path, shape=(1, 8, 8), classes=2, per_class=6, **changes):
    """Write random float images of every class for ``ArrayFile``; ``changes`` replace whole arrays."""
    draw = np.random.Generator(np.random.PCG64(0))
    labels = np.arange(classes * per_class) % classes
    arrays = {
        "train_images": draw.random((len(labels), *shape), dtype=np.float32),
        "train_labels": labels,
        "test_images": draw.random((2 * classes, *shape), dtype=np.float32),
        "test_labels": np.arange(2 * classes) % classes,
    }
    np.savez(path, **{**arrays, **changes})
    return ["--data", "lit_condense.data.ArrayFile", "--data.path", str(path), "--data.layout", "NCHW"]


@contextmanager
def untouched_process():
    """Put back what a run leaves behind in its process: the global seed, the generators, the log level."""
    seeds = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with RandomKey(0).isolated():
            yield
    finally:
        logger.setLevel(level)
        for name, value in seeds.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def cli(*args):
    """Run a command that is expected to work, and return it: its trainer, model and data."""
    with untouched_process():
        return run([str(a) for a in args])


def printed(capsys, *args):
    """What a command prints for ``--print_config``, as text."""
    capsys.readouterr()
    with untouched_process(), pytest.raises(SystemExit) as stopped:
        main([*map(str, args), "--print_config"])
    assert stopped.value.code in (0, None)
    return capsys.readouterr().out


def contents(folder):
    """The files below a folder, each with the hash of its bytes."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    """The files below a folder, by their paths in it."""
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def made(*args):
    """Let a ``fit`` make its trainer, model and data, and return them without running anything."""
    with untouched_process(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(CondenseCLI, "_run_subcommand", lambda self, name: None)
        return run(["fit", *map(str, args), "--trainer.fast_dev_run", "true"])  # a dry run makes no folder


def refusal(capsys, *args):
    """Run a command that is expected to be refused, and return its one message."""
    capsys.readouterr()
    with untouched_process(), pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    code, printed = stopped.value.code, capsys.readouterr()
    # sys.exit(message) prints the message and exits with 1; a mistyped option ends with 2 and prints it itself
    message = code if isinstance(code, str) else printed.err
    assert code != 0
    assert code is not None
    assert message.strip()
    assert "Traceback" not in message + printed.err
    return message


def new_process(*command, cwd=None):
    """Run a command line in a new process; return it with its output, whatever its exit code."""
    # as many threads as here: another number sums in another order, and bytes differ
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd or REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):  # nothing is left of it, unless it hangs
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def succeeded(process):
    """Return the process after showing what it said if it failed."""
    assert process.returncode == 0, process.stderr[-3000:]
    return process


def python_m(module, *args):
    """``python -m module args`` in a new process."""
    return new_process(sys.executable, "-m", module, *args)


def console_script(*args):
    """``lit-condense args`` in a new process."""
    return new_process(Path(sys.executable).parent / "lit-condense", *args)


def card_of(folder):
    """The card.json of a run."""
    return json.loads((Path(folder) / "card.json").read_text())


def checkpoint_of(folder, name="last"):
    """A checkpoint of a run."""
    return torch.load(Path(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)
