"""What a matching update of each method costs beside DC's, and what share of a DREAM run chooses its images.

``python -m benchmarks.methods --ipc 10`` writes ``benchmarks/results/methods_ipc10.json``: every method as its config
in ``configs/`` has it, on random images, one update after the other in turn. *A matching update* is the real side, the
synthetic side, the losses, the image gradient and the optimizer's step; augmentation, drawing the real images and
training the network are timed apart. The yardstick is DC's seconds plus the seconds that DC would need, at its rate,
for the arithmetic that the method does beyond DC's.

``python -m benchmarks.methods --ipc 10 --dream true`` writes ``benchmarks/results/dream_ipc10.json`` instead: blocks of
as many updates as lie between two choices of representative images, everything included.
"""

from __future__ import annotations

import inspect
import logging
import statistics
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, auto_cli

import lit_condense.sampling
from benchmarks.common import RESULTS, SHAPE, RandomImages, columns, machine, spread, write
from benchmarks.timed import PARTS, Run, gflop_of
from lit_condense import SyntheticSet
from lit_condense.cli.shipped import read
from lit_condense.data import CondenseDataModule, ImageFolder
from lit_condense.matching import MatchingLoss
from lit_condense.runs.memory import keep_freed_memory

Name = Literal["dc", "dsa", "egm", "dcc", "dm", "idc", "idc_i", "dream", "lcmat_c"]
FILES: dict[Name, str] = {
    "dc": "dc/cifar10_ipc10",
    "dsa": "dsa/cifar10_ipc10",
    "egm": "egm/cifar10_ipc10_mda",
    "dcc": "dcc/cifar10_ipc10",
    "dm": "dm/cifar10_ipc10",
    "idc": "idc/cifar10_ipc10",
    "idc_i": "idc_i/cifar10_ipc10",
    "dream": "dream/cifar10_ipc10",
    "lcmat_c": "lcmat_c/cifar10_ipc10",
}
BAR = 1.3
"""Largest ratio of a method's seconds to its yardstick."""
DREAM_BAR = 0.35
"""Largest share of k-means and its features in a DREAM run."""
CLASS_SIZE = 5000
"""Images of a class that DREAM chooses from, as in CIFAR-10."""
MULTI_FORMATION = 4
"""Real images behind a stored one at factor 2."""
SUBSETS: dict[str, int | None] = {"whole class": None, "subset 1000": 1000}


def benchmark(
    ipc: int = 10,
    width: int = 128,
    updates: int = 5,
    methods: list[Name] | None = None,
    real_images: int | None = 256,
    image_size: int = SHAPE[1],
    threads: int = 2,
    dream: bool = False,
    data: Path = Path("data/cifar10"),
    folder: Path = RESULTS,
) -> None:
    """Time the methods, or DREAM's blocks, and write the JSON.

    Args:
        ipc: Images per class.
        width: Of the ConvNet-3.
        updates: Counted updates of each method, after the one that compiles. DREAM's blocks have their own length.
        methods: By default all; DC always takes part.
        real_images: Real images of a class in an update; null for each method's published number, where DC is timed at
            every number that occurs.
        image_size: Height and width.
        threads: CPU threads.
        dream: Time DREAM's blocks, at its published batch.
        data: Image folder of CIFAR-10 for DREAM's blocks; where there is none, they see random images.
        folder: Where the JSON goes.
    """
    torch.set_num_threads(threads)
    head = {"ipc": ipc, "width": width, "image": [SHAPE[0], image_size, image_size], **machine(threads)}
    if dream:
        keep_freed_memory()  # the share of a run as `lit-condense fit` makes it
        found = {**head, **dream_blocks(ipc, width, image_size, data)}
        path = write(folder, f"dream_ipc{ipc}", found)
        for name, block in found["blocks"].items():
            print(f"{name:12} k-means and features {block['seconds']['sampling']:.2f} s, share {block['share']:.3f}")
    else:
        timed = timed_methods(list(methods or FILES), ipc, width, image_size, real_images, updates)
        path = write(folder, f"methods_ipc{ipc}", {**head, "bar": BAR, "methods": timed})
        for name, method in timed.items():
            parts = ", ".join(f"{part} {method['seconds'][part]['median']:.3f}" for part in ("update", *PARTS))
            print(f"{name:8} {method['gflop']:7.1f} GFLOP  ratio {method['ratio']:.3f}  seconds: {parts}")
    print(path)


def timed_methods(
    names: list[Name], ipc: int, width: int, image_size: int, real_images: int | None, updates: int
) -> dict[str, Any]:
    """Return what was measured of each method, and of DC at every batch that occurs (``dc_256``)."""
    cases = cases_of(names, real_images)
    class_size = max([size for _, size in cases.values()] + [ipc * MULTI_FORMATION]) + 10
    data = RandomImages(class_size, (SHAPE[0], image_size, image_size))
    runs = {label: start(config_of(*case, ipc, width), data) for label, case in cases.items()}
    gflop = {label: gflop_of(run.module) for label, run in runs.items()}
    rounds: dict[str, list[dict[str, float]]] = {label: [] for label in runs}
    for update in range(1, updates + 1):
        for label, run in runs.items():
            rounds[label].append(run.turn(update))
    results = {}
    for label, (name, size) in cases.items():
        dc = f"dc_{size}"
        results[label] = {
            "method": name,
            "config": FILES[name],
            "real_images": size,
            "published_real_images": published_batch(name),
            "plan": runs[label].module.running.description,
            "first_update_with_compiling": round(runs[label].first_update, 3),
            "gflop": gflop[label],
            "dc": dc,
            "rounds": rounds[label],
            "seconds": columns(rounds[label]),
            **compared(rounds[label], gflop[label], rounds[dc], gflop[dc]),
        }
    return results


