"""The image gradient of an update is the literal one for any classes, images, blocks and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.augmentation import NoAugmentation
from lit_condense.engine import Engine
from lit_condense.matching import ClassMeanGradientMatching, GradientMatching, Progress
from lit_condense.networks import build_network
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from lit_condense.synthetic import Gatherer, match
from tests.helpers import TinyData, tiny_convnet
from tests.methods.helpers import Parts
from tests.oracles import methods

LOSSES = [GradientMatching("row_cosine_norm", name="intra"), ClassMeanGradientMatching("row_cosine_norm", name="inter")]


@dataclass(frozen=True)
class Case:
    real: tuple[int, ...]
    """Real images of each class."""
    ipc: tuple[int, ...]
    shape: tuple[int, int, int]
    batch: int
    per_block: int | None
    ranks: int
    chunk: int | None


@st.composite
def cases(draw):
    """Unequal classes, some smaller than the batch; images down to 2x2 and not square; more ranks than classes."""
    classes = draw(st.integers(2, 5))
    several = {"min_size": classes, "max_size": classes}
    side, few, maybe = st.integers(2, 9), st.integers(1, 4), st.none() | st.integers(1, 6)
    return Case(
        real=tuple(draw(st.lists(st.integers(1, 7), **several))),
        ipc=tuple(draw(st.lists(few, **several))),
        shape=(draw(st.integers(1, 3)), draw(side), draw(side)),
        batch=draw(st.integers(1, 8)),
        per_block=draw(maybe),
        ranks=draw(st.integers(1, 6)),
        chunk=draw(maybe),
    )


def gathered(case):
    """What an update sees, and the network that it is matched on."""
    data = TinyData(case.real, case.shape[0], case.shape[1:]).real
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(sum(case.ipc), *case.shape, generator=generator, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(len(case.ipc)), torch.tensor(case.ipc))
    sampling = RandomSampling(case.batch)
    gather = Gatherer(data, stored, labels, case.ipc, sampling, Pixels(), NoAugmentation(), RandomKey(3), 2)
    factory = tiny_convnet(width=2, depth=1)
    return gather, build_network(factory, case.shape[0], case.shape[1:], len(case.ipc), RandomKey(2)).double()


@settings(deadline=None, max_examples=15)
@given(cases())
def test_the_image_gradient_is_the_literal_one(case):
    gather, network = gathered(case)
    real = [gather.block([c]).real_images[0] for c in range(len(case.ipc))]
    largest = max(real, key=len)
    running = Engine("exact", "never", classes_per_block=case.per_block, real_chunk=case.chunk).start(
        network, largest, synthetic_images=case.ipc[0]
    )

    def update(share):
        return match(running, gather, share, LOSSES, Progress(2, 1, 0))

    results = Parts(case.ranks).run(update)
    found = sum(result.gradients["images"] for result in results)
    losses = sum(sum(result.losses.values()) for result in results)
    terms = [(1.0, methods.egm(len(case.ipc)))]
    (value,), wanted = methods.image_gradient(network, gather.stored, gather.labels, real, terms)
    torch.testing.assert_close(losses, torch.tensor(value, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10 * float(1 + wanted.abs().max()))
