from __future__ import annotations

import functools
import re
import resource
from types import SimpleNamespace

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_condense import SyntheticSet, __version__, load_condensed
from lit_condense.cli import main
from tests.cli_helpers import (
    card_of,
    checkpoint_of,
    cli,
    console_script,
    contents,
    printed,
    python_m,
    refusal,
    succeeded,
    write_arrays,
    write_config,
)

SCALARS = {
    "loss/GradientMatching",
    "loss/total",
    "val/acc",
    "val/acc_std",
    "final/acc",
    "final/acc_std",
    "baseline/random_acc",
    "start/acc",
    "start/acc_std",
    "set/grad_norm",
    "set/pixel_min",
    "set/pixel_max",
    "set/pixel_mean",
    "set/pixel_std",
    "time/sampling",
    "time/match",
    "time/inner",
    "time/eval",
    "lr/images",
    "lr/inner",
}
NETWORKS = [
    {"class_path": "lit_condense.networks.ConvNet", "init_args": {"width": 4, "depth": 1}},
    {"class_path": "lit_condense.networks.MLP", "init_args": {"width": 4}},
]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """One fit as ``python -m lit_condense``: its process, its folder, its arguments."""
    folder = tmp_path_factory.mktemp("cli")
    args = write_config(folder)
    process = succeeded(python_m("lit_condense", "fit", *args))
    return process, folder / "tiny", args


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_a_fit_writes_the_set_its_card_a_picture_its_log_its_config_and_checkpoints(fitted):
    _, folder, _ = fitted
    written = {path.name for path in folder.iterdir()}
    assert {"condensed.safetensors", "card.json", "grid.png", "config.yaml", "checkpoints"} <= written
    assert len([name for name in written if name.startswith("events.out.tfevents")]) == 1
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "epoch=0-step=3.ckpt", "epoch=0-step=4.ckpt"}
    assert checkpoint_of(folder)["global_step"] == 4
    images, labels, card = load_condensed(folder)
    assert images.shape == (10, 1, 8, 8)
    assert labels.tolist() == list(range(10))
    assert card["update"] == card["max_updates"] == 4
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_the_saved_config_repeats_the_run(fitted, capsys):
    _, folder, args = fitted
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    # it makes a folder of its own
    assert saved == yaml.safe_load(printed(capsys, "fit", *args)) | {"out": None}


def test_standard_output_of_a_fit_is_the_table_and_nothing_else(fitted):
    process, folder, _ = fitted
    lines = process.stdout.strip("\n").splitlines()
    assert lines[0].startswith("Test accuracy on digits")
    wrote = lines.index("Wrote:")
    assert [line.strip() for line in lines[wrote + 1 :]] == [
        *(str(folder / name) for name in ("condensed.safetensors", "card.json", "grid.png")),
        str(folder),
    ]
    numbers = [line for line in lines[1:wrote] if line.startswith("  ")]
    assert [line.split(",")[0].strip() for line in numbers] == [
        "condensed",
        "start",
        "random real",
        "all 100 real",
    ]
    assert lines[2 + len(numbers)].startswith("Learned on top of its start: ")
    beaten_by = card_of(folder)["evaluation"]["not_better_than"]
    said = [line for line in lines if line.startswith("Not better than")]
    assert len(said) == len(beaten_by)
    assert len(lines) == 2 + len(numbers) + 1 + len(said) + 1 + 1 + 4


def test_what_nobody_can_use_is_not_said(fitted):
    process, _, _ = fitted
    assert "Condensing digits" in process.stderr
    assert "litlogger" not in process.stderr
    assert "weights_only" not in process.stderr, "it is said of writing, and would frighten those who know of reading"


def test_the_table_says_what_the_card_says(fitted):
    process, folder, _ = fitted
    evaluation = card_of(folder)["evaluation"]
    scores = [*evaluation["condensed"], evaluation["start"], evaluation["baselines"]["random"]]
    scores.append(evaluation["all_real_short"])
    shown = re.findall(r"  ([\d.]+)(?: \+- ([\d.]+))? %", process.stdout)
    assert len(shown) == len(scores) == 4
    for (mean, spread), score in zip(shown, scores, strict=True):
        values = torch.tensor(score["accuracies"], dtype=torch.float64)
        assert float(mean) == pytest.approx(100 * float(values.mean()), abs=0.051)
        assert score["accuracy_mean"] == pytest.approx(float(values.mean()))
        if len(values) > 1:
            assert float(spread) == pytest.approx(100 * float(values.std()), abs=0.051)
        else:
            assert spread == ""
    assert "over 2 fresh networks" in process.stdout
    assert "Images kept: 10 of 100 (10.00%)" in process.stdout


