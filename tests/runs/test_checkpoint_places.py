"""Where a checkpoint may be: a path, a URL, an open file. What is no checkpoint is refused in one safe sentence."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import fsspec
import pytest
import torch

from lit_condense import SyntheticSet
from lit_condense.errors import CheckpointError
from lit_condense.runs.checkpointing import AtomicCheckpointIO, local_path, read
from tests.cli_helpers import checkpoint_of, cli, refusal, write_config


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of 2 updates: its folder, its arguments and its last checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    args = [*write_config(folder), "--trainer.val_check_interval", "100"]
    cli("fit", *args, "--trainer.max_steps", "2")
    path = folder / "tiny" / "checkpoints" / "last.ckpt"
    with fsspec.open("memory://bucket/last.ckpt", "wb") as file:
        file.write(path.read_bytes())
    return args, path


@pytest.mark.parametrize("place", ["file://{}", "memory://bucket/last.ckpt"])
def test_a_url_works_as_a_path_does(stopped, tmp_path, place):
    args, path = stopped
    url = place.format(path)
    elsewhere = [*write_config(tmp_path), "--trainer.val_check_interval", "100", "--trainer.max_steps", "3"]
    cli("fit", *elsewhere, "--ckpt_path", url)
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == 3
    tested = [float(cli("test", *args, "--ckpt_path", one).trainer.callback_metrics["test/acc"]) for one in (url, path)]
    assert tested[0] == tested[1]
    images = torch.load(path, weights_only=True)["state_dict"]["images"]
    for one in (url, Path(url), io.BytesIO(path.read_bytes())):  # a Path keeps one slash of several
        assert torch.equal(SyntheticSet.load_from_checkpoint(one).images.detach(), images)


def test_what_looks_like_a_url_but_is_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, Path("s3:/one.ckpt").resolve())
    assert read("s3:/one.ckpt") == {"global_step": 1}
    assert local_path("C:/one.ckpt") == Path("C:/one.ckpt")
    assert local_path("file:///a/b c.ckpt") == local_path(Path("file:///a/b c.ckpt")) == Path("/a/b c.ckpt")
    assert local_path("s3://bucket/one.ckpt") is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///nowhere/last.ckpt", "Expected a checkpoint at /nowhere/last.ckpt, found no file"),
        ("memory://bucket/nothing.ckpt", "memory://bucket/nothing.ckpt, it cannot be opened"),
        ("nosuch://bucket/last.ckpt", "nosuch://bucket/last.ckpt, it cannot be opened"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_sentence(stopped, capsys, url, said):
    for command in ("fit", "test", "predict"):
        assert said in refusal(capsys, command, *stopped[0], "--ckpt_path", url, "--overwrite", "true")
    with pytest.raises(CheckpointError, match="Expected a checkpoint at"):
        SyntheticSet.load_from_checkpoint(url)


def test_an_output_folder_that_is_a_url_is_refused_and_not_made_here(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in ("--out", "--checkpoint.dirpath", "--report.folder"):
        message = refusal(capsys, "fit", *write_config(tmp_path), option, "memory://bucket/run")
        assert "got the URL memory:/bucket/run" in message
        assert not (tmp_path / "memory:").exists()


class Unpickled:
    """Would write to standard output when unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def unusable(folder, kind):
    path = folder / "one.ckpt"
    if kind == "with code":
        torch.save({"state_dict": {}, "lit_condense": Unpickled()}, path)
    elif kind == "with an object":
        torch.save({"state_dict": {}, "lit_condense": Path("x")}, path)
    else:
        path.write_bytes({"text": b"no checkpoint", "zeroed": bytes(100), "empty": b""}[kind])
    return path


ADVICE = ("weights_only", "weights only", "trust", "safe_globals", "arbitrary", "re-running")


@pytest.mark.parametrize("kind", ["with code", "with an object", "text", "zeroed", "empty"])
def test_no_refusal_advises_to_switch_the_safety_off(stopped, tmp_path, capsys, kind):
    path = unusable(tmp_path, kind)
    said = [refusal(capsys, "fit", *stopped[0], "--ckpt_path", path, "--overwrite", "true")]
    for load in (read, AtomicCheckpointIO().load_checkpoint, SyntheticSet.load_from_checkpoint):
        with warnings.catch_warnings(), pytest.raises(CheckpointError) as refused:
            warnings.simplefilter("error")
            load(path)
        assert refused.value.__suppress_context__
        assert refused.value.__cause__ is None
        said.append(str(refused.value))
    for message in said:
        assert not [word for word in ADVICE if word in message.lower()]
        assert message.startswith(("lit-condense: error: Expected a complete", "Expected a complete checkpoint at"))
        assert ("is never loaded" in message) == kind.startswith("with")
    assert "unpickled" not in capsys.readouterr().out


def test_unpickling_cannot_be_asked_for(stopped, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="is never loaded"):
        SyntheticSet.load_from_checkpoint(unusable(tmp_path, "with code"), weights_only=False)
    with pytest.raises(CheckpointError, match="is never loaded"):
        AtomicCheckpointIO().load_checkpoint(unusable(tmp_path, "with code"), weights_only=False)
    assert "unpickled" not in capsys.readouterr().out


def test_an_object_is_refused_when_it_is_written_without_that_advice_too(tmp_path):
    with pytest.raises(CheckpointError, match="could not be read again") as refused:
        AtomicCheckpointIO().save_checkpoint({"kept": Path("x")}, tmp_path / "one.ckpt")
    assert not [word for word in ADVICE if word in str(refused.value).lower()]
