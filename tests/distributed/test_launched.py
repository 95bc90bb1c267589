"""Strategies that train in processes of their own give the result back to the process that called ``fit``."""

from __future__ import annotations

import sys

import pytest
import torch

from lit_condense import load_condensed
from tests.cli_helpers import card_of, new_process, succeeded
from tests.distributed.launched import KINDS, fit, kept

SLOW = pytest.mark.slow  # 20 seconds of two cores each
CASES = [(strategy, kind) for strategy in ("ddp_fork", "ddp_spawn") for kind in KINDS]


@pytest.mark.parametrize(("strategy", "kind"), [CASES[0], *(pytest.param(*case, marks=SLOW) for case in CASES[1:])])
@pytest.mark.filterwarnings("ignore:max_steps")
def test_the_process_that_called_fit_holds_the_set_with_its_counts(kind, strategy, tmp_path):
    done = succeeded(
        new_process(sys.executable, "-m", "tests.distributed.launched", kind, strategy, tmp_path / "launched")
    )
    main = torch.load(tmp_path / "launched" / "main.pt", weights_only=True)
    module = fit(kind, tmp_path / "here")
    here = kept(module)
    for name in module.held():
        torch.testing.assert_close(main["state"][name], here["state"][name], rtol=0, atol=1e-6)
    assert main["counts"] == here["counts"] == ([2, 1] if kind == "synthetic" else [2, 2])
    assert main["updates"] == here["updates"] == (3 if kind == "synthetic" else 2)
    # the report is made by the child
    assert "Test accuracy on digits" in done.stdout
    images, labels, card = load_condensed(tmp_path / "launched")
    assert torch.equal(images, main["predicted"]["images"])
    assert torch.equal(labels, main["predicted"]["labels"])
    assert card["update"] == main["updates"]
    accuracies = [card_of(tmp_path / name)["evaluation"]["condensed"][0]["accuracies"] for name in ("launched", "here")]
    assert accuracies[0] == pytest.approx(accuracies[1])
