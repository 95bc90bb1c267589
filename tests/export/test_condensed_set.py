from __future__ import annotations

import ast
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lit_condense
from lit_condense.errors import ExportError
from lit_condense.export import CondensedSet, condensed_set, load_condensed, save_condensed


def example(**changes):
    draw = torch.Generator().manual_seed(0)
    images = 1.4 * torch.rand(6, 3, 4, 5, generator=draw) - 0.2
    plain = CondensedSet(
        images, torch.tensor([0, 0, 1, 1, 2, 2]), {"data": {"class_names": ["a", "b", "c"]}, "x": [1.5]}
    )
    return dataclasses.replace(plain, **changes)


def complete():
    draw = torch.Generator().manual_seed(1)
    return example(
        soft_labels=torch.rand(6, 3, generator=draw),
        weights=torch.rand(6, generator=draw),
        stored=torch.rand(6, 3, 8, 10, generator=draw),
        inner_lr=0.0125,
    )


def tensors_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "condensed.safetensors")


def rewritten(folder, tensors, card=None):
    """Write other tensors under a card whose hash fits them, as a stranger's program could."""
    card = {"format_version": 1, **(card or {}), "sha256": condensed_set.tensors_sha256(tensors)}
    save_file(tensors, folder / "condensed.safetensors", metadata={"card": json.dumps(card)})
    (folder / "card.json").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("make", [example, complete])
def test_what_is_saved_is_what_is_loaded(tmp_path, make):
    given = make()
    written = save_condensed(tmp_path / "a" / "b", given)
    assert sorted(written) == ["card.json", "condensed.safetensors"]
    assert all(path.is_file() for path in written.values())
    for path in (tmp_path / "a" / "b", written["condensed.safetensors"], str(tmp_path / "a" / "b")):
        read = load_condensed(path)
        for name in ("images", "labels", "soft_labels", "weights", "stored"):
            one, other = getattr(given, name), getattr(read, name)
            assert (one is None and other is None) or (torch.equal(one, other) and one.dtype == other.dtype)
        assert read.inner_lr == (None if given.inner_lr is None else pytest.approx(given.inner_lr))
    assert given.card.items() <= read.card.items()
    assert read.card == json.loads(written["card.json"].read_text())


def test_a_set_unpacks_to_images_labels_and_card(tmp_path):
    save_condensed(tmp_path, example())
    images, labels, card = load_condensed(tmp_path)
    assert images.shape == (6, 3, 4, 5)
    assert images.dtype == torch.float32
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert labels.dtype == torch.int64
    assert card["x"] == [1.5]
    assert float(images.min()) < 0 < 1 < float(images.max())  # values outside [0, 1] are legal


def test_shared_and_strided_memory_is_written_as_what_it_shows(tmp_path):
    base = example().images
    given = example(images=base.transpose(2, 3), stored=base)
    save_condensed(tmp_path, given)
    assert torch.equal(load_condensed(tmp_path).images, base.transpose(2, 3))
    assert torch.equal(load_condensed(tmp_path).stored, base)


def test_saving_again_replaces_both_files_and_leaves_no_others(tmp_path):
    save_condensed(tmp_path, example())
    save_condensed(tmp_path, example(images=torch.zeros(6, 3, 4, 5)))
    assert load_condensed(tmp_path).images.abs().sum() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "condensed.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_condensed(tmp_path, example())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lit_condense.runs.files.os.fsync", full)
    with pytest.raises(ExportError, match=r"No space left.*untouched"):
        save_condensed(tmp_path, example(images=torch.zeros(6, 3, 4, 5)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_below_a_file_is_an_export_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="Expected to write"):
        save_condensed(tmp_path / "file" / "folder", example())


def test_every_corrupted_byte_of_the_tensors_is_found(tmp_path):
    path = save_condensed(tmp_path, complete())["condensed.safetensors"]
    good = path.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    for position in (start, start + 1, (start + len(good)) // 2, len(good) - 1):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        with pytest.raises(ExportError):
            load_condensed(tmp_path)
    path.write_bytes(good)
    load_condensed(tmp_path)


def test_a_card_beside_with_another_hash_is_refused(tmp_path):
    written = save_condensed(tmp_path, example())
    card = json.loads(written["card.json"].read_text())
    written["card.json"].write_text(json.dumps({**card, "sha256": "0" * 64}))
    with pytest.raises(ExportError, match=rf"{written['card.json']} says {'0' * 64}.*changed"):
        load_condensed(tmp_path)
    written["card.json"].unlink()
    load_condensed(tmp_path)  # the file carries its own card


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{", b"\xff\xfe\x00", b"{}", b"[" * 100_000])
def test_a_card_beside_that_is_none_is_refused(tmp_path, content):
    save_condensed(tmp_path, example())["card.json"].write_bytes(content)
    with pytest.raises(ExportError, match=r"card"):
        load_condensed(tmp_path)


class Loud:
    """Raises when unpickled."""

    def __reduce__(self):
        return exec, ("raise RuntimeError('unpickled')",)


@pytest.mark.parametrize("kind", ["pickle", "torch", "empty", "cut", "text"])
def test_what_is_no_safetensors_file_is_refused_and_never_unpickled(tmp_path, kind):
    path = save_condensed(tmp_path, example())["condensed.safetensors"]
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Loud()))
    elif kind == "torch":
        torch.save({"images": Loud()}, path)
    else:
        path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-9], "text": b"images" * 20}[kind])
    with pytest.raises(ExportError, match=r"Expected a safetensors file"):
        load_condensed(path)


