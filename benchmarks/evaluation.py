"""Seconds to evaluator a set of digits by fresh networks: reference loop and evaluator alternate, a process each.

``python -m benchmarks.evaluation --ipc 1`` writes ``benchmarks/results/evaluation_<device>_ipc<k>.json``: 20 networks
(ConvNet-2, width 32) trained by protocol ``dc`` on real digits, k a class, and tested on all test digits. On a CPU a
second file has the times where both processes keep freed memory. They are processes because how memory is kept is for a
whole process, and judging small networks changes it. ``--images random`` takes random images of CIFAR-10's shape and
ConvNet-3 of width 128 instead.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any, Literal

import torch
from jsonargparse import auto_cli

from benchmarks.common import RESULTS, RandomImages, child, machine, now, spread, write
from benchmarks.reference_loop import evaluate
from lit_condense.data import CondenseDataModule, Digits
from lit_condense.evaluation import Evaluation, Evaluator, SmallSet
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from lit_condense.runs.memory import keep_freed_memory
from lit_condense.sharding import Share

Images = Literal["digits", "random"]
NETWORKS: dict[Images, dict[str, int]] = {"digits": {"width": 32, "depth": 2}, "random": {"width": 128, "depth": 3}}
WORDS = {"digits": "digits", "random": "images of 32 x 32 pixels, ConvNet-3"}
WHO = ("reference", "evaluator")
ALLOCATORS = {"glibc's default": "", "keeps freed memory": "_kept"}
"""How freed memory is treated -> what is added to the file's name."""


def benchmark(
    ipc: int = 1,
    networks: int = 20,
    epochs: int = 300,
    rounds: int = 5,
    threads: int = 2,
    who: Literal["reference", "evaluator"] | None = None,
    kept_memory: bool = False,
    images: Images = "digits",
    device: Literal["cpu", "cuda"] = "cpu",
) -> None:
    """Time both and write the JSON.

    Args:
        ipc: Images per class.
        networks: Fresh networks of an evaluation.
        epochs: Of each training.
        rounds: Counted evaluations of each, under each way to treat freed memory.
        threads: CPU threads.
        who: Be the process of one evaluation by the one or the other.
        kept_memory: Let that process keep what it frees, as the command line does.
        images: What the networks are trained on.
        device: Where.
    """
    if who is not None:
        torch.set_num_threads(threads)
        if kept_memory:
            keep_freed_memory()
        print(json.dumps(judged_by(who, ipc, networks, epochs, images, device)))
        return
    options: dict[str, Any] = {"ipc": ipc, "networks": networks, "epochs": epochs, "threads": threads}
    options |= {"images": images, "device": device}
    name = f"evaluation_{device}_ipc{ipc}" + ("" if images == "digits" else f"_{images}")
    for allocator, ending in list(ALLOCATORS.items())[: 2 if device == "cpu" else 1]:
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in WHO}
        for _ in range(rounds):
            for one in WHO:
                done = child("benchmarks.evaluation", **options, who=one, kept_memory=bool(ending))
                assert done is not None, "a digit network fits everywhere"
                found[one].append(done)
        seconds = {one: spread([done["seconds"] for done in found[one]]) for one in WHO}
        faster = round(seconds["reference"]["median"] / seconds["evaluator"]["median"], 2)
        result = {
            "what": f"evaluation of {networks} networks on {10 * ipc} {WORDS[images]}, {epochs} epochs",
            "allocator": allocator,
            **machine(threads, device),
            **seconds,
            "accuracies": {one: found[one][-1]["accuracy"] for one in WHO},
            "speedup_of_medians": faster,
        }
        print(f"{write(RESULTS, name + ending, result)}: {faster}x, {result['accuracies']}")


def judged_by(
    who: str, ipc: int, networks: int, epochs: int, images: Images = "digits", device: str = "cpu"
) -> dict[str, float]:
    """Evaluate in this process, after a short evaluation that is not timed; return seconds and mean accuracy."""
    data: CondenseDataModule = Digits() if images == "digits" else RandomImages()
    data.prepare_data()
    data.setup("test")
    real, test = data.real.to(device), data.test.to(device)
    chosen = torch.cat([real.random_of_class(c, ipc, RandomKey(0, (c,))) for c in range(real.num_classes)])
    small = SmallSet(real.at(chosen), real.labels_at(chosen))
    # the published program keeps its test images in main memory
    test_images, test_labels = test.at(torch.arange(len(test.labels))).cpu(), test.labels.cpu()
    factory = partial(ConvNet, **NETWORKS[images])

    def reference(epochs: int) -> list[float]:
        return [
            evaluate(
                factory(real.image_shape[0], real.image_shape[1:], real.num_classes).to(device),
                small.images,
                small.labels,
                test_images,
                test_labels,
                epochs,
            )
            for _ in range(networks)
        ]

    def evaluator(epochs: int) -> list[float]:
        evaluator = Evaluator(Evaluation(epochs=epochs), test, images, RandomKey(0), test.device)
        return list(evaluator.score(factory, lambda _: small, networks, Share()).accuracies)

    run = {"reference": reference, "evaluator": evaluator}[who]
    run(2)
    started = now(device)
    found = run(epochs)
    return {"seconds": now(device) - started, "accuracy": round(sum(found) / len(found), 4)}


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    auto_cli(benchmark)
