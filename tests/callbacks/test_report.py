"""The final report: a set beside its start and its baselines."""

from __future__ import annotations

import json

import pytest
import torch

from lit_condense import SyntheticSet
from lit_condense.callbacks import FinalReport
from lit_condense.evaluation import Evaluation
from lit_condense.evaluation.published import PublishedAccuracy
from lit_condense.export import save_condensed
from lit_condense.init import Clustered, FirstReal, FromFile, Noise, RandomReal, Selected
from lit_condense.matching import GradientMatching
from lit_condense.parametrization import MultiFormation
from lit_condense.selection import EL2N, ProxyTraining, RandomSubset
from lit_condense.sets.card import condensed_from
from tests.cli_helpers import card_of, cli, write_config
from tests.helpers import Recorder, TinyData, fitted, quiet_trainer

LARGE = TinyData((20,) * 5)
STARTS = {
    "noise": Noise(),
    "random": RandomReal(),
    "first": FirstReal(),
    "clustered": Clustered(),
    "selected": Selected(EL2N(networks=1), ProxyTraining(epochs=1)),
}


def judged(folder, *callbacks, **settings):
    module = fitted(*(callbacks or [GradientMatching()]), FinalReport(str(folder)), **settings)
    return module, json.loads((folder / "card.json").read_text())["evaluation"]


# ------------------------------------------------------------------ start


def test_the_start_is_the_set_before_its_first_update_judged_as_the_set_is(tmp_path):
    recorder = Recorder()
    module, evaluation = judged(
        tmp_path, GradientMatching(), recorder, init=RandomReal(), parametrization=MultiFormation(2), data=LARGE
    )
    storage = module.parametrization
    before = storage.decode(recorder.images[0], module.data.real.normalization)
    assert torch.equal(module.start_set().images, before)
    assert not torch.equal(module.training_set().images, before)
    accuracies = [module.evaluator().accuracy(module.network, i, module.start_set())[0] for i in range(2)]
    assert evaluation["start"]["accuracies"] == pytest.approx(accuracies)
    assert evaluation["start"]["recipe"] == evaluation["condensed"][0]["recipe"]
    gained = 100 * (evaluation["condensed"][0]["accuracy_mean"] - evaluation["start"]["accuracy_mean"])
    assert evaluation["learned"]["points"] == pytest.approx(gained)


def test_the_start_can_be_left_out(tmp_path):
    _, evaluation = judged(tmp_path, evaluation=Evaluation(epochs=1, repeats=1, start=False), max_steps=1)
    assert {"start", "learned"}.isdisjoint(evaluation)
    assert "start" not in evaluation["not_better_than"]


@pytest.mark.parametrize("name", STARTS)
def test_a_run_that_goes_on_from_a_checkpoint_compares_with_the_same_start(tmp_path, name):
    settings = {"init": STARTS[name], "data": LARGE, "max_steps": 2}
    first = fitted(GradientMatching(), **settings)
    start = first.start_set().images
    first.trainer.save_checkpoint(tmp_path / "middle.ckpt")
    kept = torch.load(tmp_path / "middle.ckpt", weights_only=True)["lit_condense"]["start"]
    assert (kept is None) == (name in ("noise", "random", "first"))
    again = SyntheticSet(
        2,
        first.network,
        inner=first.inner,
        sampling=first.sampling,
        init=STARTS[name],
        evaluation=first.evaluation,
        seed=3,
    )
    trainer = quiet_trainer(GradientMatching(), FinalReport(str(tmp_path)), max_steps=4)
    trainer.fit(again, datamodule=TinyData((20,) * 5), ckpt_path=tmp_path / "middle.ckpt")
    assert torch.equal(again.start_set().images, start)
    alone = again.evaluator().accuracy(again.network, 0, first.start_set())[0]
    assert card_of(tmp_path)["evaluation"]["start"]["accuracies"][0] == pytest.approx(alone)


def test_a_file_that_was_written_over_since_is_not_taken_for_the_start(tmp_path):
    other = fitted(max_steps=1)
    save_condensed(tmp_path / "start", condensed_from(other, {}))
    settings = {"init": FromFile(str(tmp_path / "start")), "max_steps": 2}
    first = fitted(GradientMatching(), **settings)
    start = first.start_set().images
    first.trainer.save_checkpoint(tmp_path / "middle.ckpt")
    save_condensed(tmp_path / "start", condensed_from(first, {}))
    again = SyntheticSet(2, first.network, inner=first.inner, sampling=first.sampling, init=first.init, seed=3)
    again.evaluation = first.evaluation
    trainer = quiet_trainer(GradientMatching(), max_steps=2)
    trainer.fit(again, datamodule=TinyData(), ckpt_path=tmp_path / "middle.ckpt")
    assert torch.equal(again.start_set().images, start)


