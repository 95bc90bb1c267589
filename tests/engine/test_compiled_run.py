"""Compiled runs: what is compiled is compiled once, and without a compiler a run goes on."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from lightning.pytorch import Callback

from lit_condense.engine import Engine
from lit_condense.engine.compilation import DOUBLE_BACKWARD_COMPILES
from lit_condense.inner import TrainOnReal, TrainOnSynthetic
from lit_condense.matching import GradientMatching
from tests.cli_helpers import REPOSITORY, new_process
from tests.helpers import fitted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Compiling(Callback):
    """Writes down what each update spent compiling."""

    def __init__(self):
        self.seconds = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seconds.append(float(trainer.callback_metrics["time/compile"]))


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_a_run_compiles_for_its_first_network_and_never_again(mode):
    torch.compiler.reset()  # an earlier test may have compiled the same
    compiling = Compiling()
    inner = TrainOnSynthetic(updates=2, epochs=2)
    # four networks of two updates; the second update is the first one after inner training
    module = fitted(GradientMatching(), compiling, inner=inner, engine=Engine(mode, "always"), max_steps=8)
    assert module.running.first_order.compiled
    assert module.running.image_gradient.compiled == DOUBLE_BACKWARD_COMPILES
    assert compiling.seconds[0] > 0
    assert compiling.seconds[2:] == [0.0] * 6


def test_a_compiled_run_trains_its_network_as_an_eager_one_does():
    def weights_after(compile):
        inner = TrainOnReal(updates=4, images=32, batch_size=8)
        module = fitted(GradientMatching(), inner=inner, engine=Engine("exact", compile), max_steps=3)
        return module.images.detach(), {n: p.detach() for n, p in module.inner_network.network.named_parameters()}

    (eager_images, eager), (images, compiled) = weights_after("never"), weights_after("always")
    for name, weight in eager.items():
        torch.testing.assert_close(compiled[name], weight, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(images, eager_images, rtol=1e-3, atol=1e-3)


WITHOUT_COMPILER = """
import json, warnings
from lit_condense.engine import Engine
from lit_condense.matching import GradientMatching
from tests.helpers import fitted
images = {}
for compile in ("always", "never"):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module = fitted(GradientMatching(), engine=Engine("fast", compile), max_steps=4)
    images[compile] = module.images.detach()
    found = [str(w.message) for w in said if "torch.compile" in str(w.message)]
    print(json.dumps({"warnings": found, "plan": module.running.description}))
print(json.dumps(float((images["always"] - images["never"]).abs().max())))
"""


def test_without_a_working_compiler_a_run_goes_on_eager(tmp_path):
    environment = {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": tmp_path, "PYTHONPATH": REPOSITORY}
    setting = [f"{name}={value}" for name, value in environment.items()]
    done = new_process("env", *setting, sys.executable, "-c", WITHOUT_COMPILER, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line[:1] in "{0123456789"]
    compiled, eager, difference = lines
    (warning,) = compiled["warnings"]  # though several parts were to be compiled
    assert "going on without" in warning
    assert eager["warnings"] == []
    # in float32, not in the bfloat16 that would have been compiled
    assert compiled["plan"] == "real side and training: float32, eager; synthetic side: float32, eager, class by class"
    assert difference < 1e-5
