from __future__ import annotations

import pytest

from lit_condense.rng import RandomKey


@pytest.fixture(autouse=True)
def same_draws_every_time(request):
    """Layers draw their weights from the global generators: seed those, each test by its own name."""
    with RandomKey(0).fold(request.node.nodeid).isolated():
        yield
