from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_condense import SelectedSet, load_condensed
from lit_condense.callbacks import FinalReport
from lit_condense.data import Digits
from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.evaluation import Evaluation, training
from lit_condense.export import write_image_folder
from lit_condense.rng import RandomKey
from lit_condense.selection import CRAIG, Budget, Forgetting, GraNd, Herding, ProxyTraining, RandomSubset, select_now
from tests.cli_helpers import (
    card_of,
    checkpoint_of,
    cli,
    console_script,
    new_process,
    refusal,
    succeeded,
    tiny_config,
    write_config,
)
from tests.helpers import TinyData, quiet_trainer, tiny_convnet
from tests.test_resume import same

EVALUATION = {"protocol": "coreset", "repeats": 2, "quick_repeats": 1, "epochs": 2, "full_data_steps": 2}
PROXY = {"epochs": 2, "batch_size": 40}
STEPS = 2 * 3
"""Of one network on 100 images."""


def selection_config(folder, selection, name="tiny", save_every=1, **model):
    """A run on 10 digits a class, as a file: ``["--config", its path]``."""
    config = tiny_config(folder, name, save_every) | {"proxy_cache": None}
    del config["trainer"]["max_steps"]
    del config["trainer"]["callbacks"]
    networks = {} if selection[1] is None else {"init_args": selection[1]}
    config["model"] = {
        "class_path": "lit_condense.SelectedSet",
        "init_args": {
            "selection": {"class_path": f"lit_condense.selection.{selection[0]}", **networks},
            "ipc": 2,
            "network": config["model"]["init_args"]["network"],
            "proxy": {"class_path": "lit_condense.selection.ProxyTraining", "init_args": dict(PROXY)},
            "evaluation": {"class_path": "lit_condense.evaluation.Evaluation", "init_args": dict(EVALUATION)},
            **model,
        },
    }
    path = Path(folder) / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return ["--config", str(path)]


def fitted(selection, data=None, trainer=None, callbacks=(), **settings):
    """A set after a quiet fit, with its trainer at ``module.trainer``."""
    defaults = {
        "network": tiny_convnet(),
        "proxy": ProxyTraining(epochs=2, batch_size=16),
        "evaluation": Evaluation(protocol="coreset", epochs=2, repeats=2, quick_repeats=1),
        "seed": 3,
    }
    if "fraction" not in settings:
        defaults["ipc"] = 2
    module = SelectedSet(selection, **{**defaults, **settings})
    running = quiet_trainer(*callbacks, **{"max_steps": -1, "max_epochs": -1, **(trainer or {})})
    running.fit(module, datamodule=data or TinyData())
    return module


def tensor_bytes(folder):
    content = (Path(folder) / "condensed.safetensors").read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


# ---------------------------------------------------------------- what is selected


def test_the_lightning_loop_selects_what_the_plain_loop_selects():
    module = fitted(GraNd(networks=2))
    assert module.trainer.global_step == 2 * 2 * 3
    real, key = TinyData().real, RandomKey(3).fold("selection")
    plain = select_now(
        GraNd(networks=2), ProxyTraining(epochs=2, batch_size=16), real, Budget(ipc=2), tiny_convnet(), key
    )
    assert torch.equal(module.indices, plain.indices)
    assert module.weights_of_images() is None


