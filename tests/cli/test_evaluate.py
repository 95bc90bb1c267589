"""``lit-condense evaluate`` and ``export``: from a file that somebody has to a card, in one command."""

from __future__ import annotations

import json

import pytest
import torch

from lit_condense import load_condensed
from lit_condense.cli import main
from tests.cli_helpers import write_config
from tests.interchange.files import images_of, labels_of, results, trajectories

DATA = ["--data", "tests.interchange.test_writing.TinyCifar"]
SHORT = ["--networks", "ConvNet(width=4,depth=2)", "--repeats", "2", "--epochs", "2", "--full_data_steps", "0"]


def evaluated(path, out, *words):
    main(["evaluate", str(path), *DATA, *SHORT, "--out", str(out), *words])
    return json.loads((out / "card.json").read_text())


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert "Traceback" not in capsys.readouterr().err
    return str(stopped.value.code)


def test_a_result_of_dc_is_scored_in_one_command(tmp_path, capsys):
    card = evaluated(results(tmp_path), tmp_path / "out")
    (score,) = card["evaluation"]["condensed"]
    assert (score["network"], score["networks"]) == ("ConvNet(depth=2,width=4)", 2)
    assert score["recipe"]["protocol"] == "dc"
    assert list(card["evaluation"]["baselines"]) == ["random"], "beside real images of the same storage"
    assert card["data"]["normalization"]["family"] == "dc", "tested on images as DC's program normalises them"
    origin = card["origin"]
    assert (origin["layout"], origin["space"], origin["packing"]["factor"]) == ("vico", "dc", 1)
    assert origin["reported"] == {"ConvNet": [0.25, 0.5]}
    said = capsys.readouterr().out
    assert "Read as vico: dc values" in said
    assert "The file reports ConvNet: 0.2500, 0.5000." in said
    read = load_condensed(tmp_path / "out")
    assert torch.equal(read.stored, images_of(seed=1))
    assert read.labels.tolist() == labels_of().tolist()
    assert (tmp_path / "out" / "grid.png").is_file()


def test_what_is_open_is_asked_for_and_answers_are_heard(tmp_path, capsys):
    path = trajectories(tmp_path)
    question = refused(capsys, "evaluate", path, *DATA, *SHORT)
    assert "--space" in question
    card = evaluated(path, tmp_path / "out", "--space", "mtt", "--inner_lr=0.25", "--baselines")
    assert card["data"]["normalization"]["family"] == "mtt"
    assert card["evaluation"]["condensed"][0]["recipe"]["lr"] == 0.25
    assert card["evaluation"]["baselines"] == {}
    assert card["origin"]["step_size"] == 0.25


def test_the_normalisation_that_is_given_counts(tmp_path):
    words = ["--data.normalization", "egm", "--protocol", "egm", "--baselines"]
    card = evaluated(results(tmp_path), tmp_path / "out", *words)
    assert card["data"]["normalization"]["family"] == "egm"
    assert card["evaluation"]["condensed"][0]["recipe"]["protocol"] == "egm"


def test_several_networks_and_baselines_by_name(tmp_path):
    words = ["--networks", "ConvNet(width=4,depth=2)", "MLP(width=8)", "--baselines", "Herding", "RandomSubset"]
    card = evaluated(results(tmp_path), tmp_path / "out", *words)
    assert [one["network"] for one in card["evaluation"]["condensed"]] == ["ConvNet(depth=2,width=4)", "MLP(width=8)"]
    assert set(card["evaluation"]["baselines"]) == {"herding", "random"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--networks", "ConvNot"], "ConvNot"),
        (["--networks", "ConvNet(", "--data"], "ConvNet("),
        (["--networks", "torch.load"], "torch.load"),
        (["--baselines", "Nothing"], "Nothing"),
        (["--protocol", "dcc"], "dcc"),
        (["--experiment", "7"], "--experiment"),
        (["--labels", "nowhere.pt", "--factor", "2"], "--order"),
    ],
)
def test_wrong_words_end_in_one_sentence(tmp_path, capsys, words, said):
    path = results(tmp_path, "res_DM_CIFAR10_ConvNet_2ipc.pt") if "--factor" in words else results(tmp_path)
    if "--data" in words:
        words = words[:-1]
    if "--factor" in words:  # both orders are possible where a file says nothing
        torch.save({"images": images_of(), "labels": labels_of()}, tmp_path / "mine.pt")
        path, words = tmp_path / "mine.pt", ["--space", "pixel", "--factor", "2"]
    message = refused(capsys, "evaluate", path, *DATA, "--epochs", "1", "--repeats", "1", *words)
    assert said in message


@pytest.mark.parametrize("words", [["--factor", "two"], ["--inner_lr", "fast"], ["--repeats", "x"], ["--nothing", "1"]])
def test_words_of_another_kind_end_in_the_parsers_message(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(results(tmp_path)), *DATA, *words])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert words[0].lstrip("-") in said
    assert "Traceback" not in said


def test_the_set_comes_first(capsys):
    assert "the set first" in refused(capsys, "evaluate", *DATA)


def test_a_refused_evaluation_leaves_no_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save([torch.rand(6, 3, 9, 9), labels_of()], tmp_path / "data.pt")
    message = refused(capsys, "evaluate", "data.pt", "--factor", "1", *DATA, *SHORT)
    assert "(3, 8, 8)" in message
    assert not (tmp_path / "runs").exists()


def test_results_are_never_written_over(tmp_path, capsys):
    evaluated(results(tmp_path), tmp_path / "out", "--baselines")
    message = refused(capsys, "evaluate", results(tmp_path), *DATA, *SHORT, "--out", tmp_path / "out")
    assert "card.json stands there" in message


def test_a_run_of_ones_own_scores_as_it_did_without_a_word(tmp_path, capsys):
    main(["fit", *write_config(tmp_path)])
    before = json.loads((tmp_path / "tiny" / "card.json").read_text())
    main(["evaluate", str(tmp_path / "tiny"), "--out", str(tmp_path / "again")])
    after = json.loads((tmp_path / "again" / "card.json").read_text())
    scores = [card["evaluation"]["condensed"][0]["accuracies"] for card in (before, after)]
    assert scores[0] == scores[1]
    random = [card["evaluation"]["baselines"]["random"]["accuracies"] for card in (before, after)]
    assert random[0] == random[1]
    assert after["update"] == before["update"]


def test_a_set_goes_out_and_comes_back_by_the_command_line(tmp_path, capsys):
    evaluated(results(tmp_path), tmp_path / "out", "--baselines")
    main(["export", str(tmp_path / "out"), "--format", "vico", "--out", str(tmp_path / "theirs")])
    said = capsys.readouterr().out
    (path,) = (tmp_path / "theirs").iterdir()
    assert str(path) in said
    card = evaluated(path, tmp_path / "back", "--baselines", "--protocol", "dc", "--factor", "1")
    assert torch.allclose(load_condensed(tmp_path / "back").stored, images_of(seed=1), atol=1e-6)
    assert card["origin"]["layout"] == "vico"
