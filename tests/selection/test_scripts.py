"""What the scripts behind the tables of selections keep, measure again and mark."""

from __future__ import annotations

import importlib
import json

import pytest

from lit_condense.selection import CRAIG, Herding, RandomSubset
from lit_condense.settings import settings_of
from tests.cli_helpers import REPOSITORY
from tests.helpers import TinyData


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """The scripts, writing into a folder of their own, with short evaluations."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    monkeypatch.chdir(tmp_path)
    table = importlib.import_module("run_selection")
    defaults = importlib.import_module("measure_selection_defaults")
    monkeypatch.setattr(table, "EPOCHS", 2)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "selection")
    monkeypatch.setitem(defaults.JUDGED, "0.2", (2, 2))
    monkeypatch.setattr(defaults, "RESULTS", tmp_path / "selection_defaults")
    monkeypatch.setattr(importlib.import_module("results_tables"), "RESULTS", tmp_path)
    return table, defaults, importlib.import_module("results_tables")


def measured(table, method, path, data):
    """The records after a measurement, and whether it wrote any."""
    before = path.read_text() if path.exists() else ""
    table.measure(data, "tiny", "0.2", 0, method)
    return json.loads(path.read_text()), path.read_text() != before


def test_a_selection_is_kept_by_its_indices_and_measured_again_only_under_other_settings(scripts, tmp_path):
    table, _, tables = scripts
    data, path = TinyData((20, 20)), tmp_path / "selection" / "tiny_0.2.json"
    assert tables.selection() == "Not measured yet."
    measured(table, RandomSubset, path, data)
    (random, craig), _ = measured(table, CRAIG, path, data)
    assert len(path.read_text().splitlines()) == 4
    for record in (random, craig):
        labels = data.real.labels[record["indices"]].tolist()
        assert (len(set(record["indices"])), labels) == (8, [0] * 4 + [1] * 4)
        assert record["data"]["test"]["images"] == len(data.test)
    assert (random["weights"], random["settings"]["weighted"]) == (None, False)
    assert (sum(craig["weights"]), craig["settings"]["weighted"]) == (40, True)
    assert craig["settings"]["proxy"]["init_args"]["epochs"] == 10
    assert not measured(table, CRAIG, path, data)[1]
    # records from before indices were kept, or of other settings
    for stale in ({k: v for k, v in craig.items() if k != "indices"}, {**craig, "settings": {}}):
        table.write(path, [random, stale])
        (_, again), written = measured(table, CRAIG, path, data)
        assert written
        assert (again["indices"], again["settings"]) == (craig["indices"], craig["settings"])
    rows = tables.selection().splitlines()
    assert rows[0] == "| method | tiny, 20 % |"
    assert rows[3].startswith("| `CRAIG`, weighted | ")


def test_random_is_beaten_by_more_than_the_standard_error(scripts, tmp_path):
    table, _, tables = scripts

    def records(method, *accuracies):
        return [{"method": method, "seed": s, "settings": {}, "accuracies": [a]} for s, a in enumerate(accuracies)]

    wide, clear = records("Wide", 0.30, 0.40, 0.59), records("Clear", 0.52, 0.53, 0.54)
    table.write(tmp_path / "selection" / "tiny_0.2.json", [*records("RandomSubset", 0.40, 0.42, 0.44), *wide, *clear])
    rows = tables.selection().splitlines()[2:]
    assert rows[1:] == ["| `Wide` | 43.0 +- 14.7 |", "| `Clear` | **53.0 +- 1.0** |"]


def test_the_table_of_settings_marks_the_default(scripts, tmp_path, monkeypatch):
    _, defaults, tables = scripts
    data = TinyData((20, 20))
    assert tables.selection_defaults() == "Not measured yet."
    nearest, farthest = defaults.Arm("nearest", Herding()), defaults.Arm("farthest", Herding("deepcore"))
    monkeypatch.setattr(tables, "ARMS", (nearest, defaults.Arm("not measured", Herding()), farthest))
    for arm in (farthest, nearest):
        defaults.measure(arm, "0.2", data)
        before = (tmp_path / "selection_defaults" / "cifar10_0.2.json").read_text()
        defaults.measure(arm, "0.2", data)
        assert (tmp_path / "selection_defaults" / "cifar10_0.2.json").read_text() == before
    header, _, first, second = tables.selection_defaults().splitlines()
    assert header == "| settings | cifar10, 20 % | right |"
    assert first.startswith("| `Herding`, nearest (default) | ")
    assert second.startswith("| `Herding`, farthest | ")
    records = json.loads((tmp_path / "selection_defaults" / "cifar10_0.2.json").read_text())
    assert all(0 <= record["right"] <= 1 and len(record["indices"]) == 8 for record in records)


def test_every_method_of_the_table_has_its_default_among_the_measured_settings(scripts):
    table, defaults, _ = scripts
    shown = [(settings_of(arm.selection), arm.weighted) for arm in defaults.ARMS]
    for method in table.METHODS:
        assert (settings_of(method()), method in table.WEIGHTED) in shown
    names = [(type(arm.selection), arm.name) for arm in defaults.ARMS]
    assert len(set(names)) == len(names)