def test_the_same_seed_selects_the_same_images_and_another_seed_others():
    first, again, other = (fitted(Herding(), seed=seed).indices for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_training_set_is_the_real_images_at_the_indices():
    module = fitted(RandomSubset(), ipc=[3, 1, 2, 4, 2])
    real, current = module.data.real, module.training_set()
    assert module.counts == [3, 1, 2, 4, 2]
    assert current.labels.tolist() == [0] * 3 + [1] + [2] * 2 + [3] * 4 + [4] * 2
    assert len(module.indices.unique()) == 12
    assert torch.equal(current.images, real.at(module.indices))
    assert torch.equal(current.labels, real.labels[module.indices])
    assert torch.equal(module.pixels(), real.pixels_at(module.indices))
    assert current.weights is None


@pytest.mark.parametrize("balanced", [True, False])
def test_a_fraction_of_unequal_classes(balanced):
    data = TinyData((20, 1, 9, 4, 30))
    module = fitted(Herding(), data, fraction=0.6, balanced=balanced)
    if balanced:
        assert module.counts == [12, 1, 5, 2, 18]
    assert sum(module.counts) == 38
    assert len(module.indices.unique()) == 38
    assert module.unfinished == ""


def test_an_unbalanced_selection_may_leave_a_class_out(tmp_path):
    class First(RandomSubset):
        def choose(self, candidates, count, key):
            return type(super().choose(candidates, count, key))(candidates.labels.argsort(stable=True)[:count])

    module = fitted(First(), callbacks=[FinalReport(str(tmp_path))], balanced=False, ipc=[1, 1, 1, 1, 6])
    assert module.counts == [9, 1, 0, 0, 0]
    assert load_condensed(tmp_path).card["ipc"] == [9, 1, 0, 0, 0]


def test_without_networks_there_is_nothing_to_train_but_all_else_is_as_always(tmp_path):
    module = fitted(RandomSubset(), callbacks=[FinalReport(str(tmp_path))])
    assert module.trainer.global_step == 0
    assert load_condensed(tmp_path).card["selected"]["indices"] == module.indices.tolist()


def test_the_trainer_gets_its_own_limit_back():
    assert fitted(RandomSubset()).trainer.max_steps == -1
    assert fitted(Herding(), trainer={"max_steps": 50}).trainer.max_steps == 50


# ---------------------------------------------------------------- weights


def test_weights_reach_every_batch_that_an_evaluation_network_is_trained_on(monkeypatch):
    module = fitted(CRAIG(), weighted=True)
    weights = module.weights_of_images()
    assert weights.sum() == len(module.data.real)  # sizes of the clusters
    assert torch.equal(module.training_set().weights, weights)
    seen = []
    weighted = training.weighted
    monkeypatch.setattr(training, "weighted", lambda labels, w, n: seen.append(w) or weighted(labels, w, n))
    module.evaluator().accuracy(module.network, 0, module.training_set())
    assert [sorted(w.tolist()) for w in seen] == [sorted(weights.tolist())] * 2  # two epochs of one batch


def test_weights_are_kept_but_not_trained_with_unless_asked_for(tmp_path):
    module = fitted(CRAIG(), callbacks=[FinalReport(str(tmp_path))])
    assert module.training_set().weights is None
    written = load_condensed(tmp_path)
    assert torch.equal(written.weights, module.weights_of_images())
    assert written.card["selected"]["weights"] == written.weights.tolist()
    assert written.card["selected"]["trained_with_weights"] is False


def test_weights_of_a_method_that_has_none_are_refused_at_once():
    with pytest.raises(SettingsError, match="Herding gives none"):
        SelectedSet(Herding(), ipc=1, weighted=True)


# ---------------------------------------------------------------- the cache


def test_two_methods_share_the_networks_of_one_cache_and_select_as_without(tmp_path):
    proxy = ProxyTraining(epochs=2, batch_size=16, cache=str(tmp_path))
    uncached = [fitted(method).indices for method in (Herding(), Forgetting())]
    first = fitted(Herding(), proxy=proxy)
    second = fitted(Forgetting(), proxy=proxy)
    assert (first.trainer.global_step, second.trainer.global_step) == (6, 0)
    assert torch.equal(first.indices, uncached[0])
    assert torch.equal(second.indices, uncached[1])
    more = fitted(GraNd(networks=2), proxy=proxy)
    assert more.trainer.global_step == 6  # the second network only
    assert torch.equal(more.indices, fitted(GraNd(networks=2)).indices)
    assert more.particulars()["selected"]["proxy_models"] == {"all": 2, "trained_before": 1}


def test_a_broken_file_in_the_cache_stops_the_run_before_any_work(tmp_path):
    proxy = ProxyTraining(epochs=2, batch_size=16, cache=str(tmp_path))
    fitted(Herding(), proxy=proxy)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="Delete the file"):
        fitted(Herding(), proxy=proxy)


# ---------------------------------------------------------------- the command line

