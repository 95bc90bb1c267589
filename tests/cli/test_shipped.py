"""The shipped configs: found by name from anywhere, composed, listed, copied."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from lit_condense.cli import main
from lit_condense.cli.shipped import named, read, run_name, shipped, with_paths
from lit_condense.errors import SettingsError
from lit_condense.runs.ownership import marked_config
from tests.cli_helpers import REPOSITORY, new_process, printed, refusal

OWN_DATA = """
from lit_condense.data import Digits, Normalization

class Own(Digits):
    def __init__(self, root: str = "here", normalization: Normalization = Normalization((0.5,), (1.0,)), **more):
        super().__init__(**more)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_config_is_found_by_name_and_a_file_of_that_name_comes_first(elsewhere):
    assert named("dc/cifar10_ipc10") == REPOSITORY / "configs" / "dc" / "cifar10_ipc10.yaml"
    assert named("configs/quickstart.yaml") == REPOSITORY / "configs" / "quickstart.yaml"
    (elsewhere / "quickstart").write_text("trainer: {}")
    assert named("quickstart") == Path("quickstart")
    with pytest.raises(SettingsError, match=r"Did you mean dc/cifar10_ipc1.*lit-condense configs"):
        named("dc/cifar_ipc1")


def test_both_spellings_of_the_option_are_read():
    path = str(REPOSITORY / "configs" / "quickstart.yaml")
    assert with_paths(["fit", "--config", "quickstart", "-c=quickstart", "--model.ipc", "2"]) == [
        *("fit", "--config", path, f"-c={path}", "--model.ipc", "2")
    ]


def test_an_unknown_name_is_one_message(capsys):
    assert "Expected --config to be a file or the name of a shipped config" in refusal(capsys, "fit", "--config", "dx")


def test_a_config_composes_with_ones_own_data_and_with_flags(elsewhere, capsys):
    (elsewhere / "my_data.yaml").write_text("data: {class_path: ImageFolder, init_args: {root: mydata}}\n")
    both = ["--config", "dream/cifar10_ipc10", "--config", "my_data.yaml"]
    config = yaml.safe_load(printed(capsys, "fit", *both, "--model.ipc", "7"))
    model = config["model"]["init_args"]
    assert model["ipc"] == 7
    assert model["sampling"]["class_path"] == "lit_condense.sampling.Representative"
    assert config["data"]["init_args"]["root"] == "mydata"
    assert [loss["class_path"] for loss in config["trainer"]["callbacks"]] == ["lit_condense.matching.GradientMatching"]


@pytest.mark.parametrize("name", [name for name in shipped() if name.endswith("base")])
def test_a_base_file_serves_any_data(name, capsys):
    config = yaml.safe_load(printed(capsys, "fit", "--config", name, "--data", "Digits"))
    assert config["data"]["class_path"] == "lit_condense.data.Digits"
    assert read(name)["data"] is None


def test_every_method_has_a_base_file():
    folders = {name.split("/")[0] for name in shipped() if "/" in name}
    assert {name.split("/")[0] for name in shipped() if name.endswith("/base")} == folders


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        (["/somewhere/configs/dc/cifar10_ipc1.yaml"], "dc/cifar10_ipc1"),
        (["/somewhere/mine.yaml", "/other/my_data.yaml"], "mine+my_data"),
        (["/somewhere/configs/dc/base.yaml", "/other/my_data.yaml"], "dc/digits_ipc3+my_data"),
        (["/home/runs/dc/cifar10_ipc1/version_3/config.yaml"], "dc/cifar10_ipc1"),
        (["/home/out/version_3/config.yaml"], "out"),
        (["/somewhere/mine.yaml", "/somewhere/configs/dc/base.yaml"], "mine+dc_base"),
        ([], "digits_ipc3"),
    ],
)
def test_what_a_run_is_called(configs, name):
    assert run_name([Path(config) for config in configs], "digits_ipc3") == name


def test_a_config_that_a_run_saved_in_a_folder_of_its_own_is_called_as_that_folder(elsewhere):
    saved, edited = elsewhere / "first" / "config.yaml", elsewhere / "second" / "config.yaml"
    for path in (saved, edited):
        path.parent.mkdir()
        path.write_bytes(marked_config("model: {}\n"))
    edited.write_text(edited.read_text() + "# mine\n")
    assert (run_name([saved], ""), run_name([edited], "")) == ("first", "config")


