"""An image update over five tiny classes: the same images and network for the engine and for the oracles, float64."""

from __future__ import annotations

import functools

import torch

from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.data import Normalization, TensorImages
from lit_condense.engine import Engine
from lit_condense.matching import Progress
from lit_condense.matching.base import needs_of
from lit_condense.networks import build_network
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import Sampling
from lit_condense.sharding import Share
from lit_condense.synthetic import Gatherer, match
from tests.helpers import DOUBLE, Recorder, TinyData, fitted, tiny_convnet

CLASSES = 5
REAL_COUNTS = (6, 6, 6, 4, 6)
"""Class 3 is smaller than the real batch of 6."""
EQUAL, UNEQUAL = (3,) * CLASSES, (2, 2, 3, 2, 2)
NOW = Progress(7, 1, 2)
NORMALIZATION = Normalization((0.4, 0.6), (0.3, 0.2))
PRECISION = {"rtol": 1e-10, "atol": 1e-14}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(ipc):
    return torch.repeat_interleave(torch.arange(len(ipc)), torch.tensor(ipc))


def stored_of(ipc, seed=1):
    return noise(sum(ipc), 2, 8, 8, seed=seed)


@functools.cache
def real_of(counts=REAL_COUNTS):
    return [noise(count, 2, 8, 8, seed=10 + c) for c, count in enumerate(counts)]


@functools.cache
def network_of(norm="instance"):
    """A network with values nowhere at their start."""
    network = build_network(tiny_convnet(norm), 2, (8, 8), CLASSES, RandomKey(2)).double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data += 0.1 * noise(*parameter.shape, seed=number)
    return network


class Parts:
    """What the ranks of a run hand to a sum: the first pass writes down, the second hands out the total."""

    def __init__(self, world_size):
        self.world_size, self.sums = world_size, []

    def share(self, rank):
        parts = self

        class Stub(Share):
            def sum(self, values):
                return parts.next(rank, values)

        return Stub(rank, self.world_size)

    def next(self, rank, values):
        position = self.calls[rank]
        self.calls[rank] += 1
        if self.known is not None:
            return self.known[position].clone()
        self.sums += [0] * (position + 1 - len(self.sums))
        self.sums[position] = self.sums[position] + values
        return values

    def run(self, work):
        """Return ``work(share)`` of each rank, where every sum over ranks is the sum over ranks."""
        self.known = None
        self.calls = [0] * self.world_size
        for rank in range(self.world_size):
            work(self.share(rank))
        self.known = self.sums
        self.calls = [0] * self.world_size
        return [work(self.share(rank)) for rank in range(self.world_size)]


class NormalisedImages(TensorImages):
    """Images of each class in float64, given as the network sees them."""

    def __init__(self, images):
        labels = labels_of([len(one) for one in images])
        self.normalised = torch.cat(images)
        nothing = torch.zeros(self.normalised.shape, dtype=torch.uint8)
        super().__init__(nothing, labels, len(images), NORMALIZATION, [f"class {c}" for c in range(len(images))])

    def at(self, indices):
        return self.normalised[indices]


class WholeClasses(Sampling):
    """Every image of a class, in order."""

    def size(self, real, class_index):
        return real.class_sizes[class_index]

    def select(self, real, class_index, key):
        return real.indices_of(class_index)


def matched(
    network,
    losses,
    per_block=1,
    ipc=UNEQUAL,
    counts=REAL_COUNTS,
    storage=None,
    ranks=1,
    progress=NOW,
    engine=None,
):
    """Return each loss summed over the ranks, and the image gradient, of an update."""
    real, stored = NormalisedImages(real_of(counts)), stored_of(ipc)
    draws = (WholeClasses(), storage or Pixels(), NoAugmentation(), RandomKey(0), progress.update)
    gatherer = Gatherer(real, stored, labels_of(ipc), ipc, *draws)
    engine = engine or Engine("exact", "never", classes_per_block=per_block)
    running = engine.start(network, real_of(counts)[0], needs_of(losses))
    results = Parts(ranks).run(lambda share: match(running, gatherer, share, losses, progress))
    values = {loss.tag: sum(float(result.losses[loss.tag]) for result in results) for loss in losses}
    return values, sum(result.gradients["images"] for result in results)


# ------------------------------------------------------------------ through a whole run

SEED = 3
REAL_BATCH = 6


def one_update(*losses, **settings):
    """Return the image gradient of a run's first update, in float64, its first images, and its module."""
    recorder, sgd = Recorder(), functools.partial(torch.optim.SGD, lr=1.0)
    settings = {"seed": SEED, "ipc": 2, **settings}
    module = fitted(*losses, recorder, max_steps=1, trainer=DOUBLE, optimizer=sgd, **settings)
    return recorder.images[0] - recorder.images[1], recorder.images[0], module


class KeyedDraws:
    """The draws of a run on TinyData, by the keys that name them."""

    def __init__(self, data=None, factory=None, seed=SEED):
        self.key, self.store, self.factory = RandomKey(seed), (data or TinyData()).real, factory or tiny_convnet()

    def network(self, index=0):
        channels, height, width = self.store.image_shape
        key = self.key.fold("network", index)
        return build_network(self.factory, channels, (height, width), self.store.num_classes, key).double()

    def real(self, update=0):
        """One random batch a class."""
        key = self.key.fold("real", update)
        classes = range(self.store.num_classes)
        return [self.store.at(self.store.random_of_class(c, REAL_BATCH, key.fold(c))).double() for c in classes]

    def normalised(self, pixels):
        used = self.store.normalization
        mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (used.mean, used.std))
        return (pixels - mean) / std


class Recording(Augmentation):
    """Another augmentation, whose draws are kept by the paths of their keys."""

    def __init__(self, other):
        self.other, self.draws = other, {}

    def draw(self, key, image_size, samples):
        # losses of a mean ask for a block twice: the second draw is the first one again
        self.draws[key.path] = self.other.draw(key, image_size, samples)
        return self.draws[key.path]

    def matching(self, c, images, update=0):
        """Images under the one draw of a class in an update."""
        return self.apply(images, self.draws["augment", update, c])
