"""The benchmark of the methods at a tiny size: its counts and its arithmetic, never its timings."""

from __future__ import annotations

import importlib
import itertools
import json
import statistics

import pytest
import torch
from jsonargparse import auto_cli

from benchmarks import methods, timed
from lit_condense import SyntheticSet
from lit_condense.augmentation import OneOf
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import ClassMeanGradientMatching, GradientMatching
from lit_condense.networks import pooling
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from tests.cli_helpers import REPOSITORY
from tests.helpers import TinyData, fitted, tiny_convnet

IPC, REAL, WIDTH, SIZE, ROUNDS = 2, 6, 8, 8, 2
PARTS = {"update", "augmentation", "sampling", "inner"}
TINY = {"ipc": IPC, "width": WIDTH, "image_size": SIZE}


def command(folder, **options):
    """Run the benchmark's command line in this process, with the threads that it has."""
    settings = {**TINY, "threads": torch.get_num_threads(), "folder": folder, **options}
    auto_cli(methods.benchmark, args=[f"--{name}={value}" for name, value in settings.items()])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pooling, "MATRIX_UP_TO", 0)  # PyTorch counts a matrix that pools, but not sums
        return command(tmp_path_factory.mktemp("benchmark"), real_images=REAL, updates=ROUNDS)


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / f"methods_ipc{IPC}.json").read_text())["methods"]


def median(result, part="update"):
    return statistics.median(row[part] for row in result["rounds"])


