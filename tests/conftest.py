"""What all tests share."""

import os

# Lightning 2.6 calls names that jsonargparse has renamed since, which it says once a process: in any test.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# Tests that run side by side share the cores, and so do the processes that they start.
SIDE_BY_SIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if SIDE_BY_SIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // SIDE_BY_SIDE)))

import pytest  # noqa: E402 - the settings above come first
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _threads_stay_as_they_are():
    """A test that leaves another number of threads behind changes the last digits of all after it."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
