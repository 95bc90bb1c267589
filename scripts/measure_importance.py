"""Importance-sampled real images against random and representative ones: results/importance/.

Three stages. *error*: how far the gradient of a class batch is from that of the whole class, relative to the norm of
the latter, over all parameters of ConvNet-3 of width 32 on CIFAR-10: for batches of 16 to 256 images, in an untrained
network and in one trained on real images; beside it the processor seconds that batches of all classes cost an update, a
tenth of a look at the real images included (interval 10). Everything eager in float32, one thread. About half an hour.
*picture*: error over images and over seconds. *rows*: DC at 10 images a class with 64 importance-sampled images (of the
whole class, or of 512), 64 random and 256 random ones, 300 seconds of one core each, at the image learning rate that
run_comparison.py found, seeds 0, 1, 2.

Needs data/cifar10 (an image folder). What is there already is kept.

Usage: python scripts/measure_importance.py error [IMAGES_OF_A_CLASS]   (fewer, to try it: written into runs/ then)
       python scripts/measure_importance.py picture
       python scripts/measure_importance.py rows [ARM [SEED ...]]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from fitting import condense, keep
from run_comparison import DATA, NO_END, PROTOCOL, WIDTH, best_factor
from tables import RESULTS, ROOT
from torch import Tensor

from lit_condense.augmentation import NoAugmentation
from lit_condense.cli.shipped import read
from lit_condense.data import ImageFolder
from lit_condense.data.real_images import RealImages
from lit_condense.engine import Engine, RunningEngine
from lit_condense.engine.engine import Block
from lit_condense.matching import Progress
from lit_condense.networks import CondensableNetwork, ConvNet, build_network
from lit_condense.networks.features import network_features
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import Importance, RandomSampling, Representative, Sampling
from lit_condense.sharding import Share
from lit_condense.synthetic import Gatherer

KEPT = RESULTS / "importance"
RUNS = ROOT / "runs" / "importance"
ERROR = "error.json"

SIZES = (16, 32, 64, 128, 256)
NETWORKS = {"untrained": 0, "trained": 600}
"""Name -> steps of training on random batches of real images."""
TRAINING = {"batch_size": 128, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
INTERVAL = 10
CHUNK = 256
SAMPLINGS: dict[str, Callable[[int], Sampling]] = {
    "random": RandomSampling,
    "representative": Representative,
    "importance": Importance,
    "importance among 512": partial(Importance, subset=512),
}
DRAWS = {"representative": 3}
"""Of the others 20. Each draw of representatives is a clustering anew, and each of a subset a subset anew."""

ARMS: dict[str, dict[str, Any]] = {
    "importance_64": {"class_path": "Importance", "init_args": {"batch_size": 64}},
    "importance_64_of_512": {"class_path": "Importance", "init_args": {"batch_size": 64, "subset": 512}},
    "random_64": {"class_path": "RandomSampling", "init_args": {"batch_size": 64}},
    "random_256": {"class_path": "RandomSampling", "init_args": {"batch_size": 256}},
}
SEEDS = (0, 1, 2)
SECONDS = 300
"""Without the first update, in which the engine compiles; the first network's first look at all images is in it too."""


def main(stage: str, names: list[str]) -> None:
    """Do a stage."""
    if stage == "error":
        measure(int(names[0]) if names else None)
    elif stage == "picture":
        draw(json.loads((KEPT / ERROR).read_text()))
    else:
        for seed in [int(name) for name in names[1:]] or SEEDS:
            for arm in names[:1] or ARMS:
                make_row(arm, seed)


# ------------------------------------------------------------------ error against cost


def measure(images: int | None) -> None:
    """Measure every network, sampling and size that is not there yet, and write after each what there is."""
    torch.set_num_threads(1)
    path = KEPT / ERROR if images is None else RUNS / ERROR
    path.parent.mkdir(parents=True, exist_ok=True)
    real = ImageFolder(root=str(ROOT / "data" / "cifar10"), normalization="dc", train_limit_per_class=images).real
    sizes = [size for size in SIZES if size < min(real.class_sizes)]
    found: dict[str, Any] = {"images_of_a_class": real.class_sizes, "interval": INTERVAL, "networks": {}}
    if path.exists() and (before := json.loads(path.read_text()))["images_of_a_class"] == real.class_sizes:
        found = before
    for name, steps in NETWORKS.items():
        of_network = found["networks"].setdefault(name, {"steps": steps, "samplings": {s: [] for s in SAMPLINGS}})
        points = of_network["samplings"]
        missing = [(s, n) for s in SAMPLINGS for n in sizes if n not in [point["images"] for point in points[s]]]
        if not missing:
            continue
        network, of_network["accuracy_on_training_images"] = trained(real, steps)
        wanted = gradients(network, real, Everything(), RandomKey(0))
        for sampling, size in missing:
            points[sampling].append(point_of(network, real, SAMPLINGS[sampling](size), DRAWS.get(sampling, 20), wanted))
            path.write_text(json.dumps(found, indent=1) + "\n")
            print(name, sampling, points[sampling][-1], flush=True)


