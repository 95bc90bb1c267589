"""Seconds an image update, straightforward loop and engine alternating in one run.

``python -m benchmarks.update --ipc 1 --updates 5`` writes ``benchmarks/results/update_<device>_ipc<k>.json``.
The engine runs as users run it, inside ``Trainer.fit`` with the default settings; a callback runs the straightforward
update before each of the engine's. Both see 10 classes x 256 real images of 3x32x32 and ConvNet-3, width 128.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from lightning.pytorch import Callback, Trainer

from benchmarks.common import CLASSES, REAL, RESULTS, SHAPE, RandomImages, columns, machine, quiet_trainer, write
from benchmarks.straightforward import match, train
from lit_condense import SyntheticSet
from lit_condense.engine import Engine
from lit_condense.inner import TrainOnSynthetic, loops_for
from lit_condense.matching import GradientMatching, Progress
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey


class Alternating(Callback):
    """Runs and times the straightforward update before each engine update."""

    def __init__(self, ipc: int, epochs: int) -> None:
        self.ipc, self.epochs = ipc, epochs
        self.slow: list[dict[str, float]] = []
        self.fast: list[dict[str, float]] = []
        self.images = torch.randn(CLASSES * ipc, *SHAPE).requires_grad_()
        self.optimizer = torch.optim.SGD([self.images], lr=0.1, momentum=0.5)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: int, batch_idx: int) -> None:
        real = pl_module.data.real
        network = ConvNet(SHAPE[0], SHAPE[1:], CLASSES)
        weights = torch.optim.SGD(network.parameters(), lr=0.01)
        labels = torch.arange(CLASSES).repeat_interleave(self.ipc)
        started = time.perf_counter()
        chosen = [real.random_of_class(c, REAL, RandomKey(1, (batch, c))) for c in range(CLASSES)]
        match(network, self.images, self.optimizer, [real.at(indices) for indices in chosen], self.ipc)
        matched = time.perf_counter()
        train(network, self.images, labels, weights, self.epochs)
        self.slow.append({"match": matched - started, "inner": time.perf_counter() - matched})

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: int, batch_idx: int) -> None:
        logged = trainer.callback_metrics
        self.fast.append({"match": float(logged["time/match"]), "inner": float(logged["time/inner"])})


def agreement(module: SyntheticSet) -> dict[str, float]:
    """How far the image gradient of one update is from the one computed in float64."""
    progress = Progress(0, 0, 0)
    module._renew(0)
    quick = module._match(progress)[0].double()
    engine, network = module._engine, module._inner.network
    module._inner.network = network.double()
    module._engine = Engine("exact", "never").start(network, torch.zeros(REAL, *SHAPE, dtype=torch.float64))
    module.images.data = module.images.data.double()
    exact = module._match(progress)[0]
    module.images.data, module._inner.network, module._engine = module.images.data.float(), network.float(), engine
    return {
        "relative_error": float((quick - exact).norm() / exact.norm()),
        "cosine": float(torch.cosine_similarity(quick.flatten(), exact.flatten(), dim=0)),
    }


def benchmark(ipc: int = 1, updates: int = 5, mode: Literal["exact", "fast"] = "fast", threads: int = 2) -> None:
    """Time both and write the JSON.

    Args:
        ipc: Images per class.
        updates: Counted updates, after one that is not.
        mode: The engine's.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    epochs = 0 if ipc == 1 else loops_for(ipc)[1]
    alternating = Alternating(ipc, epochs)
    inner = TrainOnSynthetic(updates=1) if ipc == 1 else TrainOnSynthetic(updates=updates + 2, epochs=epochs)
    module = SyntheticSet(ipc, partial(ConvNet, width=128, depth=3), inner=inner, engine=Engine(mode))
    trainer = quiet_trainer(updates + 1, [GradientMatching(), alternating])
    trainer.fit(module, datamodule=RandomImages())
    result = {
        "what": f"DC image update at IPC {ipc}" + (f" plus {epochs} epochs of inner training" if epochs else ""),
        **machine(threads),
        "route": module._engine.route,
        "straightforward": columns(alternating.slow[1:]),
        "engine": columns(alternating.fast[1:]),
        "first_engine_update_with_compiling": round(sum(alternating.fast[0].values()), 2),
        "image_gradient_against_float64": agreement(module),
    }
    slow, fast = result["straightforward"]["total"], result["engine"]["total"]
    result["speedup_of_medians"] = round(slow["median"] / fast["median"], 2)
    path = write(RESULTS, f"update_cpu_ipc{ipc}_{mode}", result)
    print(f"{path}: {result['speedup_of_medians']}x")


if __name__ == "__main__":
    auto_cli(benchmark)
