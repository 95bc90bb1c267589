"""Any number of processes gives the set of one: images after every update, image gradients, losses, scores."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from lit_condense.experts import Experts
from tests.distributed.cases import CASES, SKIPPED, run
from tests.distributed.group import results_of, run_group
from tests.recording.helpers import recorded

QUICK = {
    2: ("mean", "until over-fitting", "dream", "importance", "skipped", "evaluated"),
    3: ("everything, two classes", "unequal", "pool", "whole", "whole, shared", "trajectories", "stopped"),
}
"""Processes and cases of the default run; all cases in both groups are the slow one."""
COMPILED = ("fast", "exact, compiled")
WITHIN = {"rtol": 0, "atol": 1e-6}

single = functools.cache(run)


@pytest.fixture(scope="module", params=QUICK)
def quick(request, tmp_path_factory):
    return results_of(QUICK[request.param], request.param, tmp_path_factory.mktemp("group"))


@pytest.fixture(scope="module", params=[2, 3])
def all_of(request, tmp_path_factory):
    return results_of(CASES, request.param, tmp_path_factory.mktemp("group"), seconds=900)


def assert_equal_to_one(name, ranks):
    alone = single(name)
    if "stopped" in alone:
        assert [one["stopped"] for one in ranks] == [alone["stopped"]] * len(ranks)
        assert len(alone["images"]) == 3
        return
    assert alone["world_size"] == 1
    assert [one["world_size"] for one in ranks] == [len(ranks)] * len(ranks)
    for one in ranks:
        assert torch.equal(one["images"], ranks[0]["images"]), name
        torch.testing.assert_close(one["images"], alone["images"], **WITHIN, msg=lambda text: f"{name}: {text}")
        scale = float(alone["gradients"].abs().max())
        torch.testing.assert_close(
            one["gradients"] / scale, alone["gradients"] / scale, **WITHIN, msg=lambda text: f"{name}, gradient: {text}"
        )
        for leaf, value in one["leaves"].items():
            assert torch.equal(value, ranks[0]["leaves"][leaf]), (name, leaf)
            torch.testing.assert_close(value, alone["leaves"][leaf], **WITHIN)
        assert one["logged"] == pytest.approx(alone["logged"], rel=1e-5, nan_ok=True)
        assert one["scores"] == alone["scores"]
    moved = (alone["images"][1:] - alone["images"][:-1]).flatten(1).abs().amax(1)
    skipped = SKIPPED if name.startswith("skipped") else ()
    assert [float(step) > 1e-4 for step in moved] == [u not in skipped for u in range(len(moved))], name


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:.*The update is skipped")
def test_a_group_ends_with_the_set_of_one_process(quick):
    for name, ranks in quick.items():
        assert_equal_to_one(name, ranks)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:.*The update is skipped")
@pytest.mark.parametrize("name", CASES)
def test_every_case_ends_with_the_set_of_one_process(all_of, name):
    assert_equal_to_one(name, all_of[name])


def _record(rank, world_size, folder):
    recorded(Path(folder), experts=5, trainer={"devices": world_size, "strategy": "ddp"})


@pytest.mark.timeout(150)
def test_processes_share_experts_out_and_record_what_one_does(tmp_path):
    codes, logs = run_group(_record, 2, tmp_path, str(tmp_path / "two"))
    assert codes == [0, 0], "\n".join(log[-3000:] for log in logs)
    recorded(tmp_path / "one", experts=5)
    one, two = Experts(tmp_path / "one"), Experts(tmp_path / "two")
    assert len(two) == 5
    for expert in range(5):
        for epoch in range(one.epochs + 1):
            torch.testing.assert_close(one.at(expert, epoch), two.at(expert, epoch), **WITHIN)