def forward_gflop(first_layer_only=False):
    """A multiply-add counts 2; three 3x3 convolutions, each halved, and a linear layer on one pixel."""
    convolutions = [9 * 3 * WIDTH * SIZE**2, 9 * WIDTH**2 * (SIZE // 2) ** 2, 9 * WIDTH**2 * (SIZE // 4) ** 2]
    return 2e-9 * (convolutions[0] if first_layer_only else sum(convolutions) + WIDTH * 10)


def weight_gradient_gflop():
    """Forward, and twice that backward, but nothing flows back from the first layer into the images."""
    return 3 * forward_gflop() - forward_gflop(first_layer_only=True)


@pytest.mark.slow
def test_every_method_is_timed_as_often_beside_dc_and_says_with_which_images(results):
    assert set(results) == {f"dc_{REAL}", *methods.FILES} - {"dc"}
    for result in results.values():
        assert len(result["rounds"]) == ROUNDS
        assert all(set(row) == PARTS for row in result["rounds"])
        assert all(row["update"] > 0 for row in result["rounds"])
        assert result["real_images"] == REAL
    published = {result["method"]: result["published_real_images"] for result in results.values()}
    assert published == dict.fromkeys(methods.FILES, 256) | {"idc": 64, "idc_i": 64, "lcmat_c": 64, "dream": 128}


@pytest.mark.slow
def test_ratio_and_bound_follow_from_the_raw_numbers(results):
    dc = results[f"dc_{REAL}"]
    rate = dc["gflop"] / median(dc)
    assert dc["gflop_per_second"] == pytest.approx(rate, rel=0.01, abs=5e-4)  # written with three decimals
    assert dc["ratio"] == 1
    for result in results.values():
        bound = median(dc) + max(0, result["gflop"] - dc["gflop"]) / rate
        assert result["bound"] == pytest.approx(bound, rel=1e-3)
        assert result["ratio"] == pytest.approx(median(result) / bound, rel=1e-2, abs=1e-3)
        for part in PARTS:
            assert result["seconds"][part]["median"] == pytest.approx(median(result, part), abs=2e-6)


@pytest.mark.slow
def test_counted_arithmetic_is_what_the_definitions_ask_for(results):
    gflop = {result["method"]: result["gflop"] for result in results.values()}
    real, synthetic = 10 * REAL, 10 * IPC
    # what comes on top of the gradients of both sides is the double backward, the same for the same distance
    assert gflop["dc"] > (real + synthetic) * weight_gradient_gflop()
    assert gflop["dsa"] == gflop["dc"]
    # losses of class means look at the synthetic gradients once more, without a graph
    assert gflop["egm"] - gflop["dc"] == pytest.approx(synthetic * weight_gradient_gflop(), abs=2e-6)
    assert gflop["dcc"] == pytest.approx(gflop["egm"], abs=2e-6)
    # multi-formation makes four of each
    per_image = (gflop["idc"] - gflop["idc_i"]) / (3 * synthetic)
    assert gflop["idc_i"] - synthetic * per_image == pytest.approx(real * weight_gradient_gflop(), abs=2e-6)
    assert gflop["dream"] == gflop["idc"]
    # no gradients: real images go forward; synthetic ones forward and back to the pixels
    assert gflop["dm"] == pytest.approx((real + 2 * synthetic) * forward_gflop(), rel=0.02)


def test_dc_is_timed_at_every_published_batch():
    cases = methods.cases_of(["idc", "dsa", "dream"], None)
    assert list(cases.items())[:3] == [("dc_64", ("dc", 64)), ("dc_128", ("dc", 128)), ("dc_256", ("dc", 256))]
    assert {label: cases[label][1] for label in ("idc", "dsa", "dream")} == {"idc": 64, "dsa": 256, "dream": 128}


@pytest.mark.slow
def test_share_of_k_means_follows_from_the_rounds_of_a_block(tmp_path):
    command(tmp_path, dream="true", data=tmp_path / "missing")
    result = json.loads((tmp_path / f"dream_ipc{IPC}.json").read_text())
    assert (result["data"], result["real_images"]) == ("random", 128)
    assert {label: block["subset"] for label, block in result["blocks"].items()} == methods.SUBSETS
    for block in result["blocks"].values():
        assert len(block["rounds"]) == 10
        total = sum(sum(row.values()) for row in block["rounds"])
        choosing = [row["sampling"] for row in block["rounds"]]
        assert max(choosing) == choosing[0]  # chosen once, at the start, and held
        assert block["share"] == pytest.approx(sum(choosing) / total, abs=1e-3)


def test_timed_updates_are_the_updates_of_a_run():
    def losses():
        return [GradientMatching(), ClassMeanGradientMatching()]

    settings = {"ipc": 2, "network": tiny_convnet(), "seed": 3, "sampling": RandomSampling(6)}
    settings |= {"inner": TrainOnSynthetic(updates=2, epochs=2), "augmentation": OneOf()}
    whole = fitted(*losses(), max_steps=3, **settings)
    run = timed.Run(SyntheticSet(**settings), losses(), TinyData())
    timed.gflop_of(run.module)  # counting changes nothing
    for update in (1, 2):
        run.turn(update)
    assert torch.equal(run.module.images, whole.images)


def test_a_part_inside_another_belongs_to_the_outer_one(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(timed.time, "perf_counter", lambda: float(next(ticks)))
    parts = timed.Parts()
    with parts.timing("inner"), parts.timing("augmentation"):
        pass
    assert parts.seconds == {"augmentation": 0.0, "sampling": 0.0, "inner": 1.0}


def test_augmentation_is_timed_on_its_way_back_too(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(timed.time, "perf_counter", lambda: float(next(ticks)))
    augmentation, parts = OneOf(("flip",)), timed.Parts()
    parts.around_augmentation(augmentation)
    images = torch.zeros(2, 1, 4, 4, requires_grad=True)
    draw = augmentation.draw(RandomKey(0), (4, 4), samples=1)
    augmented = augmentation.apply(images * 1, draw)
    forward = parts.seconds["augmentation"]
    torch.autograd.grad(augmented.sum(), images)
    assert (forward, parts.seconds["augmentation"]) == (2.0, 3.0)  # a tick each for draw, apply and the way back


@pytest.mark.slow
def test_readme_shows_the_ratio_or_says_that_nothing_was_measured(folder, tmp_path, monkeypatch, results):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    tables = importlib.import_module("readme_tables")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert "Not measured" in tables.methods_table()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "methods_ipc2.json").write_text(
        (folder / f"methods_ipc{IPC}.json").read_text()
    )
    rows = tables.methods_table().splitlines()[2:]
    assert len(rows) == len(results)
    for row, result in zip(rows, results.values(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == f"`{result['method']}`"
        assert f"**{result['ratio']:.2f}**" in cells
