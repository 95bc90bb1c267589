"""How several evaluation networks are trained: which strategy, by a fixed table, and each strategy's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from lit_condense.data.real_images import RealImages
from lit_condense.engine.compilation import Clock
from lit_condense.engine.execution_plan import RECORDED
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward, images_are_independent, per_image
from lit_condense.evaluation.protocols import Recipe
from lit_condense.evaluation.stacked import can_be_stacked, train_stacked
from lit_condense.evaluation.training import LabelledImages, batches_of, test_accuracy, train_network
from lit_condense.rng import RandomKey, global_state
from lit_condense.runs.memory import keep_small_blocks

Strategy = Literal["stacked", "threads", "compiled", "recorded", "alone"]
"""``stacked``: many in one; ``threads``: one on each core; ``compiled``, ``recorded`` (a GPU replays its steps) and
``alone``: one after the other."""

COMPILE_FROM_GFLOP = {"cpu": 1e3, "cuda": 1e6}
"""Forward cost of all trainings from which compiling the loss pays."""

STACK_BELOW_GFLOP = {"cpu": 0.006}
"""Forward cost of a batch below which stacking wins: at 10 images of 8x8 pixels on two cores 3.5 times as fast as the
reference loop, where threads are 1.6 times (``benchmarks/evaluation.py``); no faster than threads at 30. Not measured
on a GPU."""

STACK_FROM = 4
"""Networks from which stacking wins."""

STACKED_AT_ONCE = 20

THREADED_AT_ONCE = 4
"""Networks of a group for each core: at the end of a group, cores wait for the last network."""


def strategy_for(
    device: str, batch_gflop: float, steps: int, networks: int, cores: int, independent: bool = True
) -> Strategy:
    """Return the strategy for so many trainings, if the architecture allows it.

    Args:
        device: Type of the device.
        batch_gflop: Forward cost of a training batch.
        steps: Of each training.
        networks: To be trained, on all ranks.
        cores: Threads that PyTorch may use here.
        independent: Whether layers neither draw nor use the statistics of their batch.
    """
    if batch_gflop * steps * networks >= COMPILE_FROM_GFLOP.get(device, float("inf")):
        return "compiled"
    if device in RECORDED and independent:
        return "recorded"
    if networks >= STACK_FROM and batch_gflop < STACK_BELOW_GFLOP.get(device, 0.0):
        return "stacked"
    if device == "cpu" and networks > 1 and cores > 1:
        return "threads"
    return "alone"


def chosen_strategy(build: Callable[[RandomKey], nn.Module], images: Tensor, steps: int, networks: int) -> Strategy:
    """Return the strategy for so many trainings that the architecture allows.

    Args:
        build: Makes a network, on the device of the images.
        images: A training batch ``(n, C, H, W)``.
        steps: Of each training.
        networks: To be trained, on all ranks.
    """
    one, other = (build(RandomKey(0, ("trial", i))) for i in range(2))
    gflop = per_image(one, images)[0] * len(images)
    independent = images.device.type in RECORDED and images_are_independent(one, images[0])
    strategy = strategy_for(images.device.type, gflop, steps, networks, torch.get_num_threads(), independent)
    if strategy == "stacked" and not can_be_stacked([one, other], images):
        strategy = "threads"
    if strategy == "threads" and draws(other, images):
        strategy = "alone"  # what draws shares the global generators
    return strategy


@dataclass(frozen=True)
class Trainings:
    """Fresh networks of one architecture, trained on sets of one size and tested."""

    build: Callable[[RandomKey], nn.Module]
    """Makes a network, on the device of the sets."""
    recipe: Recipe
    test: RealImages
    max_steps: int | None
    steps: int
    """Of each training."""
    strategy: Strategy
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def planned(
        cls,
        build: Callable[[RandomKey], nn.Module],
        recipe_of: Callable[[nn.Module], Recipe],
        data: LabelledImages,
        test: RealImages,
        networks: int,
        max_steps: int | None,
    ) -> Trainings:
        """Choose the strategy.

        Args:
            build: As above.
            recipe_of: Gives the recipe for a network.
            data: What a network is trained on.
            test: As above.
            networks: To be trained, on all ranks.
            max_steps: Fewer steps than the recipe's.
        """
        one = build(RandomKey(0, ("trial", 0)))
        recipe = recipe_of(one)
        steps, _ = recipe.capped(batches_of(data, recipe), max_steps)
        images = data.at(torch.arange(min(len(data.labels), recipe.batch_size)))
        strategy = chosen_strategy(build, images, steps, networks)
        return cls(build, recipe, test, max_steps, steps, strategy)

    @property
    def group_size(self) -> int:
        """How many networks make a group."""
        threaded = THREADED_AT_ONCE * torch.get_num_threads()
        return {"stacked": STACKED_AT_ONCE, "threads": threaded}.get(self.strategy, 1)

    def groups(self, count: int) -> list[range]:
        """Return which of so many networks are trained together."""
        return [range(start, min(start + self.group_size, count)) for start in range(0, count, self.group_size)]

    def accuracies(self, keys: Sequence[RandomKey], sets: Sequence[LabelledImages]) -> list[float]:
        """Return the test accuracies of the networks of a group.

        Args:
            keys: Names the networks.
            sets: What each is trained on.
        """
        networks = [self.build(key) for key in keys]
        if self.strategy == "recorded":
            host, loss = self._host
            host.load_state_dict(networks[0].state_dict())
            train_network(host, sets[0], self.recipe, keys[0], self.max_steps, loss)
            return [test_accuracy(host, self.test)]
        if self.strategy == "stacked":
            train_stacked(networks, sets, self.recipe, keys, self.max_steps)
            return [test_accuracy(network, self.test) for network in networks]

        def one(i: int) -> float:
            loss = FirstOrderLoss(Forward(networks[i], "exact"), self.strategy == "compiled", self.clock)
            train_network(networks[i], sets[i], self.recipe, keys[i], self.max_steps, loss)
            return test_accuracy(networks[i], self.test)

        if self.strategy == "threads":
            return in_threads(one, len(networks))
        with keys[0].fold("layers").isolated():  # dropout and the like draw from the global generators
            return [one(0)]

    @cached_property
    def _host(self) -> tuple[nn.Module, FirstOrderLoss]:
        """The network whose steps are recorded: all others lend it their weights."""
        network = self.build(RandomKey(0, ("host",)))
        return network, FirstOrderLoss(Forward(network, "exact"), compiled=False, recorded=True)


Result = TypeVar("Result")


def in_threads(work: Callable[[int], Result], count: int) -> list[Result]:
    """Return ``work(0)`` to ``work(count - 1)``, each computed by one thread on one core.

    Small networks keep one core busy, not several. The results do not depend on how many run beside each other. A
    thread starts without Lightning's inference mode and autocast.
    """
    cores = torch.get_num_threads()
    keep_small_blocks()
    try:
        with ThreadPoolExecutor(min(count, cores), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, range(count)))
    finally:
        torch.set_num_threads(cores)


def draws(network: nn.Module, images: Tensor) -> bool:
    """Return whether a forward pass in training mode draws from a global generator."""
    with RandomKey(0, ("draws",)).isolated(), torch.no_grad():
        before = global_state()
        network.train()(images)
        return before != global_state()
