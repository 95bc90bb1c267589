"""Each published layout is recognised, its values keep their meaning, and what nobody said is asked for."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lit_condense.errors import ExportError
from lit_condense.interchange import Answers, Packing, read_set
from tests.interchange.files import idc, idm_pickle, images_of, labels_of, results, trajectories


def test_results_of_dc_are_read_without_a_question(tmp_path):
    given = read_set(results(tmp_path))
    assert (given.found.layout, given.space, given.packing) == ("vico", "dc", Packing())
    assert given.found.protocol == "dc"
    assert torch.equal(given.images, images_of(seed=1)), "the last experiment"
    assert torch.equal(given.found.labels, labels_of())
    assert given.found.told == {"method": "DC", "dataset": "cifar10", "network": "ConvNet", "ipc": 2}
    assert given.found.reported == {"ConvNet": [0.25, 0.5]}
    assert torch.equal(read_set(tmp_path, Answers(experiment=0)).images, images_of(seed=0)), "by its folder too"
    with pytest.raises(ExportError, match=r"one of the 2 sets.*got 2"):
        read_set(tmp_path, Answers(experiment=2))


@pytest.mark.parametrize(("method", "protocol"), [("DC", "dc"), ("DSA", "dsa")])
def test_the_protocol_is_that_of_the_method(tmp_path, method, protocol):
    assert read_set(results(tmp_path, f"res_{method}_MNIST_ConvNet_2ipc.pt")).found.protocol == protocol


def test_dm_and_idm_cannot_be_told_apart(tmp_path):
    path = results(tmp_path, "res_DM_CIFAR10_ConvNet_2ipc.pt")
    with pytest.raises(ExportError, match=r"--factor 1.*--factor 2 --order column"):
        read_set(path)
    assert read_set(path, Answers(factor=1)).packing == Packing()
    assert read_set(path, Answers(factor=2)).packing == Packing(2, "column"), "the only order that is possible here"


def test_steps_of_continual_learning_are_one_set(tmp_path):
    steps = [[images_of(2, seed=step), torch.tensor([2 * step, 2 * step + 1])] for step in range(3)]
    torch.save({"data": steps}, tmp_path / "cl.pt")
    found = read_set(tmp_path / "cl.pt", Answers(factor=1)).found
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(found.images, torch.cat([images for images, _ in steps]))


def test_sets_of_trajectory_matching_need_a_space_and_a_rate(tmp_path):
    path = trajectories(tmp_path)
    with pytest.raises(ExportError, match=r"--space.*mtt, zca.*channel means"):
        read_set(path)
    with pytest.raises(ExportError, match=r"learning rate.*--inner_lr"):
        read_set(path, Answers(space="zca"))
    given = read_set(tmp_path, Answers(space="mtt", inner_lr=0.02))
    assert (given.found.layout, given.space, given.found.inner_lr) == ("mtt", "mtt", 0.02)
    assert given.found.protocol == "mtt"


def test_logits_become_probabilities_and_their_largest_the_label(tmp_path):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(3)) * 4
    found = read_set(trajectories(tmp_path, logits, 0.03), Answers(space="zca")).found
    assert found.layout == "datm"
    torch.testing.assert_close(found.soft_labels, logits.exp() / logits.exp().sum(1, keepdim=True))
    assert torch.equal(found.labels, logits.argmax(1))
    assert found.inner_lr == pytest.approx(0.03)
    assert "labels are logits" in found.notes


def test_probabilities_stay_as_they_are(tmp_path):
    said = torch.tensor([[0.7, 0.2, 0.1]]).repeat(6, 1)
    found = read_set(trajectories(tmp_path, said, 0.03), Answers(space="zca")).found
    assert torch.equal(found.soft_labels, said)
    assert "labels are probabilities" in found.notes


def test_pictures_with_the_whitening_undone_are_not_the_set(tmp_path):
    path = trajectories(tmp_path, suffix="zca_5000")
    with pytest.raises(ExportError, match=r"images_5000\.pt"):
        read_set(path)


def test_the_tag_of_idcs_folder_says_the_packing(tmp_path):
    given = read_set(idc(tmp_path))
    assert (given.found.layout, given.space, given.packing) == ("idc", "pixel", Packing(2, "row"))
    assert given.found.told == {"dataset": "cifar10"}
    assert given.found.protocol == "idc"
    assert read_set(idc(tmp_path, "conv3in_factor3_multi_ipc2")).packing == Packing(3, "row", multi=True)
    assert read_set(idc(tmp_path, "conv3in_cut_ipc2")).packing == Packing()
    moved = idc(tmp_path, "somewhere else", "data100.pt")
    with pytest.raises(ExportError, match=r"--factor 1.*--factor 2 --order row"):
        read_set(moved)
    assert read_set(moved.parent, Answers(factor=2)).packing == Packing(2, "row")


def test_pairs_and_tensors_under_other_names_are_asked_about(tmp_path):
    torch.save([images_of(), labels_of()], tmp_path / "mine.pt")
    with pytest.raises(ExportError, match="--space"):
        read_set(tmp_path / "mine.pt")
    assert read_set(tmp_path / "mine.pt", Answers(space="dc")).found.protocol is None
    torch.save(torch.zeros(1000, 3, 32, 32), tmp_path / "images_best.pt")
    with pytest.raises(ExportError, match="--space"):
        read_set(tmp_path / "images_best.pt")


@pytest.mark.parametrize(("packed", "packing"), [(True, Packing(2, "column")), (False, Packing())])
def test_idms_pickle_says_in_its_name_whether_it_is_packed(tmp_path, packed, packing):
    given = read_set(idm_pickle(tmp_path, packed))
    assert (given.space, given.packing) == ("dc", packing)
    assert torch.equal(given.images, images_of())


def test_the_challenges_file_has_no_labels(tmp_path):
    torch.save(torch.zeros(1000, 3, 32, 32), tmp_path / "cifar100.pt")
    given = read_set(tmp_path / "cifar100.pt")
    assert (given.found.layout, given.space, given.found.labels) == ("challenge", "dc", None)
    assert given.found.told == {"dataset": "cifar100"}


def test_tensors_of_ones_own(tmp_path):
    torch.save({"images": images_of(), "labels": labels_of(), "lr": 0.05}, tmp_path / "mine.pt")
    found = read_set(tmp_path / "mine.pt", Answers(space="pixel")).found
    assert (found.layout, found.inner_lr) == ("images-labels", 0.05)
    torch.save(images_of(), tmp_path / "alone.pt")
    torch.save(labels_of().flip(0), tmp_path / "theirs.pt")
    assert read_set(tmp_path / "alone.pt", Answers(space="dc")).found.labels is None
    read = read_set(tmp_path / "alone.pt", Answers(space="dc", labels=tmp_path / "theirs.pt", inner_lr=0.01))
    assert torch.equal(read.found.labels, labels_of().flip(0))


@pytest.mark.parametrize("last", [True, False], ids=["NHWC", "NCHW"])
def test_numpy_archives(tmp_path, last):
    whole = (images_of().sigmoid() * 255).to(torch.uint8)
    array = whole.permute(0, 2, 3, 1).numpy() if last else whole.numpy()
    np.savez(tmp_path / "a.npz", x=array, y=labels_of().numpy())
    given = read_set(tmp_path / "a.npz")
    assert given.space == "pixel", "bytes are pixels"
    assert torch.equal(given.images, whole.float() / 255)
    np.savez(tmp_path / "b.npz", pictures=array)
    with pytest.raises(ExportError, match=r"images or x or data.*pictures \(6, "):
        read_set(tmp_path / "b.npz")


def write_png(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def test_class_folders_are_known_by_name(tmp_path):
    for value, name in enumerate(("dog", "ant", "cat")):
        write_png(tmp_path / "train" / name / "0.png", value)
    found = read_set(tmp_path).found
    assert found.class_names == ("ant", "cat", "dog")
    assert (found.labels.tolist(), (found.images[:, 0, 0, 0] * 255).round().int().tolist()) == ([0, 1, 2], [1, 2, 0])


@pytest.mark.parametrize("pattern", ["new{:03d}", "{:05d}", "{}"], ids=["sre2l", "rded", "numbers"])
def test_numbered_folders_are_labels_in_the_order_of_numbers(tmp_path, pattern):
    for label in (10, 9, 2):
        write_png(tmp_path / pattern.format(label) / f"class{label:03d}_id000.jpg", 200)
    found = read_set(tmp_path).found
    assert found.class_names is None
    assert sorted(found.labels.tolist()) == [2, 9, 10]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(("labels", "names"), [([1, 0], None), (["dog", "ant"], ("ant", "dog"))])
def test_a_folder_with_metadata(tmp_path, kind, labels, names):
    rows = [{"file_name": f"{number}.png", "label": label} for number, label in enumerate(labels)]
    for number in range(2):
        write_png(tmp_path / f"{number}.png", number)
    if kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        with (tmp_path / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "label"])
            writer.writeheader()
            writer.writerows(rows)
    found = read_set(tmp_path).found
    assert (found.labels.tolist(), found.class_names) == ([1, 0], names)


def test_metadata_leads_nowhere_else(tmp_path):
    write_png(tmp_path / "secret.png", 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps({"file_name": "../secret.png", "label": 0}))
    with pytest.raises(ExportError, match="files below"):
        read_set(tmp_path / "set")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2, 3)], "a list of 1"),
        ({"a": 1}, "a dictionary of a"),
        (torch.zeros(3, 3), r"a tensor of shape \(3, 3\)"),
        ({"images": images_of(), "labels": labels_of()[:-1]}, "one label an image.*5 for 6"),
        ({"images": images_of(), "labels": -labels_of()}, "whole numbers from 0"),
        ({"images": images_of(), "labels": labels_of() + 0.5}, "whole numbers from 0"),
        ({"images": images_of() / 0, "labels": labels_of()}, "finite images.*had exploded"),
        ({"images": images_of()[:0], "labels": labels_of()[:0]}, r"images \(n, C, H, W\)"),
        ({"data": [], "accs_all_exps": {}}, "a dictionary of data, accs_all_exps"),
        ([[[torch.zeros(2), torch.zeros(3)]]], "a list of 1"),
    ],
)
def test_what_is_no_set_is_refused_with_what_it_is(tmp_path, content, said):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ExportError, match=f"Expected.*{said}"):
        read_set(tmp_path / "a.pt", Answers(space="pixel", factor=1))


@pytest.mark.parametrize("name", ["nothing", "nothing.pt", "nothing.npz", "nothing.safetensors"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(ExportError, match="Expected"):
        read_set(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="a folder of images for each class"):
        read_set(tmp_path / "empty")


def test_several_sets_in_a_folder_are_asked_about(tmp_path):
    for number in (1, 2):
        trajectories(tmp_path, suffix=f"{number}000")
    with pytest.raises(ExportError, match=r"images_1000\.pt, images_2000\.pt. Give the file"):
        read_set(tmp_path)


@pytest.mark.parametrize("answer", [{"space": "hsv"}, {"factor": 0}])
def test_answers_are_checked(tmp_path, answer):
    with pytest.raises(ExportError, match="Expected --"):
        read_set(results(tmp_path), Answers(**answer))