@pytest.mark.parametrize(
    ("words", "normalization"),
    [
        (["--config", "my_data.yaml"], "measured"),
        (["--data", "ImageFolder", "--data.root", "mydata"], "measured"),
        (["--data=ImageFolder", "--data.root=mydata", "--data.normalization=dc"], "dc"),
        (["--data.class_path", "lit_condense.data.MNIST"], "dc"),
        (["--data.root", "mydata"], "idc"),
        (["--data", "CIFAR10"], "idc"),
        (["--data.normalization", "egm", "--data", "MNIST"], "egm"),
        (["--data", "MNIST", "--data.init_args", '{"normalization": "egm"}'], "egm"),
        (["--data", "only_data.yaml"], "measured"),
        (["--data", "MNIST", "--config", "alone.yaml"], "egm"),
    ],
    ids=[
        *("a second config", "flags", "flags that say it", "a class path", "another folder", "the same class"),
        *("a flag before the class", "settings as a whole", "a file of data", "settings alone"),
    ],
)
def test_other_data_take_nothing_over_from_those_that_they_replace(elsewhere, capsys, words, normalization):
    (elsewhere / "my_data.yaml").write_text("data: {class_path: ImageFolder, init_args: {root: mydata}}\n")
    (elsewhere / "only_data.yaml").write_text("class_path: ImageFolder\ninit_args: {root: mydata}\n")
    (elsewhere / "alone.yaml").write_text("data: {normalization: egm}\n")
    (elsewhere / "first.yaml").write_text("data: {class_path: CIFAR10, init_args: {normalization: idc}}\n")
    config = yaml.safe_load(printed(capsys, "fit", "--config", "dc/base", "--config", "first.yaml", *words))
    assert config["data"]["init_args"]["normalization"] == normalization


def test_a_default_that_cannot_be_said_and_one_of_a_base_class(elsewhere, capsys, monkeypatch):
    monkeypatch.syspath_prepend(elsewhere)
    (elsewhere / "own_data.py").write_text(OWN_DATA)
    (elsewhere / "first.yaml").write_text(
        "data: {class_path: CIFAR10, init_args: {normalization: idc, held_out: 0.2, root: there}}\n"
    )
    words = ["fit", "--config", "dc/base", "--config", "first.yaml", "--data", "own_data.Own"]
    own = yaml.safe_load(printed(capsys, *words))["data"]["init_args"]
    assert (own["held_out"], own["normalization"]["mean"]) == (0.0, [0.5])


@pytest.mark.parametrize("broken", ["data: [", "a: b: c"])
def test_a_config_that_is_no_yaml_is_one_message(elsewhere, capsys, broken):
    (elsewhere / "broken.yaml").write_text(broken)
    assert "Problems parsing config" in refusal(capsys, "fit", "--config", "broken.yaml")


def test_data_of_an_unknown_class_are_refused_by_name(capsys):
    assert "Nothing" in refusal(capsys, "fit", "--config", "idc/cifar10_ipc10", "--data", "Nothing")


def test_whoever_reads_the_list_may_stop(elsewhere):
    command = f"{sys.executable} -m lit_condense configs | head -1"
    done = new_process("bash", "-c", command, cwd=elsewhere)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_configs_are_listed_by_words(capsys):
    main(["configs", "dream", "CIFAR100"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [f"dream/cifar100_ipc{ipc}" for ipc in (1, 10, 50)]
    assert all("representative matching" in line for line in listed)
    main(["configs"])
    assert len(capsys.readouterr().out.splitlines()) == len(shipped())
    assert "none has nonsense" in refusal(capsys, "configs", "nonsense")


def test_a_config_is_copied_and_nothing_is_written_over(elsewhere, capsys):
    main(["configs", "dc/cifar10_ipc1", "--copy", "--to", "mine"])
    copy = elsewhere / "mine" / "dc_cifar10_ipc1.yaml"
    assert capsys.readouterr().out.strip() == "mine/dc_cifar10_ipc1.yaml"
    assert copy.read_text() == named("dc/cifar10_ipc1").read_text()
    two = ["configs", "dc/cifar10_ipc1", "dc/cifar10_ipc10", "--copy", "--to", "mine"]
    assert "there is one" in refusal(capsys, *two)
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]  # neither was copied


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--copy"], "names or words of the configs to copy"),
        (["dc/cifar10_ipc1", "--copy", "mine"], "got mine beside dc/cifar10_ipc1"),
    ],
)
def test_what_is_to_be_copied_must_be_said(elsewhere, capsys, words, message):
    assert message in refusal(capsys, "configs", *words)
    assert not list(elsewhere.iterdir())


def test_reading_a_config_gives_every_class_its_settings():
    config = read("dc/cifar10_ipc10")
    model = config["model"]["init_args"]
    assert model["network"] == {"class_path": "ConvNet", "init_args": {}}
    assert model["evaluation"]["init_args"] == {}
    assert config["trainer"]["callbacks"] == [{"class_path": "GradientMatching", "init_args": {}}]
    assert config["data"] == {"class_path": "CIFAR10", "init_args": {}}
    assert read("selection/adacore_cifar10")["model"]["init_args"]["selection"]["class_path"] == "AdaCore"