def test_with_a_progress_bar_standard_output_holds_the_bar_and_the_table_only(tmp_path, capsys, monkeypatch):
    # Lightning shows another bar where rich happens to be installed
    monkeypatch.setattr("lightning.pytorch.trainer.connectors.callback_connector._RICH_AVAILABLE", False)
    cli("fit", *write_config(tmp_path), "--trainer.enable_progress_bar", "true")
    before, after = capsys.readouterr().out.split("\nTest accuracy on", 1)
    bars = [part.strip() for part in re.split(r"[\r\n]|\x1b\[A", before)]
    shown = [part for part in bars if part]
    assert any("4/4" in part and "loss/total=" in part and "val/acc=" in part for part in shown)
    assert [part for part in shown if not re.match(r"(Training|Epoch 0|Validation)( DataLoader 0)?:.*\|", part)] == []
    assert after.strip().endswith(str(tmp_path / "tiny"))


def test_every_tag_is_in_the_event_file(fitted):
    _, folder, _ = fitted
    log = events(folder)
    assert set(log.Tags()["scalars"]) >= SCALARS
    assert log.Tags()["images"] == ["synthetic/grid"]
    assert log.Tags()["histograms"] == ["synthetic/pixels"]
    assert any("session_start_info" in tag for tag in log.PluginTagToContent("hparams"))
    assert [image.step for image in log.Images("synthetic/grid")] == [0, 2, 4]
    for tag in ("loss/GradientMatching", "loss/total", "set/grad_norm", "time/match", "time/inner", "lr/images"):
        assert [event.step for event in log.Scalars(tag)] == [0, 1, 2, 3], tag
        # a network is made before its first update and not trained after its last: between them is nothing to do
        positive = [event.value > 0 for event in log.Scalars(tag)]
        assert any(positive) if tag == "time/inner" else all(positive), tag


def test_the_logged_values_are_those_of_the_run(fitted):
    _, folder, _ = fitted
    log, card = events(folder), card_of(folder)
    last = {tag: log.Scalars(tag)[-1].value for tag in SCALARS}
    assert last["lr/images"] == pytest.approx(0.1)
    assert last["lr/inner"] == pytest.approx(0.01)
    assert last["loss/total"] == pytest.approx(last["loss/GradientMatching"])
    assert last["final/acc"] == pytest.approx(card["evaluation"]["condensed"][0]["accuracy_mean"])
    assert last["final/acc_std"] == pytest.approx(card["evaluation"]["condensed"][0]["accuracy_std"])
    assert last["baseline/random_acc"] == pytest.approx(card["evaluation"]["baselines"]["random"]["accuracy_mean"])
    assert last["start/acc"] == pytest.approx(card["evaluation"]["start"]["accuracy_mean"])
    images = load_condensed(folder).images
    assert last["set/pixel_min"] == pytest.approx(float(images.min()), rel=1e-5)
    assert last["set/pixel_max"] == pytest.approx(float(images.max()), rel=1e-5)
    assert last["set/pixel_mean"] == pytest.approx(float(images.mean()), rel=1e-4)
    assert last["set/pixel_std"] == pytest.approx(float(images.std()), rel=1e-4)


def test_the_console_script_validates_and_leaves_the_fit_as_it_was(fitted):
    _, folder, args = fitted
    before = contents(folder)
    process = succeeded(console_script("validate", *args, "--ckpt_path", "last"))
    assert "val/acc" in process.stdout
    after = contents(folder)
    assert {path: after[path] for path in before} == before


def test_validate_test_and_predict_leave_the_files_of_the_fit_as_they_were(fitted):
    _, folder, args = fitted
    before = contents(folder)
    for command in ("validate", "test", "predict"):
        cli(command, *args, "--ckpt_path", "last")
    after = contents(folder)
    assert {path.name for path in before if after[path] != before[path]} == set()


