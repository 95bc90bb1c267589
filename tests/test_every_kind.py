"""What every loss, loop, sampling and storage keeps: the order of losses, the size of blocks, and breaks do not matter.

The runs are those of ``tests/distributed/cases.py``, which also end alike on any number of processes.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import inner, matching, parametrization, sampling
from lit_condense.engine import Engine
from lit_condense.inner import InnerLoop
from lit_condense.matching import Loss
from lit_condense.parametrization import Parametrization
from lit_condense.sampling import Sampling
from tests.distributed.cases import CASES
from tests.helpers import Poisoned, Recorder, TinyData, fitted

QUICK = ("everything", "dream, multi-formation", "until over-fitting", "pool", "whole", "importance")
"""The default run; the others are slow ones."""
SOUND = [name for name, make in CASES.items() if not any(isinstance(c, Poisoned) for c in make()["callbacks"])]
EVERY = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SOUND if name != "evaluated"]
WITHIN = {"rtol": 0, "atol": 1e-6}


def run(name, *callbacks, step=1, max_steps=None, path=None, trainer=None, **changes):
    """The images before the first update of a case and after every one."""
    what, images = CASES[name](), Recorder()
    fitted(
        *what["callbacks"][::step],
        images,
        *callbacks,
        data=TinyData(what["sizes"]),
        max_steps=max_steps or what["max_steps"],
        trainer={**what["trainer"], **(trainer or {})},
        path=path,
        **{**what["settings"], **changes},
    )
    return torch.stack(images.images)


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_losses_does_not_matter(name):
    if len(CASES[name]()["callbacks"]) > 1:
        torch.testing.assert_close(run(name, step=-1), run(name), **WITHIN)


@pytest.mark.parametrize("name", EVERY)
def test_the_size_of_blocks_does_not_matter(name):
    engine = CASES[name]()["settings"].get("engine", Engine())
    one, all_at_once = (
        run(name, max_steps=2, engine=Engine(engine.mode, engine.compile, classes_per_block=size)) for size in (1, 5)
    )
    torch.testing.assert_close(one, all_at_once, **WITHIN)


@pytest.mark.parametrize("name", EVERY)
def test_a_broken_run_ends_with_the_same_bytes(name, tmp_path):
    stop = CASES[name]()["max_steps"] - 1
    kept = {"trainer": {"enable_checkpointing": True}}
    images = run(name, ModelCheckpoint(tmp_path / "straight"), **kept)
    run(name, ModelCheckpoint(tmp_path, filename="broken", every_n_train_steps=stop), max_steps=stop, **kept)
    later = run(name, ModelCheckpoint(tmp_path / "on"), path=tmp_path / "broken.ckpt", **kept)
    assert torch.equal(images[stop:], later)


@pytest.mark.parametrize(
    ("package", "base"),
    [(matching, Loss), (inner, InnerLoop), (sampling, Sampling), (parametrization, Parametrization)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_one_is_among_the_cases(package, base):
    exported = {getattr(package, name) for name in package.__all__}
    kinds = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, base)}
    parts = [part for make in CASES.values() for part in (*make()["callbacks"], *make()["settings"].values())]
    defaults = {inner.TrainOnSynthetic, sampling.RandomSampling}  # of ``fitted``
    own = {kind for kind in kinds if kind is not base and not inspect.isabstract(kind)}
    assert own - {type(part) for part in parts} - defaults == set()
