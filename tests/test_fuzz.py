"""Configs with wrong types, unknown keys, negative numbers and absent files end in a message, never in a bare trace."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import random
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.cli import main
from tests.cli_helpers import tiny_config, untouched_process

HOSTILE = [
    *(None, True, 0, -1, -0.5, 1.5, float("nan"), float("inf")),
    *("", "nonsense", "/nowhere/at/all", "lit_condense.Nothing", "torch.nn.Identity", "1e3", "\u2603"),
    *([], [1], [-1, 2], ["x"], {}, {"a": 1}, {"class_path": "nothing"}, {"class_path": "builtins.int"}),
    {"class_path": "lit_condense.matching.GradientMatching", "init_args": {"weight": "heavy"}},
]
FREE = {("trainer", "max_steps"), ("trainer", "max_epochs"), ("trainer", "accelerator"), ("trainer", "devices")}
"""What would make a run endless or look for other hardware, were it set to something that works."""


def paths_of(node, path=()):
    """Every place in a config: of mappings, of lists and of single values."""
    if path:
        yield path
    if isinstance(node, dict):
        children = node.items()
    else:
        children = enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from paths_of(child, (*path, key))


def config_in(folder):
    """A complete run of one update, with options spelled out that the other tests leave to their defaults."""
    config = tiny_config(folder)
    config["trainer"] |= {"max_steps": 1, "val_check_interval": 1, "limit_val_batches": 1, "callbacks": [
        *config["trainer"]["callbacks"],
        {"class_path": "lit_condense.matching.CurvatureMatching", "init_args": {"rho": 0.1, "norm": "l1"}},
    ]}  # fmt: skip
    given = config["model"]["init_args"]
    given["inner"]["init_args"] = {"updates": 1, "epochs": 1, "lr": 0.01, "momentum": 0.0, "batch_size": 8}
    given |= {
        "ipc": 2,
        "parametrization": {
            "class_path": "lit_condense.parametrization.MultiFormation",
            "init_args": {"factor": 2, "space": "pixel", "clamp": "every_update"},
        },
        "init": {"class_path": "lit_condense.init.RandomReal"},
        "sampling": {
            "class_path": "lit_condense.sampling.Representative",
            "init_args": {"batch_size": 4, "interval": 1, "subset": 8},
        },
        "augmentation": {
            "class_path": "lit_condense.augmentation.AlwaysOn",
            "init_args": {"operations": ["color", "crop"]},
        },
        "engine": {
            "class_path": "lit_condense.engine.Engine",
            "init_args": {"mode": "exact", "compile": "never", "classes_per_block": 2, "real_chunk": 2},
        },
        "seed": 1,
        "non_finite": "stop",
    }
    config["ckpt_path"] = None
    return config


PLACES = [path for path in paths_of(config_in("folder")) if path not in FREE]


@st.composite
def changes(draw):
    """One or two changes of a config: (place, what happens there, value)."""
    change = st.tuples(
        st.sampled_from(PLACES), st.sampled_from(["replace", "replace", "add", "remove"]), st.sampled_from(HOSTILE)
    )
    return draw(st.lists(change, min_size=1, max_size=2))


def changed(config, place, how, value):
    """Apply a change, where an earlier one has left its place."""
    *parents, last = place
    node = config
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for key in parents:
            node = node[key]
        if how == "replace":
            node[last] = copy.deepcopy(value)
        elif how == "remove":
            del node[last]
        elif isinstance(node, dict):
            node["an_unknown_key"] = copy.deepcopy(value)


def ending(config, folder):
    """Run a config as the command line does; return the exit code and what was said."""
    path = Path(folder) / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    out, error = io.StringIO(), io.StringIO()
    code = 0
    home = Path.cwd()
    os.chdir(folder)  # where a config without folders writes
    try:
        with untouched_process(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                main(["fit", "--config", str(path)])
            except SystemExit as stopped:
                code = stopped.code
    finally:
        os.chdir(home)
    message = code if isinstance(code, str) else error.getvalue()
    return code, message


def check(several):
    with tempfile.TemporaryDirectory() as folder:
        config = config_in(folder)
        for place, how, value in several:
            changed(config, place, how, value)
        code, message = ending(config, folder)  # any other exception is a failure
        assert code in (0, None) or "error: " in message or message.startswith("lit-condense: "), message
        assert "Traceback" not in message


@settings(deadline=None, max_examples=8)
@given(changes())
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_config_ends_in_a_message(several):
    check(several)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(deadline=None, max_examples=300)
@given(changes())
@pytest.mark.filterwarnings("ignore")
def test_wrong_configs_end_in_a_message(several):
    check(several)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_any_place_takes_any_hostile_value(value):
    for place in random.Random(repr(value)).sample(PLACES, 30):
        print(place)  # shown where it fails
        check([(place, "replace", value)])


@pytest.mark.parametrize("key", ["trainer", "checkpoint", "report"])
@pytest.mark.parametrize("value", [0, -0.5, [], "quick"])
def test_a_value_in_place_of_all_options_is_refused(tmp_path, value, key):
    code, message = ending(config_in(tmp_path) | {key: value}, tmp_path)
    assert code not in (0, None)
    assert key in message


@pytest.mark.parametrize("value", [0, 1.5, {}, "nothing", [0], [{}]])
def test_what_is_no_callback_ends_in_a_message(tmp_path, value):
    config = config_in(tmp_path)
    config["trainer"]["callbacks"] = value
    code, message = ending(config, tmp_path)
    assert code not in (0, None)
    assert "Traceback" not in message


def test_null_is_refused_by_name_wherever_no_option_takes_it(tmp_path):
    config = config_in(tmp_path)
    config["model"]["init_args"]["evaluation"]["init_args"]["repeats"] = None
    config["trainer"]["callbacks"][1]["init_args"]["rho"] = None
    code, message = ending(config, tmp_path)
    assert code not in (0, None)
    assert "trainer.callbacks[1].rho, model.evaluation.repeats, got null" in message


def test_the_config_itself_runs(tmp_path):
    assert ending(config_in(tmp_path), tmp_path)[0] in (0, None)