def cases_of(names: list[Name], real_images: int | None) -> dict[str, tuple[Name, int]]:
    """Return method and real images of a class of each case, by its label: DC first, at every batch that occurs."""
    methods = {name: (name, real_images or published_batch(name)) for name in names if name != "dc"}
    sizes = {size for _, size in methods.values()} | {real_images or published_batch("dc")}
    dc: dict[str, tuple[Name, int]] = {f"dc_{size}": ("dc", size) for size in sorted(sizes)}
    return dc | methods


def compared(
    rounds: list[dict[str, float]], gflop: float, dc_rounds: list[dict[str, float]], dc_gflop: float
) -> dict[str, Any]:
    """Return the yardstick in seconds, the ratio of the medians to it, and the spread of the ratio over the rounds."""
    seconds, dc = ([row["update"] for row in rows] for rows in (rounds, dc_rounds))
    beyond = max(0.0, gflop - dc_gflop) / dc_gflop
    bound = statistics.median(dc) * (1 + beyond)
    pairs = [own / (yardstick * (1 + beyond)) for own, yardstick in zip(seconds, dc, strict=True)]
    ratio = statistics.median(seconds) / bound
    return {
        "gflop_per_second": round(gflop / statistics.median(seconds), 3),
        "bound": round(bound, 6),
        "ratio": round(ratio, 4),
        "ratio_over_rounds": spread(pairs),
    }


def dream_blocks(ipc: int, width: int, image_size: int, data: Path) -> dict[str, Any]:
    """Return the seconds of a block of DREAM with its published settings, for all images of a class and for subsets."""
    on_files = data.is_dir() and image_size == SHAPE[1]
    images: CondenseDataModule = RandomImages(CLASS_SIZE, (SHAPE[0], image_size, image_size))
    if on_files:
        images = ImageFolder(str(data), name="cifar10", normalization="idc")
    config = config_of("dream", published_batch("dream"), ipc, width)
    # Clustering the images to start from is no part of a block.
    config["model"]["init_args"]["init"] = {"class_path": "lit_condense.init.RandomReal"}
    run = start(config, images)
    sampling: Any = run.module.sampling
    blocks: dict[str, Any] = {}
    for number, (label, subset) in enumerate(SUBSETS.items(), start=1):
        sampling.subset = subset
        first = number * sampling.interval
        rows = [run.turn(update) for update in range(first, first + sampling.interval)]
        seconds = {part: round(sum(row[part] for row in rows), 6) for part in rows[0]}
        share = round(seconds["sampling"] / sum(seconds.values()), 4)
        blocks[label] = {"subset": subset, "rounds": rows, "seconds": seconds, "share": share}
    return {
        "config": FILES["dream"],
        "data": "cifar10" if on_files else "random",
        "real_images": sampling.batch_size,
        "updates_of_a_block": sampling.interval,
        "plan": run.module.running.description,
        "bar": DREAM_BAR,
        "blocks": blocks,
    }


def start(config: dict[str, Any], data: CondenseDataModule) -> Run:
    """Return the run that a config describes, on other data."""
    return Run(*made(config), data)


def made(config: dict[str, Any]) -> tuple[SyntheticSet, list[MatchingLoss]]:
    """Return the set and the losses that a config describes."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(SyntheticSet, "model")
    parser.add_argument("--losses", type=list[MatchingLoss])
    # renamed in jsonargparse 4.49
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    found = instantiate(parser.parse_object(config))
    return found.model, found.losses


def config_of(name: Name, real_images: int, ipc: int, width: int) -> dict[str, Any]:
    """Return model and matching losses of a method's config, with these numbers."""
    config = read(FILES[name])
    model = config["model"]["init_args"]
    model["ipc"] = ipc
    model["network"]["init_args"]["width"] = width
    model["sampling"]["init_args"]["batch_size"] = real_images
    losses = config["trainer"]["callbacks"]
    if name == "dcc":  # its warm-up is DC's update: time what comes after it
        losses = [{**loss, "init_args": {"warm_up_networks": 0, "warm_up_matches": 0}} for loss in losses]
    return {"model": config["model"], "losses": losses}


def published_batch(name: Name) -> int:
    """Return the real images of a class in an update of the method's config."""
    sampling = read(FILES[name])["model"]["init_args"]["sampling"]
    usual = inspect.signature(getattr(lit_condense.sampling, sampling["class_path"])).parameters["batch_size"].default
    return int(sampling["init_args"].get("batch_size", usual))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    auto_cli(benchmark)
