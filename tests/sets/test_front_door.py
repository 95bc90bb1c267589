"""A set in plain Python: evaluated and saved without callbacks, with a trainer and without."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lit_condense import SelectedSet, SyntheticSet, load_condensed
from lit_condense.callbacks import FinalReport
from lit_condense.data import ArrayFile
from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.matching import GradientMatching
from lit_condense.selection import RandomSubset
from tests.cli_helpers import card_of, write_arrays
from tests.helpers import TinyData, fitted, quiet_trainer, tiny_convnet


def test_evaluate_and_save_are_what_the_report_of_a_run_does(tmp_path):
    reported = fitted(GradientMatching(), FinalReport(str(tmp_path / "callback")))
    module = fitted()
    report = module.evaluate(module.trainer.datamodule)
    paths = module.save(tmp_path / "plain", report)
    by_callback, plain = card_of(tmp_path / "callback"), card_of(tmp_path / "plain")
    assert torch.equal(load_condensed(tmp_path / "plain").images, load_condensed(tmp_path / "callback").images)
    assert sorted(path.name for path in paths) == ["card.json", "condensed.safetensors", "grid.png"]
    assert all(path.exists() for path in paths)
    without_seconds = [
        {name: value for name, value in card["evaluation"]["condensed"][0].items() if name != "seconds"}
        for card in (plain, by_callback)
    ]
    assert without_seconds[0] == without_seconds[1]
    assert plain["evaluation"]["start"]["accuracies"] == by_callback["evaluation"]["start"]["accuracies"]
    assert {name for name in by_callback if name not in plain} == {"seconds"}
    assert torch.equal(reported.images, module.images)


def test_a_report_prints_as_its_table():
    module = fitted()
    lines = str(module.evaluate()).splitlines()
    assert lines[0].startswith("Test accuracy on tiny")
    mean = 100 * module.evaluate().condensed[0].mean
    assert any("condensed, 10 images" in line and f"{mean:.1f} +- " in line for line in lines)
    assert any("start, before its first update" in line for line in lines)


def test_a_set_from_a_checkpoint_is_evaluated_and_saved_without_a_trainer(tmp_path):
    module = fitted()
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    report = module.evaluate()
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    again = loaded.evaluate(TinyData())
    assert again.condensed[0].accuracies == report.condensed[0].accuracies
    assert again.start.accuracies == report.start.accuracies
    loaded.save(tmp_path / "set", again)
    saved, card = load_condensed(tmp_path / "set"), card_of(tmp_path / "set")
    assert torch.equal(saved.images, module.pixels())
    assert card["update"] == card["max_updates"] == 4


def test_a_selection_too(tmp_path):
    settings = {"network": tiny_convnet(), "evaluation": Evaluation(epochs=2, repeats=2, full_data_steps=2), "seed": 3}
    selected = SelectedSet(RandomSubset(), ipc=2, **settings)
    quiet_trainer(max_epochs=1).fit(selected, datamodule=TinyData())
    report = selected.evaluate()
    assert report.start is None
    selected.save(tmp_path, report)
    assert card_of(tmp_path)["selected"]["indices"] == selected.indices.tolist()
    scores = card_of(tmp_path)["evaluation"]["condensed"][0]
    assert scores["accuracy_mean"] == pytest.approx(report.condensed[0].mean)


def test_data_under_which_the_set_means_something_else_are_refused(tmp_path):
    module = fitted(data=TinyData(classes=[0, 1]))
    with pytest.raises(CheckpointError, match="class_names"):
        module.evaluate(TinyData(classes=[1, 0]))
    args = write_arrays(tmp_path / "other.npz", classes=2)
    with pytest.raises(CheckpointError, match="class_names"):
        module.evaluate(ArrayFile(args[3], layout="NCHW"))
    assert module.evaluate().condensed[0].mean > 0  # the trainer's data are back


def test_a_set_that_is_not_made_yet_says_so(tmp_path):
    with pytest.raises(SettingsError, match="there is none yet: no fit has made its images"):
        SyntheticSet().evaluate(TinyData())
    with pytest.raises(SettingsError, match="there is none yet"):
        SyntheticSet().save(tmp_path)


def test_a_set_without_data_says_how_to_give_it_some(tmp_path):
    fitted().trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(SettingsError, match=r"evaluate\(datamodule\) first"):
        SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt").save(tmp_path / "set")


def test_the_functions_are_importable_without_lightning():
    script = "import sys, lit_condense.functional.distances; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
