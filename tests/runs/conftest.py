from __future__ import annotations

import pytest

from tests.cli_helpers import cli, write_config


@pytest.fixture(scope="package")
def straight(tmp_path_factory):
    """A run of 8 updates that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    cli("fit", *write_config(folder), "--trainer.max_steps", "8", "--trainer.val_check_interval", "100")
    return folder / "tiny"
