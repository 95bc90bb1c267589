"""An inner loop with several networks, as small as it can be: one file, no other place knows of it."""

from __future__ import annotations

import torch

from lit_condense.inner import InnerLoop
from lit_condense.matching import GradientMatching


class TwoOfThree(InnerLoop):
    """Three networks, first in first out; two are matched on, one is trained, and their accuracy is said.

    Args:
        updates: Updates between two new networks.
        size: Networks that are alive.
        lr: Learning rate.
        momentum: Momentum.
    """

    def __init__(self, updates=2, size=3, lr=0.05, momentum=0.9):
        super().__init__(lr, momentum)
        self.updates, self.size = updates, size
        self.steps = 0

    def updates_per_network(self, ipc):
        return self.updates

    def alive(self, update, updates_per_network):
        first = update // updates_per_network
        return list(range(first, first + self.size))

    def networks(self, update, updates_per_network):
        alive = self.alive(update, updates_per_network)
        return [alive[update % self.size], alive[(update + 1) % self.size]]

    def trained_after(self, update, updates_per_network):
        return self.alive(update + 1, updates_per_network)[:1] if (update + 1) % updates_per_network else []

    def numbers(self, inner, context, progress):
        with torch.no_grad():
            found = inner.network(context.images).argmax(1)
        return {"accuracy": float((found == context.labels).double().mean()), "steps": self.steps}

    def advance(self, inner, context, progress, key):
        self.steps += 1
        inner.train_step(context.loss, context.images, context.targets)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class ByAccuracy(GradientMatching):
    """A gradient distance that counts more the better a network does."""

    def __init__(self, name=None):
        super().__init__(name=name)
        self.asked = []

    def weight_at(self, progress):
        self.asked.append(dict(progress.numbers))
        return 1.0 + progress.numbers.get("accuracy", 0.0)