def test_a_missing_file_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match="found no file"):
        load_condensed(tmp_path)
    with pytest.raises(ExportError, match="found no file"):
        load_condensed(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_missing_tensors_are_refused(tmp_path, missing):
    save_condensed(tmp_path, example())
    tensors = {name: t for name, t in tensors_of(tmp_path).items() if name != missing}
    with pytest.raises(ExportError, match=rf"lacks \['{missing}'\]"):
        load_condensed(rewritten(tmp_path, tensors))


def test_unknown_tensors_are_refused(tmp_path):
    save_condensed(tmp_path, example())
    with pytest.raises(ExportError, match=r"also holds \['payload'\]"):
        load_condensed(rewritten(tmp_path, {**tensors_of(tmp_path), "payload": torch.zeros(3)}))


def test_a_file_without_a_card_or_of_another_format_is_refused(tmp_path):
    save_condensed(tmp_path, example())
    tensors = tensors_of(tmp_path)
    with pytest.raises(ExportError, match="format version 1"):
        load_condensed(rewritten(tmp_path, tensors, {"format_version": 2}))
    save_file(tensors, tmp_path / "condensed.safetensors")
    with pytest.raises(ExportError, match="found none"):
        load_condensed(tmp_path)


WRONG = {
    "images as float64": {"images": torch.zeros(6, 3, 4, 5, dtype=torch.float64)},
    "flat images": {"images": torch.zeros(6, 60)},
    "labels as float": {"labels": torch.zeros(6)},
    "too few labels": {"labels": torch.zeros(5, dtype=torch.int64)},
    "a negative label": {"labels": torch.tensor([0, 0, 1, 1, 2, -1])},
    "no images": {"images": torch.zeros(0, 3, 4, 5), "labels": torch.zeros(0, dtype=torch.int64)},
    "images not a number": {"images": torch.full((6, 3, 4, 5), torch.nan)},
    "infinite images": {"images": torch.full((6, 3, 4, 5), torch.inf)},
    "soft labels not a number": {"soft_labels": torch.full((6, 3), torch.nan)},
    "too few soft labels": {"soft_labels": torch.zeros(5, 3)},
    "infinite weights": {"weights": torch.full((6,), torch.inf)},
    "too many weights": {"weights": torch.zeros(7)},
    "two learning rates": {"inner_lr": torch.zeros(2)},
    "a learning rate not a number": {"inner_lr": torch.tensor(torch.nan)},
    "infinite stored values": {"stored": torch.full((6, 3, 4, 5), -torch.inf)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_tensors_that_make_no_set_are_refused(tmp_path, wrong):
    save_condensed(tmp_path, example())
    with pytest.raises(ExportError, match="Expected"):
        load_condensed(rewritten(tmp_path, {**tensors_of(tmp_path), **WRONG[wrong]}))


def test_a_set_that_could_not_be_read_back_is_not_written(tmp_path):
    save_condensed(tmp_path, example())
    before = (tmp_path / "condensed.safetensors").read_bytes()
    with pytest.raises(ExportError, match="finite"):
        save_condensed(tmp_path, example(images=torch.full((6, 3, 4, 5), torch.nan)))
    assert (tmp_path / "condensed.safetensors").read_bytes() == before


def test_a_file_above_the_limit_is_refused_unread(tmp_path, monkeypatch):
    size = save_condensed(tmp_path, example())["condensed.safetensors"].stat().st_size
    monkeypatch.setattr(condensed_set, "LARGEST_FILE", size)
    load_condensed(tmp_path)
    monkeypatch.setattr(condensed_set, "LARGEST_FILE", size - 1)
    monkeypatch.setattr(condensed_set, "safe_open", lambda *_, **__: pytest.fail("the file was read"))
    with pytest.raises(ExportError, match=rf"at most {size - 1} bytes.*{size}"):
        load_condensed(tmp_path)


def test_nothing_in_the_package_unpickles():
    package = Path(lit_condense.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
            module = getattr(node, "module", None) if isinstance(node, ast.ImportFrom) else None
            loaders = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
            assert not loaders & {*names, module} or path.name == "safe.py", path
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"):
                continue
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            owner = ast.unparse(node.func.value)
            assert owner != "torch" or given.get("weights_only") is True, f"{path}:{node.lineno}"
            assert owner not in ("np", "numpy") or given.get("allow_pickle") is False, f"{path}:{node.lineno}"
            assert "load_from_checkpoint" not in ast.unparse(node), path


def test_the_one_file_that_knows_pickles_reads_them_by_a_list_of_names():
    text = (Path(lit_condense.__file__).parent / "interchange" / "safe.py").read_text()
    used = {ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("pickle.")} == {"pickle.Unpickler", "pickle.UnpicklingError"}


def test_half_precision_is_half_the_file_and_a_2048th_of_a_value(tmp_path):
    given = complete()
    sizes = [
        save_condensed(tmp_path / name, given, half)["condensed.safetensors"].stat().st_size
        for name, half in (("whole", False), ("half", True))
    ]
    read = load_condensed(tmp_path / "half")
    for name in ("images", "stored"):
        one, other = getattr(given, name), getattr(read, name)
        assert other.dtype == torch.float32
        assert ((one - other).abs() <= one.abs() / 2048 + 1e-7).all()
        assert not one.equal(other)
    assert read.soft_labels.equal(given.soft_labels)
    assert sizes[1] < 0.7 * sizes[0]


def test_values_beyond_half_precision_are_refused(tmp_path):
    with pytest.raises(ExportError, match="finite images"):
        save_condensed(tmp_path, example(images=torch.full((6, 3, 4, 5), 1e6)), half=True)
    assert not list(tmp_path.iterdir())


def test_a_shipped_set_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(condensed_set, "SHIPPED", tmp_path / "results")
    save_condensed(tmp_path / "results" / "group" / "one", example())
    assert condensed_set.shipped() == ["group/one"]
    assert load_condensed("group/one").images.equal(example().images)
    monkeypatch.chdir(tmp_path)
    other = example(images=torch.zeros(6, 3, 4, 5))
    save_condensed("group/one", other)  # a folder of the user's comes first
    assert load_condensed("group/one").images.equal(other.images)
    with pytest.raises(ExportError, match="1 below"):
        load_condensed("two")
    with pytest.raises(ExportError, match="found no file"):
        load_condensed("group/../../results/group/one/../../../nowhere")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"class_names": ["a", "b"]}, "labels below 2, .* got labels up to 2"),
        ({"image_shape": [3, 8, 8]}, r"shape \[3, 8, 8\], .* got \[1, 8, 8\]"),
    ],
)
def test_a_card_of_another_set_is_refused_in_writing_and_in_reading(tmp_path, data, said, monkeypatch):
    other = CondensedSet(torch.rand(3, 1, 8, 8), torch.arange(3), {"data": data})
    with pytest.raises(ExportError, match=said):
        save_condensed(tmp_path, other)
    with monkeypatch.context() as patch:
        patch.setattr("lit_condense.export.condensed_set.check_card", lambda *_: None)
        save_condensed(tmp_path, other)
    with pytest.raises(ExportError, match=said):
        load_condensed(tmp_path)


