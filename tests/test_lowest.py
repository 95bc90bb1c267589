"""The lowest supported versions, as scripts/run_lowest.sh installs them."""

from __future__ import annotations

from importlib.metadata import requires

from packaging.requirements import Requirement

from scripts.lowest_versions import PYPROJECT, lowest


def test_every_dependency_has_its_floor_and_no_other_package_has():
    declared = [Requirement(line) for line in requires("lit_condense")]
    own = {one.name.lower(): one.specifier for one in declared if one.marker is None}
    floors = {name.lower(): version for name, version in lowest(PYPROJECT.read_text()).items()}
    assert set(floors) == set(own)
    for name, version in floors.items():
        assert version in own[name]
        assert f">={version}" in str(own[name])
