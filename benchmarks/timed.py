"""A method's updates one at a time after a fit of one update, with the seconds of each part told apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import quiet_trainer
from lit_condense import SyntheticSet
from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.augmentation.base import Draw
from lit_condense.data import CondenseDataModule
from lit_condense.engine import Engine
from lit_condense.matching import MatchingLoss, Progress
from lit_condense.matching.base import needs_of

PARTS = ("augmentation", "sampling", "inner")
"""What is timed apart; the rest of a training step is the matching update."""


class Parts:
    """Seconds spent in the parts of an update; a part inside another one belongs to the outer one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._running = False

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        if self._running:
            yield
            return
        self._running, started = True, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - started
            self._running = False

    def around(self, part: str, owner: object, *names: str) -> None:
        """Time these methods of one object from now on."""
        for name in names:
            setattr(owner, name, self._timed(part, getattr(owner, name)))

    def around_augmentation(self, augmentation: Augmentation) -> None:
        """Time an augmentation in both directions: hooks see a gradient reach its end and leave its start."""
        self.around("augmentation", augmentation, "draw", "apply")
        forward = augmentation.apply

        def apply(images: Any, draw: Draw) -> Any:
            augmented: Any = forward(images, draw)
            if augmented.requires_grad and augmented is not images:
                started: list[float] = []
                augmented.register_hook(lambda _: started.append(time.perf_counter()))
                images.register_hook(lambda _: self._add("augmentation", time.perf_counter() - started.pop()))
            return augmented

        vars(augmentation)["apply"] = apply

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **keywords: Any) -> Any:
            with self.timing(part):
                return function(*args, **keywords)

        return timed

    def _add(self, part: str, seconds: float) -> None:
        self.seconds[part] += seconds


class Run:
    """A set after its first update, which compiled what is compiled; goes on one update at a time.

    Args:
        module: As users configure it.
        losses: The matching losses.
        data: The real images.
    """

    def __init__(self, module: SyntheticSet, losses: Sequence[MatchingLoss], data: CondenseDataModule) -> None:
        self.module = module
        trainer = quiet_trainer(1, losses)
        trainer.fit(module, datamodule=data)
        logged = trainer.callback_metrics
        self.first_update = float(logged["time/match"]) + float(logged["time/inner"])
        self.parts = Parts()
        self.parts.around("sampling", module.sampling, "refresh", "select")
        self.parts.around("inner", module.inner, "advance")
        self.parts.around("inner", module.inner_network, "renew")
        self.parts.around_augmentation(module.augmentation)
        for name in ("log", "log_dict"):  # outside of a fit Lightning refuses to log
            setattr(module, name, _no_log)

    def turn(self, update: int) -> dict[str, float]:
        """Do an update and return the seconds of the matching update and of each part."""
        self.parts.seconds = dict.fromkeys(PARTS, 0.0)
        started = time.perf_counter()
        self.module.training_step(update, 0)
        total = time.perf_counter() - started
        seconds = {"update": total - sum(self.parts.seconds.values()), **self.parts.seconds}
        return {part: round(value, 6) for part, value in seconds.items()}


def gflop_of(module: SyntheticSet) -> float:
    """Return the arithmetic of a matching update: eager, float32, without augmentation; a multiply-add counts 2."""
    kept = module._matcher.engine, module.augmentation
    batch = module.images.new_zeros(module.sampling.batch_size, *module.images.shape[1:])
    needs = needs_of(module.matching_losses) | module.sampling.needs
    module._matcher.engine = Engine("exact", "never", record=False).start(module.inner_network.network, batch, needs)
    module.augmentation = NoAugmentation()
    counter = FlopCounterMode(display=False)
    with counter:
        module._matcher.on(Progress(1, module.inner_network.index, 1))
    module._matcher.engine, module.augmentation = kept
    return round(counter.get_total_flops() / 1e9, 6)


def _no_log(*_: Any, **__: Any) -> None:
    pass
