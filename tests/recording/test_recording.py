"""Experts: what is recorded, and that any sudden end costs the epoch under way and nothing else."""

from __future__ import annotations

import json
import resource
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lit_condense.augmentation import NoAugmentation, OneOf
from lit_condense.engine import Engine
from lit_condense.errors import CheckpointError, ExportError, NonFiniteError, SettingsError
from lit_condense.experts import ExpertFile, Experts
from lit_condense.experts.file import Layout
from lit_condense.networks import build_network
from lit_condense.optim import GSAM
from lit_condense.recording import ExpertTrajectories, folder, module, writer
from lit_condense.recording.schedule import steps_of_run
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, quiet_trainer, tiny_convnet
from tests.oracles import trajectory as oracle
from tests.recording.helpers import SGD, contents, recorded

IMAGES, BATCH, EPOCHS = 38, 16, 4
STEPS = 3
"""Of an epoch: 16, 16 and 6 images."""


def plainly_trained(expert, augmentation, step=None):
    """The weights of an expert after every epoch, by a plain loop over its draws; ``step(weights, loss_of)``."""
    key, real = RandomKey(3, ("expert", expert)), TinyData().real
    net = build_network(tiny_convnet(), 1, (8, 8), 5, key.fold("network"))
    weights, path = [p.detach().clone() for p in net.parameters()], []
    path.append(torch.cat([w.flatten() for w in weights]))
    names = [name for name, _ in net.named_parameters()]
    for number in range(EPOCHS * STEPS):
        epoch, position = divmod(number, STEPS)
        order = torch.randperm(IMAGES, generator=key.fold("order", epoch).generator())
        chosen = order[position * BATCH : (position + 1) * BATCH]
        images, labels = real.at(chosen), real.labels_at(chosen)
        draw = augmentation.draw(key.fold("step", number).fold("augment"), (8, 8), samples=len(chosen))
        images = augmentation.apply(images, draw)

        def gradient_of(at, images=images, labels=labels):
            at = [w.detach().requires_grad_() for w in at]
            logits = torch.func.functional_call(net, dict(zip(names, at, strict=True)), (images,))
            return list(torch.autograd.grad(F.cross_entropy(logits, labels), at))

        if step is None:
            weights = [w - 0.05 * g for w, g in zip(weights, gradient_of(weights), strict=True)]
        else:
            weights = step(weights, gradient_of)
        if position == STEPS - 1:
            path.append(torch.cat([w.flatten() for w in weights]))
    return torch.stack(path)


@pytest.mark.parametrize("augmentation", [NoAugmentation(), OneOf()], ids=["plain", "augmented"])
def test_snapshots_are_the_weights_of_a_plain_loop(tmp_path, augmentation):
    recorded(tmp_path, augmentation=augmentation)
    experts = Experts(tmp_path)
    assert (len(experts), experts.epochs) == (3, EPOCHS)
    for expert in range(3):
        found = torch.stack([experts.at(expert, epoch) for epoch in range(EPOCHS + 1)])
        torch.testing.assert_close(found, plainly_trained(expert, augmentation), rtol=1e-4, atol=1e-6)
        assert len(found.unique(dim=0)) == EPOCHS + 1
        assert torch.equal(experts.file(expert).at(2), found[2])
    assert not torch.equal(experts.at(0, 0), experts.at(1, 0))


def test_flat_experts_are_trained_by_the_steps_of_gsam(tmp_path):
    recorded(tmp_path, experts=1, optimizer=partial(GSAM, lr=0.05, rho=0.05, alpha=0.4), augmentation=OneOf())

    def step(weights, gradient_of):
        return oracle.gsam_step(weights, gradient_of, 0.05, 0.05, 0.4)

    found = torch.stack([Experts(tmp_path).at(0, epoch) for epoch in range(EPOCHS + 1)])
    torch.testing.assert_close(found, plainly_trained(0, OneOf(), step), rtol=1e-4, atol=1e-5)


