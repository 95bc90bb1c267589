"""What this program did not write is never replaced, and nothing is written outside the folder of the run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from PIL import Image
from safetensors.torch import save_file

from lit_condense import load_condensed
from lit_condense.callbacks import FinalReport
from lit_condense.errors import CheckpointError, ExportError
from lit_condense.export import save_condensed, write_grid
from lit_condense.matching import GradientMatching
from lit_condense.runs.outputs import OWN_FOLDER, run_folder
from tests.cli_helpers import cli, contents, names, new_process, refusal, succeeded, tiny_config, write_config
from tests.helpers import fitted, quiet_trainer

QUICK = ["--trainer.max_steps", "1", "--trainer.val_check_interval", "100", "--model.evaluation.full_data_steps", "0"]
NO_LOGGER = ["--trainer.logger", "false"]
AGAIN = ["--overwrite", "true"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with a user's files in it, among them the config of the run; outputs go to ``tiny``."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    config = "# my comments\n" + yaml.safe_dump(tiny_config("."))
    (folder / "config.yaml").write_text(config)
    (folder / "card.json").write_text('{"my": "card"}')
    (folder / "condensed.safetensors").write_bytes(b"mine")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"mine too")
    Image.new("L", (2, 2)).save(folder / "grid.png")
    return folder


def written_by(folder, *args):
    """Run, and return the files that are new; those there before are untouched."""
    before = contents(folder)
    cli("fit", "--config", "config.yaml", *QUICK, *args)
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    return names(folder) - {path.relative_to(folder).as_posix() for path in before}


# ------------------------------------------------------------------ where a run writes


def test_without_a_logger_everything_goes_into_the_folder_of_the_run(work):
    new = written_by(work, *NO_LOGGER)
    assert {name.split("/")[0] for name in new} == {"tiny"}
    assert {"tiny/config.yaml", "tiny/condensed.safetensors", "tiny/card.json", "tiny/grid.png"} <= new


def test_without_any_folder_a_run_makes_one_of_its_own(work):
    config = tiny_config(".") | {"out": None}
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    new = written_by(work)
    assert {name.rpartition("version_0")[0] for name in new} == {"runs/config/"}
    wanted = ["config.yaml", "condensed.safetensors", "card.json", "grid.png", "checkpoints/last.ckpt"]
    assert {f"runs/config/version_0/{name}" for name in wanted} <= new


class Remote(Logger):
    """A logger whose folder, if it has one, is the working folder, as that of services is by default."""

    def __init__(self, save_dir=None):
        super().__init__()
        self._save_dir = save_dir

    name = version = "remote"

    @property
    def save_dir(self):
        return self._save_dir

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass


@pytest.mark.parametrize("save_dir", [None, "."])
def test_a_logger_without_a_folder_of_its_own_puts_nothing_into_the_working_folder(work, save_dir):
    logger = {"class_path": "tests.runs.test_files_of_users.Remote", "init_args": {"save_dir": save_dir}}
    new = written_by(work, "--trainer.logger", json.dumps(logger))
    assert {name.split("/")[0] for name in new} == {"tiny"}
    assert "tiny/config.yaml" in new


def test_the_folder_of_a_run_in_plain_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = Trainer(logger=False, default_root_dir=tmp_path / "root")
    assert run_folder(there, there.log_dir) == tmp_path / "root"
    nowhere = Trainer(logger=False)
    assert run_folder(nowhere, nowhere.log_dir) == tmp_path / OWN_FOLDER
    logged = Trainer(logger=CSVLogger("logs", "x", ""))
    assert run_folder(logged, logged.log_dir) == Path("logs/x")
    chosen = Trainer(logger=CSVLogger(".", "", ""))  # asked for in so many words
    assert run_folder(chosen, chosen.log_dir).resolve() == tmp_path


# ------------------------------------------------------------------ whose files stand there


def test_a_config_is_replaced_only_where_it_is_as_this_program_wrote_it(work):
    written_by(work)
    saved = work / "tiny" / "config.yaml"
    first = saved.read_text()
    cli("fit", "--config", "config.yaml", *QUICK, *AGAIN, "--seed_everything", "7")
    assert yaml.safe_load(saved.read_text())["seed_everything"] == 7
    edited = first.replace("seed_everything: 0", "seed_everything: 0  # my choice")
    for text in (edited, "# mine\nseed_everything: 1\n", ""):
        saved.write_text(text)
        (work / "tiny" / "config_1.yaml").unlink(missing_ok=True)
        with pytest.warns(UserWarning, match=r"config\.yaml is not lit_condense's: .*config_1\.yaml"):
            cli("fit", "--config", "config.yaml", *QUICK, *AGAIN, "--seed_everything", "8")
        assert saved.read_text() == text
        assert yaml.safe_load((work / "tiny" / "config_1.yaml").read_text())["seed_everything"] == 8


def test_a_dry_run_saves_no_config(work):
    assert not [name for name in written_by(work, "--trainer.fast_dev_run", "true") if name.endswith(".yaml")]


FOREIGN = {
    "condensed.safetensors": lambda path: save_file({"images": torch.zeros(2)}, path, {"card": "{}"}),
    "card.json": lambda path: path.write_text('{"format_version": 1, "name": "of something else"}'),
    "grid.png": lambda path: Image.new("L", (2, 2)).save(path),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("how", ["alike", "nonsense", "empty", "folder", "dead link"])
def test_a_run_that_would_replace_a_foreign_file_is_refused_before_it_starts(tmp_path, capsys, name, how):
    path = tmp_path / "tiny" / name
    path.parent.mkdir()
    make = {
        "alike": FOREIGN[name],
        "nonsense": lambda path: path.write_bytes(b"\xff\xfe nonsense"),
        "empty": lambda path: path.touch(),
        "folder": lambda path: path.mkdir(),
        "dead link": lambda path: path.symlink_to("nowhere"),
    }
    make[how](path)
    before = contents(tmp_path)
    message = refusal(capsys, "fit", *write_config(tmp_path))
    assert str(path) in message
    assert "not written by lit_condense" in message
    after = contents(tmp_path)
    assert {p: after[p] for p in before} == before
    assert path.is_symlink() == (how == "dead link")


def test_sets_and_pictures_of_ones_own_are_replaced_and_others_are_not(tmp_path):
    cli("fit", *write_config(tmp_path), *QUICK)
    condensed = load_condensed(tmp_path / "tiny")
    save_condensed(tmp_path / "tiny", condensed)
    write_grid(tmp_path / "tiny" / "grid.png", condensed.images, condensed.labels)
    # an older version's picture says nothing of itself, but stands beside its card
    Image.open(tmp_path / "tiny" / "grid.png").copy().save(tmp_path / "tiny" / "grid.png")
    write_grid(tmp_path / "tiny" / "grid.png", condensed.images, condensed.labels)
    for name, make in FOREIGN.items():
        other = tmp_path / name.replace(".", "_")
        other.mkdir()
        make(other / name)
        before = contents(other)
        with pytest.raises(ExportError, match="not written by lit_condense"):
            if name == "grid.png":
                write_grid(other / name, condensed.images, condensed.labels)
            else:
                save_condensed(other, condensed)
        assert contents(other) == before


class Other(LightningModule):
    """Another program's model."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())

    def training_step(self, batch):
        return self.layer(batch[0]).sum()


