"""What a run leaves behind in its process and on the disk: its result, and nothing else."""

from __future__ import annotations

import ctypes
import gc
import getpass
import os
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense.augmentation import AlwaysOn
from lit_condense.cli import main
from lit_condense.errors import NonFiniteError
from lit_condense.evaluation import Evaluation
from lit_condense.init import Clustered
from lit_condense.inner import Pool, TrainOnReal, TrainOnSynthetic
from lit_condense.matching import (
    ClassAwareCrossEntropy,
    ClassMeanGradientMatching,
    FeatureMatching,
    GradientMatching,
)
from lit_condense.parametrization import MultiFormation
from lit_condense.runs.checkpointing import AtomicCheckpointIO
from lit_condense.sampling import Representative
from tests.cli_helpers import write_config
from tests.helpers import VALIDATING, Poisoned, fitted
from tests.processes import ended, process, wait_for

# ------------------------------------------------------------------ memory


def live_tensors():
    """The number of tensors that Python holds, and the bytes behind them."""
    gc.collect()
    # exactly these types: a compiler, where another test woke one, keeps tensors without data
    found = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found}
    return len(found), sum(storages.values())


def resident_bytes():
    """Memory of this process, without what the allocator merely keeps."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Memory(Callback):
    """Measures after some updates, all at the same point of a network's life."""

    def __init__(self, updates):
        self.updates, self.tensors, self.resident = updates, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step in self.updates:
            self.tensors.append(live_tensors())
            self.resident.append(resident_bytes())


TRAINED_ON_ITSELF = {
    "losses": (GradientMatching, ClassMeanGradientMatching),
    "inner": TrainOnSynthetic(5, epochs=1, momentum=0.9),
    "sampling": Representative(6, interval=5),
}
POOL = {
    "losses": (FeatureMatching, ClassAwareCrossEntropy),
    "inner": Pool(20, 1, trained=20, steps=1, batch_size=8, reset_meters_every=9),
    "grad_share_every": 10,
}


def memory_of(updates, folder, losses, **settings):
    """A run that trains networks, chooses real images, evaluates and saves."""
    memory = Memory(updates)
    saving = ModelCheckpoint(folder, every_n_train_steps=10, monitor="step", mode="max", save_top_k=2, save_last=True)
    trainer = {"limit_val_batches": None, "val_check_interval": 30, "plugins": [AtomicCheckpointIO()]}
    fitted(
        *[loss() for loss in losses],
        memory,
        saving,
        max_steps=max(updates),
        trainer={**trainer, "enable_checkpointing": True},
        evaluation=Evaluation(epochs=1, quick_repeats=1),
        non_finite="skip",
        **settings,
    )
    return memory


@pytest.mark.parametrize("last", [100, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("settings", [TRAINED_ON_ITSELF, POOL], ids=["one network", "a pool of 20"])
def test_the_memory_of_a_run_is_flat(tmp_path, settings, last):
    memory = memory_of((35, last - 35, last - 5), tmp_path, **settings)
    assert memory.tensors[0] == memory.tensors[1] == memory.tensors[2]
    assert memory.resident[2] - memory.resident[0] < 8 * 2**20


# ------------------------------------------------------------------ the process


def state_of_process():
    """Everything global that a run could have changed."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
    }


EVERYTHING = {
    "ipc": 1,
    "sampling": Representative(6, interval=1),
    "inner": TrainOnReal(2, images=8, batch_size=4),
    "parametrization": MultiFormation(2),
    "init": Clustered(),
    "augmentation": AlwaysOn(),
    "evaluation": Evaluation("idc", epochs=2, quick_repeats=1),
}


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["dc", "idc and dream"])
@pytest.mark.parametrize("trainer", [VALIDATING, {"precision": "64-true"}], ids=["float32", "float64"])
def test_a_fit_leaves_the_process_as_it_was(settings, trainer):
    before = state_of_process()
    fitted(trainer=trainer, **settings)
    assert state_of_process() == before


def test_a_fit_that_fails_leaves_the_process_as_it_was():
    before = state_of_process()
    with pytest.raises(NonFiniteError):
        fitted(Poisoned((1,)))
    assert state_of_process() == before


# ------------------------------------------------------------------ the disk

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _record_writes(args, places, journal):
    """Be a process of the command line that writes down every path it creates, opens for writing, moves or removes."""
    torch.set_num_threads(1)
    os.chdir(places["cwd"])
    os.environ.update(HOME=places["home"], TMPDIR=places["tmp"], XDG_CACHE_HOME=places["home"])
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(places["tmp"]) / f"torchinductor_{getpass.getuser()}")
    tempfile.tempdir = None  # it is looked up once, which may have been before
    record = Path(journal).open("a", buffering=1)  # noqa: SIM115 - until the process ends
    position = {"os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.symlink": 1, "os.link": 1}

    def written(event, arguments):
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            path = arguments[0]
        elif event in position:
            path = arguments[position[event]]
        else:
            return
        if not isinstance(path, int):
            record.write(f"{os.path.abspath(os.fsdecode(path))}\n")  # noqa: PTH100 - resolving would touch the disk

    sys.addaudithook(written)
    main(args)


def written_elsewhere(tmp_path, *arguments):
    """Run and return every path outside the run's folder that was written to."""
    places = {name: str(tmp_path / name) for name in ("home", "tmp", "cwd")}
    run, journal = tmp_path / "run", tmp_path / "journal"
    for folder in (run, *map(Path, places.values())):
        folder.mkdir()
    args = ["fit", *write_config(run), *arguments]
    log = tmp_path / "log"
    with ended([process(_record_writes, args, places, str(journal), log=log)]) as (one,):
        assert wait_for([one], 300) == [0], log.read_text()[-3000:]
    paths = [Path(line) for line in journal.read_text().splitlines()]
    assert run / "tiny" / "condensed.safetensors" in paths
    elsewhere = {str(path) for path in paths if run not in path.parents and path not in (run, Path(os.devnull))}
    return elsewhere | {str(path) for folder in places.values() for path in Path(folder).rglob("*")}


def test_nothing_is_written_outside_the_folder_of_the_run(tmp_path):
    assert written_elsewhere(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_compiling_writes_into_the_compiler_cache_only(tmp_path):
    engine = ["--model.engine", "Engine", "--model.engine.compile", "always"]
    elsewhere = written_elsewhere(tmp_path, *engine, "--trainer.max_steps", "1")
    remaining = [Path(path) for path in elsewhere if Path(path).is_file()]
    cache = f"torchinductor_{getpass.getuser()}"
    assert {path for path in remaining if cache not in path.parts} == set()
    assert any(path.name.endswith(".cpp") for path in remaining)