def test_a_file_says_what_it_is_and_how_well_it_learned(tmp_path):
    recorded(tmp_path)
    card = ExpertFile(tmp_path / "expert_0001.safetensors").card
    assert card["expert"] == 1
    assert card["made_with"]["training"]["batch_size"] == BATCH
    assert card["made_with"]["data"]["sha256"] == TinyData().real.fingerprint()
    assert card["made_with"] == json.loads((tmp_path / "experts.json").read_text())["made_with"]
    scores = card["scores"]
    assert len(scores["train_loss"]) == len(scores["train_accuracy"]) == EPOCHS
    assert scores["train_loss"][-1] < scores["train_loss"][0]
    assert 0 <= scores["test_accuracy"] <= 1


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_how_weights_are_kept(tmp_path, storage):
    recorded(tmp_path / "one")
    recorded(tmp_path / storage, storage=storage)
    one, other = Experts(tmp_path / "one"), Experts(tmp_path / storage)
    torch.testing.assert_close(other.at(2, 3), one.at(2, 3).to(getattr(torch, storage)).float(), rtol=0, atol=0)
    layout = Layout(EPOCHS, len(one.at(0, 0)), storage)
    assert layout.row_bytes == len(one.at(0, 0)) * {"float32": 4, "bfloat16": 2}[storage]


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("stop", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS * EPOCHS - 1, 2 * STEPS * EPOCHS + 1])
@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.SGD, lr=0.05, momentum=0.9)], ids=["SGD", "momentum"])
def test_a_run_goes_on_at_the_epoch_where_it_was_stopped(tmp_path, stop, optimizer):
    norm = {"network": tiny_convnet("batch")}
    recorded(tmp_path / "straight", optimizer=optimizer, **norm)
    recorded(tmp_path / "broken", stop, optimizer=optimizer, **norm)
    assert len(contents(tmp_path / "broken")[0]) < 3
    recorded(tmp_path / "broken", optimizer=optimizer, **norm)
    one, other = contents(tmp_path / "straight"), contents(tmp_path / "broken")
    assert one == other
    assert one[1] == ["experts.json"]


def test_what_is_recorded_is_left_alone_and_more_experts_are_added(tmp_path):
    recorded(tmp_path, experts=1)
    before = (tmp_path / "expert_0000.safetensors").stat().st_mtime_ns
    again = recorded(tmp_path, experts=3)
    assert again.trainer.global_step == 2 * EPOCHS * STEPS / min(2, again._at_once)
    assert (tmp_path / "expert_0000.safetensors").stat().st_mtime_ns == before
    assert recorded(tmp_path, experts=3).trainer.global_step == 0
    recorded(tmp_path / "other", experts=3)
    assert contents(tmp_path)[0] == contents(tmp_path / "other")[0]


def test_one_at_a_time_and_several_record_the_same(tmp_path, monkeypatch):
    for name, at_once in (("one", 1), ("several", 3)):
        monkeypatch.setattr(ExpertTrajectories, "_at_once", at_once)
        steps = recorded(tmp_path / name).trainer.global_step
        assert steps == 3 // at_once * EPOCHS * STEPS
    one, other = (Experts(tmp_path / name) for name in ("one", "several"))
    for expert in range(3):
        torch.testing.assert_close(one.at(expert, EPOCHS), other.at(expert, EPOCHS), rtol=1e-5, atol=1e-7)


def test_a_dry_run_touches_no_file(tmp_path):
    recorded(tmp_path / "none", trainer={"fast_dev_run": 2})
    assert not (tmp_path / "none").exists()


def test_a_killed_process_costs_an_epoch(tmp_path, monkeypatch):
    """Rows that were written without their state, and a state without its rows, are written again."""
    recorded(tmp_path / "straight")
    keep, add = writer.Recording.keep, writer.Recording.add

    class KilledError(Exception):
        pass

    def dies_before_its_state(self, epoch, state):
        if epoch == 2:
            raise KilledError
        keep(self, epoch, state)

    def dies_in_its_row(self, epoch, weights):
        add(self, epoch, weights)
        if epoch == 3:
            with self._growing.open("r+b") as file:
                file.truncate(self._place(3) + 7)
            raise KilledError

    for name, dying in (("keep", dies_before_its_state), ("add", dies_in_its_row)):
        with monkeypatch.context() as patched, pytest.raises(KilledError):
            patched.setattr(writer.Recording, name, dying)
            recorded(tmp_path / "killed")
    recorded(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"epochs": 5}, "training.epochs: 4 then, 5 now"),
        ({"network": tiny_convnet(width=8)}, "network.init_args.width: 4 then, 8 now"),
        ({"seed": 4}, "seed: 3 then, 4 now"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1)}, "lr: 0.05 then, 0.1 now"),
        ({"data": TinyData(normalization="measured", channels=1, sizes=(9, 7, 9, 4, 8))}, "data.sha256"),
        ({"storage": "bfloat16"}, "storage: 'float32' then, 'bfloat16' now"),
    ],
)
def test_a_folder_of_other_settings_is_refused(tmp_path, changed, words):
    recorded(tmp_path, 1)
    before = contents(tmp_path)
    with pytest.raises(SettingsError) as caught:
        recorded(tmp_path, **changed)
    assert words in str(caught.value)
    assert contents(tmp_path) == before


def test_two_runs_in_one_folder_are_refused(tmp_path, monkeypatch):
    recorded(tmp_path, 1)
    with module.RecordedFolder(tmp_path, {}, Layout(1, 1, "float32")).alone():
        recorded(tmp_path, STEPS + 1)  # of one process: an earlier run that came to no end
    with module.RecordedFolder(tmp_path, {}, Layout(1, 1, "float32")).alone():
        monkeypatch.setattr(folder, "HELD", set())
        with pytest.raises(SettingsError, match="another one is at work there"):
            recorded(tmp_path)
    recorded(tmp_path)
    assert contents(tmp_path)[1] == ["experts.json"]