def write_foreign_checkpoint(path):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(1, 1)))
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(Other(), loader)
    trainer.save_checkpoint(path)


@pytest.mark.parametrize("name", ["last.ckpt", "epoch=0-step=1.ckpt"])
def test_another_programs_checkpoints_are_not_replaced(tmp_path, capsys, name):
    path = tmp_path / "tiny" / "checkpoints" / name
    write_foreign_checkpoint(path)
    before = path.read_bytes()
    message = refusal(capsys, "fit", *write_config(tmp_path))
    assert f"{path} was not written by lit_condense" in message
    saving = ModelCheckpoint(path.parent, every_n_train_steps=1, save_last=True, enable_version_counter=False)
    with pytest.raises(CheckpointError, match="not written by lit_condense"):
        fitted(GradientMatching(), saving, trainer={"enable_checkpointing": True})
    assert path.read_bytes() == before
    cli("fit", *write_config(tmp_path, name="other"), *QUICK)
    folder = tmp_path / "other" / "checkpoints"
    shutil.copy(path, folder / name)  # where ours are too, it is foreign all the same
    assert f"{folder / name} was not" in refusal(capsys, "fit", *write_config(tmp_path, name="other"), *AGAIN)


def test_a_broken_checkpoint_among_ones_own_is_ones_own(tmp_path):
    args = write_config(tmp_path)
    cli("fit", *args, *QUICK)
    last = tmp_path / "tiny" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:100])
    cli("fit", *args, *QUICK, *AGAIN)
    assert torch.load(last, weights_only=True)["global_step"] == 1