def test_help_comes_quickly_and_names_the_commands():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = succeeded(console_script("--help"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # seconds of work, not of waiting: other jobs may hold the cores
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    assert "usage: lit-condense" in process.stdout
    for command in ("fit", "validate", "test", "predict"):
        assert re.search(rf"^\s+{command}\s", process.stdout, re.MULTILINE), command


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--version"], [f"lit-condense {__version__}"]),
        (["fit", "--help"], ["--trainer.max_steps", "--ckpt_path", "--model", "--data"]),
        (["fit", "--model.help=SyntheticSet"], ["--model.ipc", "Images per class", "--model.inner"]),
        (["fit", "--data.help=ArrayFile"], ["--data.path", "--data.layout"]),
    ],
)
def test_version_and_help_are_printed(capsys, args, words):
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code in (0, None)
    shown = capsys.readouterr().out
    assert [word for word in words if word not in shown] == []


def test_several_networks_give_an_accuracy_each(tmp_path, capsys):
    evaluation = {"class_path": "lit_condense.evaluation.Evaluation"}
    evaluation["init_args"] = {
        "networks": NETWORKS,
        "repeats": 1,
        "epochs": 1,
        "quick_repeats": 1,
        "full_data_steps": 0,
    }
    args = write_config(tmp_path, evaluation=evaluation)
    cli("fit", *args, "--trainer.max_steps", "1", "--trainer.val_check_interval", "100")
    log, scores = events(tmp_path / "tiny"), card_of(tmp_path / "tiny")["evaluation"]["condensed"]
    names = [score["network"] for score in scores]
    assert names == ["ConvNet(depth=1,width=4)", "MLP(width=4)"]
    for name, score in zip(names, scores, strict=True):
        assert log.Scalars(f"final/acc/{name}")[-1].value == pytest.approx(score["accuracy_mean"])
    assert log.Scalars("final/acc")[-1].value == pytest.approx(scores[0]["accuracy_mean"])
    table = capsys.readouterr().out
    assert all(f"condensed, 10 images ({name})" in table for name in names)
    tested = cli("test", *args, "--ckpt_path", "last").trainer.callback_metrics
    for name, score in zip(names, scores, strict=True):
        assert float(tested[f"test/acc/{name}"]) == pytest.approx(score["accuracy_mean"])


def test_every_setting_can_be_given_on_the_shell(tmp_path, capsys):
    overrides = [
        "--model.init_args.ipc=2",
        "--model.inner.epochs=1",
        "--model.init=RandomReal",
        "--model.parametrization=Pixels",
        "--model.parametrization.clamp=every_update",
        "--model.engine=Engine",
        "--model.engine.classes_per_block=3",
        "--model.optimizer=Adam",
        "--model.optimizer.lr=0.05",
        "--model.network=ConvNet",
        "--model.network.init_args.depth=2",
        "--trainer.callbacks+=GradientMatching",
        "--trainer.callbacks.name=second",
        "--trainer.callbacks.distance=l1",
        "--data=Digits",
        "--data.classes=[0,1,2]",
        "--seed_everything=5",
    ]
    config = yaml.safe_load(printed(capsys, "fit", *write_config(tmp_path), *overrides))
    model = config["model"]["init_args"]
    assert model["ipc"] == 2
    assert model["inner"]["init_args"]["epochs"] == 1
    assert model["inner"]["init_args"]["updates"] == 4
    assert model["init"]["class_path"] == "lit_condense.init.RandomReal"
    assert model["parametrization"]["init_args"]["clamp"] == "every_update"
    assert model["engine"]["init_args"]["classes_per_block"] == 3
    assert model["optimizer"] == {**model["optimizer"], "class_path": "torch.optim.Adam"}
    assert model["optimizer"]["init_args"]["lr"] == 0.05
    assert model["network"]["init_args"]["depth"] == 2
    assert len(config["trainer"]["callbacks"]) == 2
    assert config["trainer"]["callbacks"][-1]["init_args"]["name"] == "second"
    assert config["data"]["init_args"]["classes"] == [0, 1, 2]
    assert config["seed_everything"] == 5


