from __future__ import annotations

import pytest
import torch

from lit_condense.errors import CondenseError, ExportError, SettingsError
from lit_condense.export import CondensedSet, save_condensed
from lit_condense.init import FromFile, Selected
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from lit_condense.selection import Budget, Herding, ProxyTraining, RandomSubset, select_now
from tests.cli_helpers import cli, write_config
from tests.helpers import TinyData, fitted, tiny_convnet

REAL = TinyData().real
IPC = [2, 1, 3, 1, 2]
KEY = RandomKey(3).fold("init")
PROXY = ProxyTraining(epochs=1, batch_size=16)


def selected(selection, budget):
    return select_now(selection, PROXY, REAL, budget, tiny_convnet(), KEY.fold("selection")).indices


@pytest.mark.parametrize("selection", [RandomSubset(), Herding()], ids=["random", "herding"])
def test_a_set_starts_from_the_selected_images(selection):
    start = Selected(selection, PROXY).start(Pixels(space="pixel"), REAL, IPC, tiny_convnet(), KEY)
    assert torch.equal(start, REAL.pixels_at(selected(selection, Budget(ipc=IPC))))


def test_each_cell_of_a_packed_start_is_of_its_class():
    parametrization = MultiFormation(factor=2, space="pixel")
    start = Selected(RandomSubset()).start(parametrization, REAL, [1, 1, 1, 1, 1], tiny_convnet(), KEY)
    indices = selected(RandomSubset(), Budget(ipc=4))
    for c, images in enumerate(torch.split(indices, 4)):
        assert REAL.labels[images].tolist() == [c] * 4
        assert torch.equal(start[c : c + 1], parametrization.encode(REAL.pixels_at(images), REAL.normalization))


def test_a_run_can_start_from_a_selection_and_from_the_file_of_another_run(tmp_path):
    init = {"class_path": "lit_condense.init.Selected"}
    init["init_args"] = {
        "selection": {"class_path": "lit_condense.selection.Herding"},
        "proxy": {"class_path": "lit_condense.selection.ProxyTraining", "init_args": {"epochs": 1}},
    }
    first = cli("fit", *write_config(tmp_path, "first", init=init), "--trainer.max_steps", "1")
    assert first.trainer.global_step == 1
    other = {"class_path": "lit_condense.init.FromFile", "init_args": {"path": str(tmp_path / "first")}}
    second = cli("fit", *write_config(tmp_path, "second", init=other), "--trainer.max_steps", "1")
    assert second.model.settings()["model"]["init"]["init_args"] == {"path": str(tmp_path / "first")}
    assert not torch.equal(first.model.images, second.model.images)


def test_networks_of_a_start_are_those_of_a_selected_set_with_the_same_seed(tmp_path, monkeypatch):
    proxy = ProxyTraining(epochs=1, batch_size=16, cache=str(tmp_path))
    Selected(Herding(), proxy).start(Pixels(), REAL, IPC, tiny_convnet(), KEY)
    monkeypatch.setattr(ProxyTraining, "step", lambda *args: pytest.fail("trained again"))
    select_now(Herding(), proxy, REAL, Budget(fraction=0.3), tiny_convnet(), RandomKey(3))


def test_more_images_than_a_class_holds_are_refused():
    with pytest.raises(SettingsError, match="class 3"):
        Selected(RandomSubset()).start(Pixels(), REAL, [5] * 5, tiny_convnet(), KEY)


def write_set(folder, labels, shape=(1, 8, 8), names=REAL.class_names):
    images = torch.rand(len(labels), *shape, generator=torch.Generator().manual_seed(0))
    card = {} if names is None else {"data": {"class_names": list(names)}}
    save_condensed(folder, CondensedSet(images, torch.tensor(labels), card))
    return images


def test_a_file_gives_its_images_class_by_class(tmp_path):
    labels = [4, 0, 2, 2, 1, 0, 3, 4, 2]
    images = write_set(tmp_path, labels)
    start = FromFile(str(tmp_path)).start(Pixels(space="pixel"), REAL, IPC, tiny_convnet(), KEY)
    assert torch.equal(start, images[torch.tensor(labels).argsort(stable=True)])


@pytest.mark.parametrize(
    ("labels", "shape", "said"),
    [
        ([0, 1, 2, 3, 4], (1, 8, 8), "Set ipc to what the file holds"),
        ([0, 0, 1, 2, 2, 2, 3], (1, 8, 8), "Set ipc to what the file holds"),
        ([4, 0, 2, 2, 1, 0, 3, 4, 2], (3, 8, 8), r"Expected images of shape \(1, 8, 8\) in .*, got \(3, 8, 8\)"),
    ],
    ids=["other counts", "a class missing", "other shape"],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, labels, shape, said):
    write_set(tmp_path, labels, shape)
    with pytest.raises(CondenseError, match=said):
        FromFile(str(tmp_path)).start(Pixels(), REAL, IPC, tiny_convnet(), KEY)


FITTING = [4, 0, 2, 2, 1, 0, 3, 4, 2]


@pytest.mark.parametrize("names", [REAL.class_names[::-1], ("stripe 0", "stripe 1", "dot 2", "stripe 3", "stripe 4")])
def test_a_file_of_other_classes_or_another_order_is_refused_with_both(tmp_path, names):
    write_set(tmp_path, FITTING, names=names)
    with pytest.raises(ExportError) as refused:
        FromFile(str(tmp_path)).start(Pixels(), REAL, IPC, tiny_convnet(), KEY)
    assert str(list(names)) in str(refused.value)
    assert str(list(REAL.class_names)) in str(refused.value)


def test_a_file_that_does_not_say_its_classes_is_warned_of(tmp_path):
    write_set(tmp_path, FITTING, names=None)
    with pytest.warns(UserWarning, match=r"does not say the names of its classes.*stripe 0, stripe 1"):
        FromFile(str(tmp_path)).start(Pixels(), REAL, IPC, tiny_convnet(), KEY)


def test_a_missing_file_is_refused_at_the_start_of_a_run(tmp_path):
    with pytest.raises(ExportError, match="found no file"):
        fitted(init=FromFile(str(tmp_path / "nothing")))
