"""Seconds to judge a set of digits by fresh networks, straightforward loop and judge alternating in one run.

``python -m benchmarks.evaluation --ipc 1`` writes ``benchmarks/results/evaluation_<device>_ipc<k>.json``: 20 networks
(ConvNet-2, width 32) trained by protocol ``dc`` on real digits, k a class, and tested on all test digits.
"""

from __future__ import annotations

import logging
import time
from functools import partial

import torch
from jsonargparse import auto_cli

from benchmarks.common import RESULTS, machine, spread, write
from benchmarks.straightforward import evaluate
from lit_condense.data import Digits
from lit_condense.evaluation import Evaluation, Judge, SmallSet
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share

NETWORK = {"width": 32, "depth": 2}


def benchmark(ipc: int = 1, networks: int = 20, epochs: int = 300, rounds: int = 5, threads: int = 2) -> None:
    """Time both and write the JSON.

    Args:
        ipc: Images per class.
        networks: Fresh networks of an evaluation.
        epochs: Of each training.
        rounds: Counted evaluations, after a short one that is not.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    data = Digits()
    data.prepare_data()
    data.setup("test")
    real, test = data.real, data.test
    chosen = torch.cat([real.random_of_class(c, ipc, RandomKey(0, (c,))) for c in range(real.num_classes)])
    small = SmallSet(real.at(chosen), real.labels_at(chosen))
    everything = torch.arange(len(test.labels))
    test_images, test_labels = test.at(everything), test.labels
    channels, height, width = real.image_shape

    def straightforward(epochs: int) -> list[float]:
        return [
            evaluate(
                ConvNet(channels, (height, width), real.num_classes, **NETWORK),
                small.images,
                small.labels,
                test_images,
                test_labels,
                epochs,
            )
            for _ in range(networks)
        ]

    def judged(epochs: int) -> list[float]:
        judge = Judge(Evaluation(epochs=epochs), test, "digits", RandomKey(0), test.device)
        factory = partial(ConvNet, **NETWORK)
        return list(judge.score(factory, lambda _: small, networks, Share()).accuracies)

    seconds: dict[str, list[float]] = {"straightforward": [], "judge": []}
    accuracies: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, run in (("straightforward", straightforward), ("judge", judged)):
            started = time.perf_counter()
            found = run(epochs if turn else 2)
            if turn:
                seconds[name].append(time.perf_counter() - started)
                accuracies[name] = round(sum(found) / len(found), 4)
    result = {
        "what": f"evaluation of {networks} networks on {len(chosen)} digits, {epochs} epochs",
        **machine(threads),
        **{name: spread(values) for name, values in seconds.items()},
        "accuracies": accuracies,
    }
    slow, fast = result["straightforward"]["median"], result["judge"]["median"]
    result["speedup_of_medians"] = round(slow / fast, 2)
    path = write(RESULTS, f"evaluation_cpu_ipc{ipc}", result)
    print(f"{path}: {result['speedup_of_medians']}x, accuracies {accuracies}")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    auto_cli(benchmark)