def test_what_the_shell_says_is_what_runs(tmp_path):
    shell = ["--model.init_args.ipc=2", "--data.classes=[3,4]", "--model.init=RandomReal", "--seed_everything=5"]
    shell += ["--trainer.callbacks+=GradientMatching", "--trainer.callbacks.name=second"]
    shell += ["--trainer.callbacks.weight=0.5", "--trainer.max_steps=1", "--trainer.val_check_interval=100"]
    done = cli("fit", *write_config(tmp_path), *shell)
    card = card_of(tmp_path / "tiny")
    assert card["ipc"] == [2, 2]
    assert card["data"]["classes"] == [3, 4]
    assert card["seed"] == done.model.seed == 5
    assert card["method"]["model"]["init"]["class_path"].endswith("RandomReal")
    assert list(card["method"]["matching"]) == ["GradientMatching", "second"]
    log = events(tmp_path / "tiny")
    first, second, total = (log.Scalars(f"loss/{tag}")[0].value for tag in ("GradientMatching", "second", "total"))
    assert first == second
    assert total == pytest.approx(1.5 * first, rel=1e-6)


def test_seconds_of_condensing_are_counted_once_and_without_evaluations(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lit_condense.runs.timing.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def lasting(seconds, step):
        @functools.wraps(step)
        def timed(*args):
            now[0] += seconds
            return step(*args)

        return timed

    monkeypatch.setattr(SyntheticSet, "training_step", lasting(1, SyntheticSet.training_step))
    monkeypatch.setattr(SyntheticSet, "validation_step", lasting(100, SyntheticSet.validation_step))
    args = write_config(tmp_path, save_every=100)
    cli("fit", *args, "--trainer.val_check_interval", "2")
    assert card_of(tmp_path / "tiny")["seconds"]["condensing"] == 4
    assert checkpoint_of(tmp_path / "tiny")["callbacks"]["FinalReport"]["seconds"] == 4
    cli("fit", *args, "--trainer.val_check_interval", "2", "--trainer.max_steps", "8", "--ckpt_path", "last")
    assert card_of(tmp_path / "tiny")["seconds"]["condensing"] == 8


def test_double_precision_runs(tmp_path):
    done = cli("fit", *write_config(tmp_path), "--trainer.precision", "64-true")
    assert done.model.images.dtype == torch.float64
    assert load_condensed(tmp_path / "tiny").images.dtype == torch.float32


def test_images_with_other_than_one_or_three_channels_run(tmp_path):
    data = write_arrays(tmp_path / "five.npz", shape=(5, 8, 8))
    cli("fit", *write_config(tmp_path), *data, "--data.train_limit_per_class", "null")
    assert load_condensed(tmp_path / "tiny").images.shape == (2, 5, 8, 8)
    assert (tmp_path / "tiny" / "grid.png").stat().st_size > 0


def test_a_set_that_was_never_condensed_is_not_written_over_one_that_was(fitted, capsys):
    _, folder, args = fitted
    before = contents(folder)
    assert "ckpt_path" in refusal(capsys, "predict", *args)
    assert contents(folder) == before
    with pytest.warns(UserWarning, match="No ckpt_path given"):
        cli("validate", *args)


def test_the_table_counts_the_real_images_that_were_drawn(tmp_path, capsys):
    data = write_arrays(tmp_path / "few.npz", per_class=6)
    few = ["--data.train_limit_per_class", "null", "--model.ipc", "9", "--model.inner.epochs", "1"]
    cli("fit", *write_config(tmp_path), *data, *few, "--trainer.max_steps", "1", "--trainer.val_check_interval", "100")
    table = capsys.readouterr().out
    assert "condensed, 18 images" in table
    assert "random real, 12 images" in table


@pytest.mark.slow
def test_two_devices_end_with_the_set_and_the_table_of_one(fitted, tmp_path):
    # One rank has a network to validate and the other none: whatever gathers inside such a step waits for ever.
    process, folder, _ = fitted
    args = [*write_config(tmp_path), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    both = succeeded(console_script("fit", *args))
    assert card_of(tmp_path / "tiny")["sha256"] == card_of(folder)["sha256"]
    norms, one = ([event.value for event in events(f).Scalars("set/grad_norm")] for f in (tmp_path / "tiny", folder))
    assert norms == pytest.approx(one, rel=1e-5)  # of the sum over the ranks
    numbers = [re.findall(r"([\d.]+ \+- [\d.]+) %", output) for output in (both.stdout, process.stdout)]
    assert numbers[0] == numbers[1] != []
    assert both.stdout.count("Test accuracy on") == 1
