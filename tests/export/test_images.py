from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from lit_condense.cli import main
from lit_condense.errors import ExportError
from lit_condense.export import CondensedSet, save_condensed, write_image_folder
from lit_condense.export.images import class_folders

NAMES = [f"class {12 - c}" for c in range(12)]  # sorted as text: 1, 10, 11, 12, 2, ..., so 11, 2, 1, 0, 10, ...


def twelve_classes(channels=3):
    """Two flat images a class whose grey level is the class, in a shuffled order."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24)[order] // 2
    images = (labels / 20).view(24, 1, 1, 1).expand(24, channels, 5, 4).contiguous()
    return CondensedSet(images, labels, {"data": {"class_names": NAMES}})


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_folder_keeps_the_labels_whatever_the_classes_are_called(tmp_path, channels):
    assert sorted(NAMES) != NAMES
    read = ImageFolder(str(write_image_folder(tmp_path / "set", twelve_classes(channels))))
    assert len(read) == 24
    assert [name.split("_", 1)[1] for name in read.classes] == [name.replace(" ", "_") for name in NAMES]
    for image, label in read:
        assert np.asarray(image)[2, 3, 0] == round(255 * label / 20)
    assert sorted(label for _, label in read.samples) == sorted(2 * list(range(12)))


def test_folder_names_sort_as_their_labels_and_stay_inside_the_folder():
    names = ["../up", "b/c", "ä", "", "a" * 3, "x y", *map(str, range(100))]
    folders = class_folders([*names, *map(str, range(len(names), 120))])
    assert sorted(folders) == folders
    assert len(set(folders)) == 120
    assert not [name for name in folders if set(name) & set("/.\\ ")]


ODD = [
    *("b/c", "B/C", "../up", ".hidden", "trail ", " lead", "dot.", "CON", "nul.txt", "a:b*?", "\\"),
    *("caf\u00e9", "cafe\u0301", "\u732b", "\U0001f98a", "", "tab\there", "new\nline", '"quoted"', "x" * 400, "\udcff"),
]


def test_every_letter_of_the_class_names_comes_back_in_order(tmp_path):
    labels = torch.arange(len(ODD))
    images = (labels / 100).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    write_image_folder(tmp_path / "set", CondensedSet(images, labels, {"data": {"class_names": ODD}}))
    read = ImageFolder(str(tmp_path / "set"))
    names = json.loads((tmp_path / "set" / "classes.json").read_text())
    assert names == ODD
    assert len(read.classes) == len(names)
    for image, label in read:
        assert np.asarray(image)[0, 0, 0] == round(255 * label / 100)
    assert len({name.casefold() for name in read.classes}) == len(ODD)  # on any file system
    assert all(name.isascii() and len(name) < 128 and name[0].isdigit() for name in read.classes)


def test_more_classes_than_five_digits_stay_in_order():
    folders = class_folders([""] * 100_001)
    assert sorted(folders) == folders


def test_pixels_are_clamped_and_rounded_to_8_bits(tmp_path):
    values = torch.tensor([-1.0, 0.0, 0.2494 / 255, 0.51 / 255, 100.4 / 255, 100.6 / 255, 1.0, 7.0])
    condensed = CondensedSet(values.view(1, 1, 2, 4), torch.zeros(1, dtype=torch.int64), {})
    write_image_folder(tmp_path / "set", condensed)
    pixels = np.asarray(Image.open(tmp_path / "set" / "00000_0" / "00000.png"))
    assert pixels.ravel().tolist() == [0, 0, 0, 1, 100, 101, 255, 255]


def test_two_sets_never_mix_in_one_folder(tmp_path):
    write_image_folder(tmp_path / "set", twelve_classes())
    with pytest.raises(ExportError, match="new or empty folder"):
        write_image_folder(tmp_path / "set", twelve_classes())
    assert len(list((tmp_path / "set").rglob("*.png"))) == 24


def test_a_class_without_images_is_refused_because_it_would_shift_the_labels(tmp_path):
    condensed = CondensedSet(torch.rand(3, 1, 4, 4), torch.tensor([0, 2, 2]), {})
    with pytest.raises(ExportError, match=r"none of \[1\]"):
        write_image_folder(tmp_path / "set", condensed)
    assert not (tmp_path / "set").exists()


def test_images_that_no_png_can_hold_are_refused(tmp_path):
    five = CondensedSet(torch.zeros(2, 5, 4, 4), torch.tensor([0, 1]), {})
    with pytest.raises(ExportError, match="1 or 3 channels"):
        write_image_folder(tmp_path / "set", five)
    assert not (tmp_path / "set").exists()


def export(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["lit-condense", "export", *map(str, args)])
    main()


def test_the_export_command_writes_an_image_folder(tmp_path, monkeypatch, capsys):
    save_condensed(tmp_path / "set", twelve_classes())
    export(monkeypatch, tmp_path / "set", "--out", tmp_path / "out", "--format", "image_folder")
    assert len(ImageFolder(str(tmp_path / "out"))) == 24
    said = capsys.readouterr().out
    assert "24 PNG images" in said
    assert "lit-condense evaluate scores them" in said


@pytest.mark.parametrize("case", ["missing", "broken", "unwritable"])
def test_the_export_command_ends_with_one_message(tmp_path, monkeypatch, capsys, case):
    path = save_condensed(tmp_path / "set", twelve_classes())["condensed.safetensors"]
    output = tmp_path / "out"
    if case == "missing":
        path.unlink()
    elif case == "broken":
        path.write_bytes(b"broken")
    else:
        output = path / "out"
    with pytest.raises(SystemExit) as stopped:
        export(monkeypatch, tmp_path / "set", "--out", output)
    assert str(stopped.value.code).startswith("lit-condense: error: Expected")
    assert "Traceback" not in capsys.readouterr().err
