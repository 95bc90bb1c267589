"""Files of unknown origin: nothing is run, and what is no plain tensor is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_condense.errors import ExportError
from lit_condense.interchange import read_set, safe
from lit_condense.interchange.safe import check_tensors, read_pickle, read_torch
from tests.interchange.files import Hostile, as_numpy_1_wrote_it, idm_pickle, images_of, labels_of, results

WITNESS = Path("/tmp/lit_condense_was_here")


@pytest.fixture(autouse=True)
def nothing_runs():
    WITNESS.unlink(missing_ok=True)
    yield
    assert not WITNESS.exists(), "the file was run"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_numbers_of_numpy_are_read_in_both_containers(tmp_path, zipped):
    path = results(tmp_path, _use_new_zipfile_serialization=zipped)
    assert read_torch(path)["accs_all_exps"] == {"ConvNet": [0.25, 0.5]}


def test_files_of_numpy_1_are_read(tmp_path):
    path = as_numpy_1_wrote_it(results(tmp_path))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert read_torch(path)["accs_all_exps"] == {"ConvNet": [0.25, 0.5]}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_would_be_run_is_refused_and_named(tmp_path, zipped):
    path = tmp_path / "data.pt"
    torch.save([images_of(), Hostile()], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ExportError, match=f"nothing of it was run.*{os.name}.system"):
        read_torch(path)


def test_a_plain_pickle_may_name_tensors_alone(tmp_path):
    images, labels = read_pickle(idm_pickle(tmp_path))
    assert torch.equal(images, images_of())
    assert torch.equal(labels, labels_of())
    for number, hostile in enumerate((Hostile(), (images_of(), Hostile()), np.float64(1), print)):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(hostile))
        with pytest.raises(ExportError, match="nothing of it was run"):
            read_pickle(path)


def test_a_pickle_changes_nothing_of_what_it_is_given(tmp_path):
    """Opcode ``b`` sets attributes of an object; here of the function that makes tensors."""
    path = tmp_path / "acc.pkl"
    path.write_bytes(b"ctorch._utils\n_rebuild_tensor_v2\n(N}S'__defaults__'\n(I7\ntstb.")
    with contextlib.suppress(ExportError):
        read_pickle(path)
    assert torch._utils._rebuild_tensor_v2.__defaults__ != (7,)


def test_a_pickle_inside_a_storage_is_not_run(tmp_path):
    """``torch.storage._load_from_bytes`` is a way to another ``torch.load``: that one reads weights only, too."""
    inner = tmp_path / "inner.pt"
    torch.save(Hostile(), inner)

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (inner.read_bytes(),)

    path = tmp_path / "acc.pkl"
    path.write_bytes(pickle.dumps(Storage()))
    with pytest.raises(ExportError, match="nothing of it was run"):
        read_pickle(path)


def test_arrays_are_refused_with_advice(tmp_path):
    torch.save({"data": [np.zeros((2, 3, 8, 8)), np.zeros(2)]}, tmp_path / "syn.pt")
    with pytest.raises(ExportError, match=r"numpy.*as tensors"):
        read_torch(tmp_path / "syn.pt")


def test_a_tensor_larger_than_its_file_is_refused_before_it_is_copied(tmp_path):
    torch.save(torch.zeros(1).expand(100_000, 3, 1000, 1000), tmp_path / "images.pt")
    assert (tmp_path / "images.pt").stat().st_size < 10_000
    with pytest.raises(ExportError, match=r"holds in full.*repeats 4 bytes"):
        read_set(tmp_path / "images.pt")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.zeros(2, dtype=torch.complex64),
        lambda: torch.zeros(2, device="meta"),
    ],
    ids=["sparse", "complex", "meta"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(make):
    with pytest.raises(ExportError, match="plain real tensors"):
        check_tensors([{"a": (make(),)}], Path("a.pt"))


def test_a_file_that_unpacks_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2_000_000))
    monkeypatch.setattr(safe, "LARGEST_FILE", 1_000_000)
    assert path.stat().st_size < 10_000
    with pytest.raises(ExportError, match=r"at most 1000000 bytes.*unpacks to 2000000"):
        read_torch(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no torch file", b"\x80\x02."])
def test_broken_files_are_refused_in_one_sentence(tmp_path, content):
    for name, reader in (("a.pt", read_torch), ("a.pkl", read_pickle)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match="Expected"):
            reader(tmp_path / name)


def test_every_cut_of_a_file_is_refused(tmp_path):
    whole = results(tmp_path).read_bytes()
    cut = tmp_path / "cut.pt"
    for length in range(0, len(whole), 997):
        cut.write_bytes(whole[:length])
        with pytest.raises(ExportError):
            read_set(cut)