# ------------------------------------------------------------------ a run that will export nothing


def warned(recorder):
    return [str(w.message) for w in recorder if "This run will leave" in str(w.message)]


def test_a_config_of_ones_own_that_names_losses_drops_neither_report_nor_checkpoints(tmp_path, recwarn):
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"trainer": {"callbacks": ["GradientMatching"]}}))
    cli("fit", *write_config(tmp_path), "--config", own, *QUICK)
    assert warned(recwarn) == []
    assert {"condensed.safetensors", "card.json", "grid.png", "checkpoints/last.ckpt"} <= names(tmp_path / "tiny")


def test_a_run_without_checkpoints_says_so_at_the_start(tmp_path, recwarn):
    cli("fit", *write_config(tmp_path), "--trainer.enable_checkpointing", "false", *QUICK)
    (words,) = warned(recwarn)
    assert "no checkpoint" in words
    assert not list((tmp_path / "tiny").rglob("*.ckpt"))
    assert (tmp_path / "tiny" / "condensed.safetensors").is_file()


def test_a_config_of_ones_own_can_add_to_the_callbacks_of_another(tmp_path, recwarn):
    own = tmp_path / "own.yaml"
    second = {"class_path": "lit_condense.matching.GradientMatching", "init_args": {"name": "second"}}
    own.write_text(yaml.safe_dump({"trainer": {"callbacks+": [second]}}))
    done = cli("fit", *write_config(tmp_path), "--config", own, *QUICK)
    assert [loss.tag for loss in done.model.matching_losses] == ["GradientMatching", "second"]
    assert warned(recwarn) == []
    assert "condensed.safetensors" in names(tmp_path / "tiny")


def test_a_selection_says_it_too_and_a_dry_run_does_not(tmp_path, recwarn):
    config = tiny_config(tmp_path)
    config["trainer"] |= {"callbacks": [], "enable_checkpointing": False}
    config["model"] = {
        "class_path": "lit_condense.SelectedSet",
        "init_args": {
            "selection": {"class_path": "lit_condense.selection.RandomSubset"},
            "ipc": 1,
            "network": config["model"]["init_args"]["network"],
            "evaluation": config["model"]["init_args"]["evaluation"],
        },
    }
    (tmp_path / "select.yaml").write_text(yaml.safe_dump(config))
    cli("fit", "--config", tmp_path / "select.yaml", "--proxy_cache", "null")
    assert "no checkpoint" in warned(recwarn)[0]
    recwarn.clear()
    cli("fit", "--config", tmp_path / "select.yaml", "--proxy_cache", "null", "--trainer.fast_dev_run", "true")
    assert warned(recwarn) == []


@pytest.mark.parametrize("report", [False, True])
def test_plain_python_remarks_on_it_in_one_line(tmp_path, monkeypatch, report):
    said = []
    monkeypatch.setattr("lit_condense.runs.outputs.rank_zero_info", said.append)
    fitted(GradientMatching(), *([FinalReport(str(tmp_path))] if report else []), max_steps=1)
    assert len(said) == (0 if report else 1)
    assert report or "evaluate() and save(folder)" in said[0]


# ------------------------------------------------------------------ classes in the working folder


def test_the_console_script_finds_classes_in_the_working_folder(tmp_path):
    (tmp_path / "my_networks.py").write_text(
        "import torch\n\n\nclass Mine(torch.nn.Module):\n"
        "    def __init__(self, in_channels: int, image_size: tuple, num_classes: int):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)\n\n"
        "    def forward(self, x):\n        return self.layer(x.flatten(1))\n"
    )
    args = [*write_config(tmp_path), *QUICK, "--model.network", "my_networks.Mine"]
    script = Path(sys.executable).parent / "lit-condense"
    # the repository by name, not as a folder of PYTHONPATH that would bring others along
    succeeded(new_process(script, "fit", *args, cwd=tmp_path))
    card = json.loads((tmp_path / "tiny" / "card.json").read_text())
    assert card["evaluation"]["condensed"][0]["network"].startswith("Mine")
