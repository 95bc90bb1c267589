"""Seconds an image update, reference loop and engine alternating in one run.

``python -m benchmarks.update --method dc --ipc 1 --updates 5`` writes
``benchmarks/results/update_<device>_<method>_ipc<k>_<mode>.json``. The engine runs as users run it, inside
``Trainer.fit`` with the settings of the method's CIFAR-10 config; a callback runs the reference loop before
each of the engine's. Both see 10 classes of random 3x32x32 images, ConvNet-3 of width 128 and the published batches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from benchmarks.common import (
    CLASSES,
    RESULTS,
    SHAPE,
    RandomImages,
    columns,
    convolution_rates,
    machine,
    now,
    quiet_trainer,
    write,
)
from benchmarks.methods import config_of, made, published_batch
from benchmarks.reference_loop import match, match_idc, train, train_on_real
from benchmarks.timed import gflop_of
from lit_condense import SyntheticSet
from lit_condense.augmentation.cutmix import mixed
from lit_condense.engine import Engine
from lit_condense.engine.execution_plan import Compile
from lit_condense.inner import loops_for
from lit_condense.matching import Progress
from lit_condense.matching.base import needs_of
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from lit_condense.runs.memory import keep_freed_memory

Method = Literal["dc", "idc", "dream"]
RANDOM = {"class_path": "lit_condense.sampling.RandomSampling"}


class Alternating(Callback):
    """Runs and times the update of the reference loop before each engine update."""

    def __init__(self, module: SyntheticSet, method: Method, ipc: int, device: str = "cpu") -> None:
        self.module, self.method, self.ipc, self.device = module, method, ipc, device
        self.slow: list[dict[str, float]] = []
        self.fast: list[dict[str, float]] = []
        # pixels, or what normalised images look like: one kind for both is enough here
        self.images = torch.rand(CLASSES * ipc, *SHAPE).to(device).requires_grad_()
        self.optimizer = torch.optim.SGD([self.images], lr=0.1 if method == "dc" else 0.005, momentum=0.5)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: int, batch_idx: int) -> None:
        network = ConvNet(SHAPE[0], SHAPE[1:], CLASSES).to(self.device)
        started = now(self.device)
        real = self._real_batches(RandomKey(1, (batch,)))
        if self.method == "dc":
            match(network, self.images, self.optimizer, real, self.ipc)
        else:
            match_idc(network, self.images, self.optimizer, real, self.ipc, self._decoded, self._augmented)
        matched = now(self.device)
        self._train(network, RandomKey(2, (batch,)))
        self._ended = now(self.device)
        self.slow.append({"match": matched - started, "inner": self._ended - matched})

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: int, batch_idx: int) -> None:
        logged = {part: float(trainer.callback_metrics[f"time/{part}"]) for part in ("match", "inner")}
        if self.device != "cpu":
            # what is logged is when a GPU was told: all of the update is counted, and matching, which ends with a wait
            logged["inner"] = now(self.device) - self._ended - logged["match"]
        self.fast.append(logged)

    def _real_batches(self, key: RandomKey) -> list[Tensor]:
        real, sampling = self.module.data.real, self.module.sampling
        return [real.at(sampling.select(real, c, key.fold(c))) for c in range(CLASSES)]

    def _decoded(self, stored: Tensor) -> Tensor:
        return self.module.parametrization.decode(stored, self.module.data.real.normalization)

    def _augmented(self, images: Tensor, c: int) -> Tensor:
        augmentation = self.module.augmentation
        return augmentation.apply(images, augmentation.draw(RandomKey(3, (c,)), SHAPE[1:], samples=1))

    def _train(self, network: ConvNet, key: RandomKey) -> None:
        if self.method == "dc":
            labels = torch.arange(CLASSES, device=self.device).repeat_interleave(self.ipc)
            train(network, self.images, labels, torch.optim.SGD(network.parameters(), lr=0.01), epochs_of(self.ipc))
        else:
            weights = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            train_on_real(network, weights, self._training_batches(key))

    def _training_batches(self, key: RandomKey) -> Iterator[tuple[Tensor, Tensor]]:
        real, inner = self.module.data.real, self.module.inner
        for step in range(-(-inner.images // inner.batch_size)):  # type: ignore[attr-defined]
            chosen, here = real.mixed(inner.batch_size, key.fold(step)), key.fold("draw", step)  # type: ignore[attr-defined]
            draw = inner.augmentation.draw(here, SHAPE[1:], samples=len(chosen))  # type: ignore[attr-defined]
            images = inner.augmentation.apply(real.at(chosen), draw)  # type: ignore[attr-defined]
            yield mixed(images, real.labels_at(chosen), inner.cutmix, CLASSES, here.fold("cutmix"))  # type: ignore[attr-defined]


def epochs_of(ipc: int) -> int:
    """Return DC's epochs of inner training after an update: with one image a class, a network serves one."""
    return 0 if ipc == 1 else loops_for(ipc)[1]


