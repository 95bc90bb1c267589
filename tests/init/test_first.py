from __future__ import annotations

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.init import FirstReal
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, tiny_convnet

REAL = TinyData((9, 8, 12)).real
IPC = (2, 1, 3)


def started(storage, ipc=IPC, seed=0):
    return FirstReal().start(storage, REAL, ipc, tiny_convnet(), RandomKey(seed))


@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_a_class_starts_from_its_first_images_in_their_order(space):
    start = started(Pixels(space))
    chosen = [i for c, count in enumerate(IPC) for i in (REAL.labels == c).nonzero().flatten().tolist()[:count]]
    wanted = REAL.pixels_at(torch.tensor(chosen)) if space == "pixel" else REAL.at(torch.tensor(chosen))
    assert torch.equal(start, wanted)
    assert torch.equal(start, started(Pixels(space), seed=1))


def test_cells_are_packed_from_the_first_images():
    start = started(MultiFormation(2))
    members = (REAL.labels == 2).nonzero().flatten()[:12]
    shrunk = REAL.pixels_at(members)[:, :, ::2, ::2]
    # block k of the class's images fills cell k
    assert torch.equal(start[3:, :, :4, 4:], shrunk[3:6])
    assert torch.equal(start[3:, :, 4:, 4:], shrunk[9:12])


def test_too_few_images_name_the_class():
    with pytest.raises(SettingsError, match=r"9 distinct real images to start class 1 \(stripe 1\), which has 8"):
        started(Pixels(), (1, 9, 1))
