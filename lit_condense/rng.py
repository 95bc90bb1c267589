"""The only file that makes generators or touches the global ones.

Randomness is *keyed*, not streamed: every draw names what it is for, for instance
``key.fold("real", update, class_index).generator()``. The same key gives the same draw on every rank, after every
resume and whatever was drawn before, so no generator state is ever stored. A key never holds a rank or a block index:
cutting the work differently must not change the draws.

Draws of different keys are independent although a run makes millions of them: the whole state of a CPU generator, a
Mersenne Twister of 624 words, is filled from the key. A seed would not do, because PyTorch uses 32 bits of it: among
six million seeds thousands of pairs would be the same draw.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lit_condense.errors import SettingsError

TWISTER_WORDS = 624
"""Words of 32 bits that a Mersenne Twister consists of (Matsumoto and Nishimura, 1998)."""

WORDS_AT = 24
"""Where they stand, as 64-bit numbers, in the bytes of a PyTorch CPU generator's state; checked before first use."""

PURPOSES = {
    "network": "weights of inner network i",
    "init": "what the images start from",
    "update": "foreign layers and code in image update u",
    "sampling": "how a sampling looks at the inner network in update u",
    "real": "real images of class c in update u",
    "augment": "the one augmentation of both sides of class c in update u",
    "decoded": "which decoded images of class c update u matches",
    "layers": "layers that draw, in update u (and class c)",
    "statistics": "real images behind the frozen batch norm of update u",
    "inner": "training of network n after its match m",
    "pool": "which networks of a pool update u is matched on, and which are trained after it",
    "walk": "the order of batches that go through an epoch",
    "whole": "what a loss on the whole set draws in update u, on network n",
    "share": "looks at the losses' shares in update u",
    "shape": "an example batch, for its shape",
    "selection": "which real images are kept",
    "scoring": "weights and batches of proxy model i",
    "evaluation": "evaluation network i of an architecture",
    "expert": "weights, batches and augmentation of expert i",
    "baseline": "real images of a baseline",
    "trial": "what is tried before the first update",
}
"""The first word of every draw's path below the run's key -> what is drawn. A closed list, held by a test: two purposes
of one name would be one draw. Further words and numbers say which."""


@dataclass(frozen=True)
class RandomKey:
    """A name for a random draw: the run's seed and the path that leads to the draw.

    Args:
        seed: The run's seed.
        path: What the draw is for, as strings and whole numbers.
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def fold(self, *parts: str | int) -> RandomKey:
        """Return the key one level (or several) below this one."""
        return RandomKey(self.seed, self.path + parts)

    def number(self) -> int:
        """Return this key's 64-bit number, the same on every machine."""
        return int.from_bytes(hashlib.blake2b(self._text(), digest_size=8).digest(), "big")

    def generator(self) -> torch.Generator:
        """Return a fresh CPU generator. Draw on the CPU and move the result, so that devices agree."""
        generator = torch.Generator()
        generator.set_state(self.state())
        return generator

    def state(self) -> torch.Tensor:
        """Return the state of this key's CPU generator, as ``torch.Generator.set_state`` takes it."""
        state = _empty_state().copy()
        state[:8].view(np.uint64)[0] = self.number()  # what initial_seed() says
        _words_in(state)[:] = self._words()
        return torch.from_numpy(state)

    def _text(self) -> bytes:
        return repr((self.seed, *self.path)).encode()

    def _words(self) -> NDArray[np.uint32]:
        return np.frombuffer(hashlib.shake_256(self._text()).digest(4 * TWISTER_WORDS), dtype="<u4")

    @contextlib.contextmanager
    def isolated(self) -> Iterator[None]:
        """Seed the global generators inside the block and restore them after it.

        For code that insists on them: layer construction, dropout, ``iter(DataLoader)``.
        """
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is what we restore
        words = self._words()
        with _torch_generators_seeded(self):
            random.seed(words.tobytes())
            np.random.set_state(("MT19937", words, TWISTER_WORDS, 0, 0.0))  # noqa: NPY002
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def _torch_generators_seeded(key: RandomKey) -> Iterator[None]:
    """Seed PyTorch's global generators inside the block and restore them after it.

    ``torch.manual_seed`` formats a stack trace for every kind of accelerator, also where there is none: a millisecond,
    a quarter of a small update. Without an accelerator the CPU's generator is all there is.
    """
    if _accelerated():
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            torch.manual_seed(key.number())  # an accelerator's counter-based generator takes all 64 bits
            torch.set_rng_state(key.state())
            yield
        return
    state = torch.get_rng_state()
    torch.set_rng_state(key.state())
    try:
        yield
    finally:
        torch.set_rng_state(state)


@functools.cache
def _empty_state() -> NDArray[np.uint8]:
    """Return the bytes of the state of a CPU generator from which nothing has been drawn, to be filled with words.

    Raises:
        SettingsError: This PyTorch lays the state out differently.
    """
    state: NDArray[np.uint8] = torch.Generator().manual_seed(0).get_state().numpy()
    expected = np.random.RandomState(0).get_state(legacy=False)["state"]["key"]
    if len(state) < WORDS_AT + 8 * TWISTER_WORDS or (_words_in(state) != expected).any():
        raise SettingsError(
            "Expected the state of a CPU generator to be a Mersenne Twister as PyTorch 2.6 to 2.14 lay it out, "
            f"PyTorch {torch.__version__} has another. Use one of those."
        )
    return state


def _words_in(state: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the words inside the bytes of a generator's state, as a view."""
    return state[WORDS_AT : WORDS_AT + 8 * TWISTER_WORDS].view(np.uint64)


def global_state() -> tuple[list[int], object, str]:
    """Return the state of every global generator of the CPU, to see whether something has drawn."""
    numpy_state = repr(np.random.get_state(legacy=False))  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numpy_state


@functools.cache
def _accelerated() -> bool:
    """Whether there is more than the CPU; asking takes as long as a small convolution."""
    return torch.accelerator.is_available()


def run_seed(seed: int | None) -> int:
    """Return ``seed``, or the number given to ``lightning.seed_everything`` (``--seed_everything``), or 0."""
    if seed is not None:
        return seed
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
