"""The only file that makes generators or touches the global ones.

Randomness is *keyed*, not streamed: every draw names what it is for, for instance
``key.fold("real", update, class_index).generator()``. The same key gives the same draw on every rank, after every
resume and whatever was drawn before, so no generator state is ever stored. A key never holds a rank or a block index:
cutting the work differently must not change the draws.
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
        """Return this key's 63-bit number, the same on every machine."""
        text = repr((self.seed, *self.path)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1

    def generator(self) -> torch.Generator:
        """Return a fresh CPU generator. Draw on the CPU and move the result, so that devices agree."""
        return torch.Generator().manual_seed(self.number())

    @contextlib.contextmanager
    def isolated(self) -> Iterator[None]:
        """Seed the global generators inside the block and restore them after it.

        For code that insists on them: layer construction, dropout, ``iter(DataLoader)``.
        """
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is what we restore
        with _torch_generators_seeded(self.number()):
            random.seed(self.number())
            np.random.seed(self.number() % 2**32)  # noqa: NPY002
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def _torch_generators_seeded(number: int) -> Iterator[None]:
    """Seed PyTorch's global generators inside the block and restore them after it.

    ``torch.manual_seed`` formats a stack trace for every kind of accelerator, also where there is none: a millisecond,
    a quarter of a small update. Without an accelerator the CPU's generator is all there is.
    """
    if _accelerated():
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            torch.manual_seed(number)
            yield
        return
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        torch.set_rng_state(state)


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