def test_a_set_says_what_it_is_in_three_lines():
    card = {
        "data": {"dataset": "digits"},
        "update": 300,
        "method": {"matching": {"GradientMatching": {}, "FeatureMatching": {}}},
        "evaluation": {
            "condensed": [
                {
                    "network": "ConvNet",
                    "networks": 3,
                    "accuracy_mean": 0.5,
                    "accuracy_std": 0.01,
                    "recipe": {"protocol": "dc"},
                }
            ]
        },
    }
    images = torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    condensed = CondensedSet(images, torch.tensor([0, 3]), card, inner_lr=0.1)
    assert repr(condensed).splitlines() == [
        "2 images (1, 8, 8) of digits, 2 classes, pixels from -0.50 to 1.50, a step size",
        "made by GradientMatching + FeatureMatching, 300 updates",
        "test accuracy: 50.0 +- 1.0 % (3 x ConvNet, protocol dc)",
    ]
    foreign = CondensedSet(
        images, torch.tensor([0, 3]), {"data": None, "evaluation": None, "selected": {"by": "CRAIG"}}
    )
    assert repr(foreign).splitlines()[1:] == [
        "made by CRAIG, an unknown number of updates",
        "test accuracy: not measured",
    ]


def test_a_set_can_be_trained_on_shown_and_written(tmp_path):
    images, soft = torch.rand(4, 3, 8, 8), torch.rand(4, 2).softmax(1)
    condensed = CondensedSet(images, torch.tensor([0, 0, 1, 1]), {})
    (seen, labels), *_ = torch.utils.data.DataLoader(condensed.dataset(), batch_size=4)
    assert torch.equal(seen, images)
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(CondensedSet(images, condensed.labels, {}, soft_labels=soft).dataset().tensors[1], soft)
    assert min(condensed.plot().size) >= 64
    condensed.save(tmp_path)
    assert torch.equal(load_condensed(tmp_path).images, images)