METHODS = {"grand": ("GraNd", {"networks": 2}), "forgetting": ("Forgetting", None), "craig": ("CRAIG", None)}
RESUME = "import json, sys; from lit_condense.cli import main; [main(args) for args in json.loads(sys.argv[1])]"
STOPS = {"grand": 8, "forgetting": 4, "craig": 3}
"""Steps before the break: grand's is in the life of its second network."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every method run in one go, and with a break after which a new process goes on."""
    folder = tmp_path_factory.mktemp("selected")
    goes_on, breaks = [], {}
    for name, method in METHODS.items():
        changes = {"weighted": name == "craig"}
        cli("fit", *selection_config(folder, method, f"{name}_straight", **changes))
        broken = selection_config(folder, method, f"{name}_broken", **changes)
        with pytest.warns(UserWarning, match="no report: No images are selected yet"):
            cli("fit", *broken, "--trainer.max_steps", STOPS[name])
        breaks[name] = checkpoint_of(folder / f"{name}_broken")
        assert not (folder / f"{name}_broken" / "condensed.safetensors").exists()
        goes_on.append(["fit", *broken, "--ckpt_path", "last"])
    succeeded(new_process(sys.executable, "-c", RESUME, json.dumps(goes_on)))
    return folder, breaks


@pytest.mark.parametrize("name", METHODS)
def test_a_broken_run_ends_with_the_bytes_of_an_unbroken_one(runs, name):
    folder, breaks = runs
    straight, broken = folder / f"{name}_straight", folder / f"{name}_broken"
    steps = STEPS * (2 if name == "grand" else 1)
    assert breaks[name]["global_step"] == STOPS[name]
    assert len(breaks[name]["state_dict"]["indices"]) == 0
    assert len(breaks[name]["lit_condense"]["trained"]) == (1 if name == "grand" else 0)
    assert tensor_bytes(straight) == tensor_bytes(broken)
    assert card_of(straight)["sha256"] == card_of(broken)["sha256"]
    assert card_of(straight)["selected"] == card_of(broken)["selected"]
    for one in (straight, broken):
        last = checkpoint_of(one)
        assert last["global_step"] == steps
        assert sorted(last["state_dict"]) == ["_extra_state", "indices", "weights"]  # no networks any more
        assert last["state_dict"]["indices"].tolist() == card_of(one)["selected"]["indices"]
    scores = [card_of(one)["evaluation"]["condensed"][0]["accuracies"] for one in (straight, broken)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", METHODS)
def test_networks_optimizers_and_counters_go_on_as_if_there_had_been_no_break(runs, name):
    steps = STEPS * (2 if name == "grand" else 1)
    before_last = f"epoch=0-step={steps - 1}"
    one, other = (checkpoint_of(runs[0] / f"{name}_{how}", before_last) for how in ("straight", "broken"))
    assert one["global_step"] == steps - 1 > STOPS[name]
    assert any(key.startswith("proxy_model.") for key in one["state_dict"])
    assert same(one["state_dict"], other["state_dict"])
    assert same(one["optimizer_states"], other["optimizer_states"])
    assert same(one["lit_condense"], other["lit_condense"])


@pytest.mark.parametrize("name", METHODS)
def test_the_card_says_all_that_makes_the_subset(runs, name):
    folder = runs[0] / f"{name}_straight"
    images, labels, card = load_condensed(folder)
    said = card["selected"]
    assert said["by"] == name
    assert said["budget"] == {"ipc": 2, "fraction": None, "balanced": True}
    assert card["method"]["model"]["selection"]["class_path"].endswith(METHODS[name][0])
    assert card["method"]["model"]["proxy"]["init_args"]["epochs"] == 2
    real = Digits(train_limit_per_class=10).real
    indices = torch.tensor(said["indices"])
    assert torch.equal(images, real.pixels_at(indices))
    assert torch.equal(labels, real.labels[indices])
    assert card["pixels"]["share_outside"] == 0
    assert set(card["seconds"]) == {"selecting"}
    assert (said["weights"] is not None) == said["trained_with_weights"] == (name == "craig")


def test_the_loss_and_accuracy_of_the_proxy_model_are_logged_and_the_subset_shown(runs):
    events = EventAccumulator(str(runs[0] / "grand_straight"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/acc", "final/acc", "baseline/random_acc", "set/pixel_mean"} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == list(range(2 * STEPS))
    assert all(0 <= event.value <= 1 for event in events.Scalars("train/acc"))
    assert [event.step for event in events.Images("selected/grid")] == [2 * STEPS]


def test_a_fit_can_be_validated_tested_and_predicted(runs, tmp_path, capsys):
    folder = runs[0]
    config = ["--config", str(folder / "craig_straight.yaml")]
    score = card_of(folder / "craig_straight")["evaluation"]["condensed"][0]
    validated = cli("validate", *config, "--ckpt_path", "last")
    assert float(validated.trainer.callback_metrics["val/acc"]) == pytest.approx(score["accuracies"][0])
    tested = cli("test", *config, "--ckpt_path", "last")
    assert float(tested.trainer.callback_metrics["test/acc"]) == pytest.approx(score["accuracy_mean"])
    elsewhere = selection_config(tmp_path, METHODS["craig"], "elsewhere", weighted=True)
    last = folder / "craig_straight" / "checkpoints" / "last.ckpt"
    cli("predict", *elsewhere, "--ckpt_path", last)
    assert tensor_bytes(tmp_path / "elsewhere") == tensor_bytes(folder / "craig_straight")
    assert load_condensed(tmp_path / "elsewhere").card["evaluation"] is None
    pictures = write_image_folder(tmp_path / "pictures", load_condensed(tmp_path / "elsewhere"))
    assert len(list(pictures.rglob("*.png"))) == 20


def test_a_finished_run_resumed_changes_nothing(runs):
    folder = runs[0] / "forgetting_straight"
    before = tensor_bytes(folder), checkpoint_of(folder)["global_step"]
    cli("fit", "--config", f"{folder}.yaml", "--ckpt_path", "last")
    assert (tensor_bytes(folder), checkpoint_of(folder)["global_step"]) == before


def test_a_method_without_networks_leaves_a_checkpoint_and_a_picture_too(tmp_path, capsys):
    args = selection_config(tmp_path, ("RandomSubset", None))
    cli("fit", *args)
    assert "selected, 20 images" in capsys.readouterr().out
    accuracies = card_of(tmp_path / "tiny")["evaluation"]["condensed"][0]["accuracies"]
    validated = cli("validate", *args, "--ckpt_path", "last")
    assert float(validated.trainer.callback_metrics["val/acc"]) == pytest.approx(accuracies[0])
    cli("fit", *args, "--ckpt_path", "last")
    events = EventAccumulator(str(tmp_path / "tiny"), size_guidance={"images": 0})
    events.Reload()
    assert "selected/grid" in events.Tags()["images"]


def test_a_cached_network_leaves_a_checkpoint_of_a_run_without_steps(tmp_path):
    proxy = {"class_path": "lit_condense.selection.ProxyTraining", "init_args": {**PROXY, "cache": str(tmp_path / "c")}}
    args = [selection_config(tmp_path, ("Herding", None), name, proxy=proxy) for name in ("one", "two")]
    for each in args:
        cli("fit", *each)
    assert [checkpoint_of(tmp_path / name)["global_step"] for name in ("one", "two")] == [STEPS, 0]
    assert tensor_bytes(tmp_path / "one") == tensor_bytes(tmp_path / "two")
    cli("test", *args[1], "--ckpt_path", "last")


def test_saving_seldom_still_leaves_the_selection_in_the_last_checkpoint(tmp_path):
    args = selection_config(tmp_path, ("Herding", None), save_every=100)
    cli("fit", *args)
    assert (
        checkpoint_of(tmp_path / "tiny")["state_dict"]["indices"].tolist()
        == card_of(tmp_path / "tiny")["selected"]["indices"]
    )


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "name", "before", "now"),
    [
        (["--model.ipc", "3"], "ipc", "2", "3"),
        (["--model.balanced", "false"], "balanced", "True", "False"),
        (["--model.proxy.lr", "0.2"], "lr", "0.1", "0.2"),
        (["--model.network.init_args.width", "6"], "width", "4", "6"),
        (["--model.selection.init_args.networks", "3"], "networks", "2", "3"),
        (["--model.seed", "7"], "seed", "0", "7"),
        (["--data.train_limit_per_class", "9"], "train.images", "100", "90"),
    ],
)
def test_other_settings_are_refused_with_both_values(runs, capsys, changes, name, before, now):
    config = runs[0] / "grand_broken.yaml"
    message = refusal(capsys, "fit", "--config", config, "--ckpt_path", "last", *changes)
    line = next(line for line in message.splitlines() if f"{name}:" in line)
    assert f"{before} then, {now} now" in line


def test_the_evaluation_and_the_cache_may_change(runs, tmp_path):
    folder = runs[0]
    changes = ["--model.evaluation.repeats", "1", "--model.proxy.cache", tmp_path / "cache"]
    last = folder / "grand_straight" / "checkpoints" / "last.ckpt"
    elsewhere = selection_config(tmp_path, METHODS["grand"], "elsewhere", weighted=False)
    cli("fit", *elsewhere, *changes, "--ckpt_path", last)
    assert tensor_bytes(tmp_path / "elsewhere") == tensor_bytes(folder / "grand_straight")


def test_other_data_are_refused_in_an_evaluation_too(runs, capsys):
    config = runs[0] / "grand_straight.yaml"
    message = refusal(capsys, "test", "--config", config, "--ckpt_path", "last", "--data.train_limit_per_class", "9")
    assert "data.train.images: 100 then, 90 now" in message


def test_a_checkpoint_without_a_selection_is_refused_where_one_is_needed(runs, capsys):
    folder = runs[0]
    middle = folder / "grand_straight" / "checkpoints" / f"epoch=0-step={2 * STEPS - 1}.ckpt"
    for command in ("validate", "test", "predict"):
        message = refusal(capsys, command, "--config", folder / "grand_straight.yaml", "--ckpt_path", middle)
        assert "finished selection" in message
        message = refusal(capsys, command, "--config", folder / "grand_straight.yaml")
        assert "Expected ckpt_path" in message


def test_checkpoints_of_the_other_kind_of_set_are_refused(runs, capsys, tmp_path):
    synthetic = write_config(tmp_path, "synthetic")
    cli("fit", *synthetic, "--trainer.max_steps", "1")
    selected = ["--config", runs[0] / "craig_straight.yaml"]
    last, elsewhere = Path("checkpoints", "last.ckpt"), ["--out", tmp_path / "elsewhere"]
    one = refusal(capsys, "fit", *selected, *elsewhere, "--ckpt_path", tmp_path / "synthetic" / last)
    assert "selected set" in one
    other = refusal(capsys, "fit", *synthetic, *elsewhere, "--ckpt_path", runs[0] / "craig_straight" / last)
    assert "synthetic set" in other


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--model.fraction", "0.5"], "Give one of them"),
        (["--model.ipc", "null"], "Give one of them"),
        (["--model.ipc", "0"], "ipc"),
        (["--model.ipc", "11"], "11 images are to be kept of class 0"),
        (["--model.ipc", "[1,2]"], "one for each of the 10 classes"),
        (["--model.ipc", "null", "--model.fraction", "0.01"], "no image of class 0"),
        (["--model.ipc", "null", "--model.fraction", "2"], "fraction"),
        (["--model.weighted", "true"], "Herding gives none"),
        (["--model.proxy.lr", "-1"], "lr"),
        (["--model.proxy.epochs", "-1"], "epochs"),
        (["--model.proxy.lr", "1e30"], "Lower proxy.lr"),
        (["--model.proxy.cache", "/dev/null/cache"], "output folder"),
        (["--model.evaluation.protocol", "dmm"], "protocol"),
        (["--trainer.precision", "64-true"], "precision"),
        (["--data.classes", "[3]"], "2 or more classes"),
        (["--model.selection", "lit_condense.selection.Nonsense"], "Nonsense"),
    ],
    ids=lambda value: " ".join(value).replace("--", "") if isinstance(value, list) else "",
)
def test_bad_input_ends_as_one_message(tmp_path, capsys, changes, words):
    args = selection_config(tmp_path, ("Herding", None))
    assert words in refusal(capsys, "fit", *args, *changes)
    assert not (tmp_path / "tiny" / "condensed.safetensors").exists()


def test_evaluating_before_a_fit_says_what_is_missing():
    module = SelectedSet(Herding(), ipc=1, network=tiny_convnet(), seed=3)
    with pytest.raises(CheckpointError, match="No images are selected yet"):
        quiet_trainer(limit_val_batches=None).validate(module, datamodule=TinyData(), verbose=False)


@pytest.mark.slow
@pytest.mark.parametrize("selection", [("GraNd", {"networks": 2}), ("RandomSubset", None)], ids=["grand", "random"])
def test_two_devices_select_what_one_selects(tmp_path, selection):
    one = selection_config(tmp_path, selection, "one")
    two = [*selection_config(tmp_path, selection, "two"), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    cli("fit", *one)
    succeeded(console_script("fit", *two))
    assert tensor_bytes(tmp_path / "one") == tensor_bytes(tmp_path / "two")
    assert checkpoint_of(tmp_path / "one")["global_step"] == checkpoint_of(tmp_path / "two")["global_step"]
    scores = [card_of(tmp_path / name)["evaluation"]["condensed"][0]["accuracies"] for name in ("one", "two")]
    assert scores[0] == pytest.approx(scores[1])