def trained(real: RealImages, steps: int) -> tuple[CondensableNetwork, float]:
    """Return a network after so many steps on random real batches, and its accuracy on some real images."""
    key = RandomKey(0).fold("network", 0)
    network = build_network(partial(ConvNet, width=WIDTH), 3, (32, 32), real.num_classes, key, needs_features=True)
    batch, rates = TRAINING["batch_size"], {k: v for k, v in TRAINING.items() if k != "batch_size"}
    sgd = torch.optim.SGD(network.parameters(), **rates)
    for step in range(steps):
        chosen = real.mixed(int(batch), RandomKey(0).fold("inner", step))
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(network(real.at(chosen)), real.labels_at(chosen)).backward()  # type: ignore[no-untyped-call]
        sgd.step()
    some = real.mixed(1000, RandomKey(0).fold("shape"))
    with torch.no_grad():
        right = network(real.at(some)).argmax(1) == real.labels_at(some)
    return network, round(float(right.float().mean()), 3)


class Everything(Sampling):
    """All images of each class."""

    def size(self, real: RealImages, class_index: int) -> int:
        return real.class_sizes[class_index]

    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        return real.indices_of(class_index)


def point_of(
    network: CondensableNetwork, real: RealImages, sampling: Sampling, draws: int, wanted: list[Tensor]
) -> dict[str, float]:
    """Return the error over classes and draws, and the processor seconds that all classes cost an update."""
    features, errors, angles, looks, matching = network_features(network), [], [], [], 0.0
    for number in range(draws):
        key, start = RandomKey(0).fold("sampling", number), time.process_time()
        if number == 0 or isinstance(sampling, Representative) or getattr(sampling, "subset", None):
            sampling.refresh(real, features, Progress(0, 0, 0), key, Share())
            looks.append(time.process_time() - start)
        start = time.process_time()
        found = gradients(network, real, sampling, key)
        matching += time.process_time() - start
        for one, whole in zip(found, wanted, strict=True):
            errors.append(float((one - whole).norm() / whole.norm()))
            angles.append(1 - float(torch.cosine_similarity(one, whole, dim=0)))
    look = mean(looks)
    return {
        "images": sampling.size(real, 0),
        "error": round(mean(errors), 4),
        "angle": round(mean(angles), 4),
        "seconds": round(look / INTERVAL + matching / draws, 3),
        "seconds_of_a_look": round(look, 3),
    }


def gradients(network: CondensableNetwork, real: RealImages, sampling: Sampling, key: RandomKey) -> list[Tensor]:
    """Return the class gradients of one draw as the engine forms them, each in a row."""
    counts = [1] * real.num_classes
    stored = torch.zeros(real.num_classes, *real.image_shape)
    fixed = (sampling, Pixels(), NoAugmentation(), key)
    gatherer = Gatherer(real, stored, torch.arange(real.num_classes), counts, *fixed, update=0)
    running = Engine("exact", "never", real_chunk=CHUNK).start(network, real.at(real.indices_of(0)[:CHUNK]))
    return [flat(running, gatherer.block([c])) for c in range(real.num_classes)]


def flat(running: RunningEngine, block: Block) -> Tensor:
    """Return the gradient of a block's real side in a row."""
    side = running.real_side(block, frozenset({"gradients"}))
    return torch.cat([gradient.flatten() for gradient in side.gradients.values()])


def draw(found: dict[str, Any]) -> None:
    """Plot the error over images of a batch and over processor seconds of an update, a row for each network."""
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(found["networks"]), 2, figsize=(11, 8), sharey="row")
    for (name, of_network), axes in zip(found["networks"].items(), rows, strict=True):
        for axis, over in zip(axes, ("images", "seconds"), strict=True):
            for sampling, points in of_network["samplings"].items():
                x, y = ([point[key] for point in points] for key in (over, "error"))
                axis.plot(x, y, marker="o", label=sampling)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("real images of a class" if over == "images" else "processor seconds of an update")
        axes[0].set_ylabel(f"relative error of a class gradient, {name}")
    rows[0][0].legend()
    figure.tight_layout()
    figure.savefig(KEPT / "error.png", dpi=80)


# ------------------------------------------------------------------ rows


def make_row(arm: str, seed: int) -> None:
    """Run one row and keep its set, its card and its grid."""
    kept = KEPT / "rows" / f"{arm}_seed{seed}"
    if (kept / "card.json").exists():
        return
    folder = RUNS / "rows" / kept.name
    condense(settings(arm, seed, folder), folder)
    keep(folder, kept, picture=seed == SEEDS[0])


def settings(arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return DC's shipped config, changed as all are."""
    config = read("dc/cifar10_ipc10")
    model, trainer = config["model"]["init_args"], config["trainer"]
    model["network"]["init_args"]["width"] = WIDTH
    model["optimizer"]["init_args"]["lr"] *= best_factor("cifar10", "dc")
    model["sampling"] = ARMS[arm]
    model["evaluation"]["init_args"] = {**PROTOCOL, "repeats": 5, "baselines": []}
    config["data"] = {**DATA["cifar10"], "init_args": {**DATA["cifar10"]["init_args"], "normalization": "dc"}}
    config["out"], config["seed_everything"] = str(folder), seed
    budget = {"class_path": "cpu_budget.CpuBudget", "init_args": {"seconds": SECONDS}}
    trainer["callbacks"] = [budget, *trainer["callbacks"]]
    trainer |= {"max_steps": NO_END, "limit_val_batches": 0, "enable_progress_bar": False}
    return config


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
