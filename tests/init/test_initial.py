from __future__ import annotations

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.init import Clustered, Noise, RandomReal
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, tiny_convnet

REAL = TinyData().real
KEY = RandomKey(0).fold("init")
IPC = (2, 1, 3, 4, 2)


def started(init, storage, ipc, key):
    return init.start(storage, REAL, ipc, tiny_convnet(), key)


@pytest.mark.parametrize("init", [Noise(), RandomReal()], ids=["noise", "real"])
@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_the_start_has_the_asked_images_and_follows_from_the_key(init, space):
    start = started(init, Pixels(space), IPC, KEY)
    assert start.shape == (12, 1, 8, 8)
    assert torch.equal(start, started(init, Pixels(space), IPC, KEY))
    assert not torch.equal(start, started(init, Pixels(space), IPC, KEY.fold(1)))


@pytest.mark.parametrize("init", [Noise(), RandomReal()], ids=["noise", "real"])
def test_a_class_does_not_depend_on_the_sizes_of_the_others(init):
    before = started(init, Pixels(), IPC, KEY)[2 + 1 :][:3]
    after = started(init, Pixels(), (1, 4, 3, 1, 1), KEY)[1 + 4 :][:3]
    assert torch.equal(before, after)


def test_noise_differs_between_classes():
    start = started(Noise(), Pixels(), (1,) * 5, KEY)
    assert all(not torch.equal(start[a], start[b]) for a in range(5) for b in range(a))


@pytest.mark.parametrize("init", [RandomReal(), Clustered()], ids=["random", "clustered"])
@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_real_starts_are_different_real_images_of_each_class(space, init):
    storage = Pixels(space)
    start = storage.decode(started(init, storage, IPC, KEY), REAL.normalization)
    distances = (start[:, None] - REAL.at(torch.arange(len(REAL)))).abs().amax((2, 3, 4))
    nearest = distances.min(1)
    assert nearest.values.max() < 1e-5
    assert len(set(nearest.indices.tolist())) == len(start)
    assert torch.equal(REAL.labels[nearest.indices], torch.repeat_interleave(torch.arange(5), torch.tensor(IPC)))


def test_an_unknown_seeding_of_k_means_is_refused():
    with pytest.raises(SettingsError, match=r"Clustered\.seeding"):
        Clustered(seeding="first")


def test_asking_for_more_real_images_than_a_class_has_names_the_class():
    with pytest.raises(SettingsError, match=r"5 distinct .*class 3 \(stripe 3\), which has 4"):
        started(RandomReal(), Pixels(), (5,) * 5, KEY)