def test_a_broken_file_is_refused_and_named(tmp_path):
    recorded(tmp_path)
    path = tmp_path / "expert_0001.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:100], b"", b"no expert at all" * 9):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"recorded expert at .*expert_0001.*Delete the file"):
            recorded(tmp_path)
    (tmp_path / "experts.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"experts\.json, it cannot be read"):
        recorded(tmp_path)


def test_a_state_that_cannot_be_read_starts_its_expert_anew(tmp_path):
    recorded(tmp_path / "straight")
    recorded(tmp_path / "on", STEPS + 1)
    for state in (tmp_path / "on").glob(".*.state.pt"):
        state.write_bytes(state.read_bytes()[:50])
    with pytest.warns(UserWarning, match="is recorded from its start"):
        recorded(tmp_path / "on")
    assert contents(tmp_path / "on") == contents(tmp_path / "straight")


def test_files_of_other_settings_are_refused_without_the_card_too(tmp_path):
    recorded(tmp_path)
    (tmp_path / "experts.json").unlink()
    with pytest.raises(SettingsError, match=r"expert_0000\.safetensors to be of these settings.*seed: 3 then, 4 now"):
        recorded(tmp_path, seed=4)


def test_a_run_that_came_to_nothing_stands_in_nobodys_way(tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(ExportError):
        patched.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
        recorded(tmp_path)
    recorded(tmp_path, storage="bfloat16")
    recorded(tmp_path / "other", 1)
    for path in (tmp_path / "other").glob(".expert*"):
        path.unlink()
    recorded(tmp_path / "other", seed=4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_of_the_trainer_are_refused(tmp_path, precision):
    with pytest.raises(SettingsError, match="precision 32-true for experts"):
        recorded(tmp_path, trainer={"precision": precision})


def test_a_folder_of_ones_own_and_no_checkpoint(tmp_path):
    recorded(tmp_path / "elsewhere", folder=str(tmp_path / "here"))
    assert len(Experts(tmp_path / "here")) == 3
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_without_room_is_said_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10_000})())
    with pytest.raises(ExportError, match="of room for experts"):
        recorded(tmp_path)
    assert contents(tmp_path)[0] == {}


def test_weights_that_explode_end_the_run_and_keep_the_epochs_before(tmp_path):
    with pytest.raises(NonFiniteError, match=r"expert 0 became .* in epoch \d.*model.optimizer"):
        recorded(tmp_path, experts=1, optimizer=partial(torch.optim.SGD, lr=1e30))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"experts": 0}, "experts to be a whole number from 1"),
        ({"epochs": 2.5}, "epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"storage": "float16"}, "storage to be 'float32' or 'bfloat16'"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(SettingsError, match=words):
        ExpertTrajectories(**settings)


def test_other_stages_are_refused(tmp_path):
    trainer = quiet_trainer(default_root_dir=str(tmp_path))
    with pytest.raises(SettingsError, match="Expected fit for ExpertTrajectories, got validate"):
        trainer.validate(ExpertTrajectories(), datamodule=TinyData())


# ------------------------------------------------------------------------------------------------ reading and sizes


def test_a_snapshot_is_read_without_the_others(tmp_path):
    """A file of 400 MB, sparse: what is mapped is not held."""
    layout = Layout(epochs=99, weights=1_000_000, storage="float32")
    path = tmp_path / "expert_0000.safetensors"
    with path.open("wb") as file:
        file.write(layout.header({"expert": 0, "made_with": {}}))
        file.truncate(file.tell() + layout.file_bytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opened = ExpertFile(path)
    for epoch in (0, 50, 99):
        assert opened.at(epoch).shape == (1_000_000,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB


@pytest.mark.parametrize(
    ("work", "slots", "steps"),
    [([[4, 4, 4]], 1, 12), ([[4, 4, 4]], 2, 8), ([[1, 4, 2]], 2, 4), ([[4], [4, 4]], 1, 8), ([[], []], 2, 0)],
)
def test_the_length_of_a_run(work, slots, steps):
    assert steps_of_run(work, slots) == steps


@pytest.mark.slow
def test_compiled_experts_are_those_of_the_plain_loop(tmp_path):
    recorded(tmp_path, experts=1, augmentation=NoAugmentation(), engine=Engine("exact", "always"))
    found = torch.stack([Experts(tmp_path).at(0, epoch) for epoch in range(EPOCHS + 1)])
    torch.testing.assert_close(found, plainly_trained(0, NoAugmentation()), rtol=1e-3, atol=1e-5)
