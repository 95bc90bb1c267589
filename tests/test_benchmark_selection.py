"""The benchmark of the selections at a tiny size: its counts, its choices and its arithmetic, never its timings."""

from __future__ import annotations

import inspect
import json
import sys

import pytest
import torch
from jsonargparse import auto_cli

import lit_condense.selection
from benchmarks import selection
from benchmarks.dense_selection import DENSE
from benchmarks.selection_child import Meter, alone
from lit_condense.errors import SettingsError
from lit_condense.selection import Choice, GradientSelection, ScoreSelection, Selection
from tests.fake_data import write_image_folder

TINY = {"fraction": 0.1, "images": 40, "image_size": 8, "width": 4, "data": "missing"}
COST = {"seconds", "cpu_seconds", "peak_extra_mib"}
BLOCK = 64
"""MiB."""


class Doubled(Selection):
    """Keeps one image twice."""

    def choose(self, candidates, count, key):
        return Choice(torch.zeros(count, dtype=torch.int64))


def command(folder, **options):
    """Run the benchmark's command line and return the one file that it writes."""
    settings = {**TINY, "folder": folder, **options}
    auto_cli(selection.benchmark, args=[f"--{name}={value}" for name, value in settings.items()])
    (path,) = folder.iterdir()
    return path


def grown_by_a_block():
    freed = torch.ones(4 * BLOCK * 2**18)
    del freed
    meter = Meter()
    before = meter.lap()
    held = torch.ones(BLOCK * 2**18)
    return before["peak_extra_mib"], meter.lap()["peak_extra_mib"], held[0].item()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = command(tmp_path_factory.mktemp("benchmark"))
    assert path.name == "selection_10.json"
    return json.loads(path.read_text())


def test_every_shipped_selection_is_timed(result):
    everything = [getattr(lit_condense.selection, name) for name in lit_condense.selection.__all__]
    abstract = {GradientSelection, ScoreSelection, Selection}
    classes = {c.__name__ for c in everything if inspect.isclass(c) and issubclass(c, Selection) and c not in abstract}
    assert {method["class"] for method in result["methods"].values()} == classes
    assert len(result["methods"]) == len(classes) == 21


def test_head_says_what_was_selected_from(result):
    assert (result["data"], result["images"], result["image"]) == ("random", 400, [3, 8, 8])
    assert (result["features"], result["counts"]) == (4, [4] * 10)
    assert {"fraction", "memory_limit_gib", "device", "versions"} <= set(result)
    proxy = result["proxy"]
    assert len(proxy["training"]) == len(proxy["looking"]) == selection.NETWORKS
    assert proxy["seconds"] == pytest.approx(sum(lap[0]["seconds"] for lap in (proxy["training"], proxy["looking"])))


def test_every_method_keeps_its_count_of_every_class_it_is_timed_on(result):
    for name, method in result["methods"].items():
        classes = 1 if name == "deepfool" else 10
        assert (method["classes"], method["counts"]) == (classes, [4] * classes)
        assert all(set(lap) == COST for lap in method["laps"])
        for part in ("seconds", "cpu_seconds"):
            assert method[part] == pytest.approx(sum(lap[part] for lap in method["laps"]), abs=1e-3)
        assert method["peak_extra_mib"] == max(lap["peak_extra_mib"] for lap in method["laps"])
    networks = {name: method["networks"] for name, method in result["methods"].items()}
    assert (networks["grand"], networks["el2n"], networks["random"], networks["craig"]) == (3, 3, 0, 1)


def test_direct_and_shipped_choices_agree(result):
    direct = {name: method["dense"] for name, method in result["methods"].items() if method["dense"] is not None}
    assert set(direct) == set(DENSE)
    for name, own in direct.items():
        assert COST <= set(own)
        assert (own["fits"], own["count"], own["equal_share"]) == (True, 4, 1.0), name


def test_direct_implementation_that_does_not_fit_is_not_run(tmp_path):
    # 40 candidates, 50 entries of a gradient: CRAIG's 3 x 40 x 50 + 4 x 40 x 40 numbers are 5e-5 GiB
    path = command(tmp_path, methods="[craig,herding]", memory=4e-5)
    methods = json.loads(path.read_text())["methods"]
    assert set(methods["craig"]["dense"]) == {"fits", "large_matrices_gib"}
    assert methods["craig"]["dense"]["fits"] is False
    assert methods["craig"]["counts"] == [4] * 10
    assert methods["herding"]["dense"]["fits"] is True
    assert DENSE["craig"].gib(40, 50) == pytest.approx(4 * (3 * 40 * 50 + 4 * 40 * 40) / 2**30)


def test_images_come_from_the_folder_where_there_is_one(tmp_path):
    write_image_folder(tmp_path / "animals", {"cat": 20, "dog": 31}, size=(8, 8))
    path = command(tmp_path / "results", data=tmp_path / "animals", methods="[random]")
    result = json.loads(path.read_text())
    assert (result["data"], result["class_sizes"], result["counts"]) == ("animals", [20, 31], [2, 3])
    assert list(result["methods"]) == ["random"]


def test_wrong_counts_and_unknown_methods_are_refused(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="got nothing_like_it"):
        command(tmp_path, methods="[nothing_like_it]")
    monkeypatch.setitem(selection.METHODS, "doubled", Doubled())
    with pytest.raises(RuntimeError, match=r"doubled was to keep \[4, 4.* but kept \[0, 0"):
        command(tmp_path, methods="[doubled]")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can lower the high-water mark of memory")
def test_meter_sees_what_is_held_and_not_what_was_freed_before():
    before, after, _ = alone(1, grown_by_a_block)
    assert before < BLOCK / 4
    assert BLOCK * 0.9 < after < BLOCK * 1.5