def agreement(module: SyntheticSet) -> dict[str, float]:
    """How far the image gradient of one update is from the one computed in float64."""
    progress = Progress(0, 0, 0)
    module.inner_network.renew(0)
    matcher = module._matcher
    quick = matcher.on(progress).gradients["images"].double()
    engine, network = matcher.engine, module.inner_network.network
    module.inner_network.network = network.double()
    example = torch.zeros(8, *SHAPE, dtype=torch.float64, device=module.device)
    needs = needs_of(module.matching_losses) | module.sampling.needs
    matcher.engine = Engine("exact", "never", classes_per_block=1, record=False).start(network, example, needs)
    module.images.data = module.images.data.double()
    exact = matcher.on(progress).gradients["images"]
    module.images.data, module.inner_network.network, matcher.engine = (
        module.images.data.float(),
        network.float(),
        engine,
    )
    return {
        "relative_error": float((quick - exact).norm() / exact.norm()),
        "cosine": float(torch.cosine_similarity(quick.flatten(), exact.flatten(), dim=0)),
    }


def benchmark(
    method: Method = "dc",
    ipc: int = 1,
    updates: int = 5,
    mode: Literal["exact", "fast"] = "fast",
    threads: int = 2,
    kept_memory: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    record: bool = True,
    compile: Compile = "auto",
) -> None:
    """Time both and write the JSON.

    Args:
        method: DC; IDC; or DREAM without its k-means (random images on both sides), whose cost ``benchmarks.methods``
            shows.
        ipc: Images per class.
        updates: Counted updates, after one that is not.
        mode: The engine's.
        threads: CPU threads.
        kept_memory: Let the allocator keep what is freed, for both, as the command line does; glibc's default is what
            makes the reference loop slow.
        device: Where.
        record: The engine's.
        compile: The engine's.
    """
    torch.set_num_threads(threads)
    if kept_memory:
        keep_freed_memory()
    config = settings(method, ipc, updates, mode, record, compile)
    module, losses = made(config)
    alternating = Alternating(module, method, ipc, device)
    quiet_trainer(updates + 1, [*losses, alternating], device=device).fit(module, datamodule=RandomImages())
    module.to(device)  # Lightning takes it back to the CPU
    result = {
        "what": name_of(method, ipc),
        **machine(threads, device),
        "allocator": "keeps freed memory" if kept_memory else "glibc's default",
        "plan": module.running.description,
        "reference": columns(alternating.slow[1:]),
        "engine": columns(alternating.fast[1:]),
        "first_engine_update_with_compiling": round(sum(alternating.fast[0].values()), 2),
        "image_gradient_against_float64": agreement(module),
    }
    slow, fast = result["reference"]["total"], result["engine"]["total"]
    gflop = gflop_of(module)
    result["matching"] = {
        "gflop": gflop,
        "gflop_per_second": {who: round(gflop / result[who]["match"]["median"], 1) for who in ("reference", "engine")},
        "convolution_gflop_per_second": convolution_rates(device=device),
    }
    result["speedup_of_medians"] = round(slow["median"] / fast["median"], 2)
    variant = {"_kept": kept_memory, "_unrecorded": not record, f"_compile_{compile}": compile != "auto"}
    ending = "".join(name for name, wanted in variant.items() if wanted)
    path = write(RESULTS, f"update_{device}_{method}_ipc{ipc}_{mode}{ending}", result)
    print(f"{path}: {result['speedup_of_medians']}x")


def settings(
    method: Method, ipc: int, updates: int, mode: str, record: bool = True, compile: Compile = "auto"
) -> dict[str, Any]:
    """Return model and losses of a method's config, with one network for the whole benchmark."""
    config = config_of(method, published_batch(method), ipc, width=128)
    model = config["model"]["init_args"]
    engine = {"mode": mode, "record": record, "compile": compile}
    model["engine"] = {"class_path": "lit_condense.engine.Engine", "init_args": engine}
    if method == "dc":
        one_each = {"updates": 1} if ipc == 1 else {"updates": updates + 2, "epochs": epochs_of(ipc)}
        model["inner"] = {"class_path": "lit_condense.inner.TrainOnSynthetic", "init_args": one_each}
    else:
        model["init"] = {"class_path": "lit_condense.init.RandomReal"}
        model["sampling"] = {**RANDOM, "init_args": {"batch_size": published_batch(method)}}
    return config


def name_of(method: Method, ipc: int) -> str:
    """Return what is timed, in words."""
    if method == "dc":
        training = f" plus {epochs_of(ipc)} epochs of inner training" if ipc > 1 else ""
        return f"DC image update at IPC {ipc}{training}"
    name = "IDC" if method == "idc" else "DREAM, its k-means apart:"
    return f"{name} image update at IPC {ipc} plus its network training on real images"


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    auto_cli(benchmark)