def test_a_set_loaded_before_there_is_a_trainer_knows_its_start_too(tmp_path):
    first = fitted(max_steps=1)
    first.trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = SyntheticSet.load_from_checkpoint(
        tmp_path / "one.ckpt", network=first.network, sampling=first.sampling, inner=first.inner, seed=3
    )
    loaded.evaluation = first.evaluation
    quiet_trainer(GradientMatching(), max_steps=1).fit(loaded, datamodule=TinyData())
    assert torch.equal(loaded.start_set().images, first.start_set().images)


# ------------------------------------------------------------------ what is not beaten


def test_a_set_that_learned_nothing_is_said_not_to_beat_its_start(tmp_path, capsys):
    frozen = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    cli("fit", *write_config(tmp_path, optimizer=frozen), "--trainer.val_check_interval", "100")
    evaluation, table = card_of(tmp_path / "tiny")["evaluation"], capsys.readouterr().out
    assert evaluation["learned"] == {"points": 0.0, "standard_error": evaluation["learned"]["standard_error"]}
    assert "start" in evaluation["not_better_than"]
    lines = [line for line in table.splitlines() if line.startswith("Not better than its own start by more than")]
    assert len(lines) == 1
    assert "+0.0 +- " in lines[0]


def test_what_is_not_beaten_follows_from_the_scores_of_the_card(tmp_path, capsys):
    evaluation = Evaluation(epochs=3, repeats=3, baselines=[RandomSubset()])
    _, found = judged(tmp_path, evaluation=evaluation)
    table = capsys.readouterr().out

    def mean_and_error(score):
        values = torch.tensor(score["accuracies"], dtype=torch.float64)
        return float(values.mean()), float(values.std()) / 3**0.5

    mean, error = mean_and_error(found["condensed"][0])
    expected = []
    for name, score in (("start", found["start"]), ("random", found["baselines"]["random"])):
        other, its_error = mean_and_error(score)
        if mean - other <= (error**2 + its_error**2) ** 0.5:
            expected.append(name)
    assert found["not_better_than"] == expected
    assert ("Not better than random real images" in table) == ("random" in expected)


def test_rows_say_how_the_real_images_are_stored(tmp_path, capsys):
    judged(tmp_path, init=Noise(), parametrization=MultiFormation(2), data=LARGE, max_steps=1)
    assert "random real, 10 stored images (40 half-size), same recipe" in capsys.readouterr().out
    baseline = card_of(tmp_path)["evaluation"]["baselines"]["random"]
    assert {name: baseline[name] for name in ("stored_images", "real_images", "factor")} == {
        "stored_images": 10,
        "real_images": 40,
        "factor": 2,
    }


def test_the_published_figure_of_its_row_stands_in_card_and_table(tmp_path, monkeypatch, capsys):
    asked = []

    def known(*about):
        asked.append(about)
        return PublishedAccuracy(0.449, "a paper", 0.005)

    monkeypatch.setattr("lit_condense.callbacks.final_report.of_row", known)
    settings = {"data": LARGE, "evaluation": Evaluation(epochs=1, repeats=1), "max_steps": 1}
    fitted(GradientMatching(), FinalReport(str(tmp_path), row="dc/tiny_ipc2"), **settings)
    assert asked == [("dc/tiny_ipc2", LARGE.dataset_name, [2] * 5, [20] * 5)]
    published = {"row": "dc/tiny_ipc2", "accuracy": 0.449, "source": "a paper", "spread": 0.005}
    assert json.loads((tmp_path / "card.json").read_text())["published"] == published
    assert "Published for dc/tiny_ipc2: 44.9 +- 0.5 % (a paper)." in capsys.readouterr().out


def test_no_figure_is_shown_for_a_part_of_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lit_condense.callbacks.final_report.of_row", lambda *_: PublishedAccuracy(0.449, "a paper"))
    part = TinyData((20,) * 5)
    part.classes = [0, 1, 2]
    settings = {"data": part, "evaluation": Evaluation(epochs=1, repeats=1), "max_steps": 1}
    fitted(GradientMatching(), FinalReport(str(tmp_path), row="dc/tiny_ipc2"), **settings)
    assert "published" not in json.loads((tmp_path / "card.json").read_text())
    assert "Published" not in capsys.readouterr().out
