"""An inner loop with two networks, of which one is new every other update."""

from lit_condense.inner import InnerLoop


class Twins(InnerLoop):
    """Match on an older and a younger network; train both on the set, and say their last loss."""

    def __init__(self, updates=2, lr=0.05):
        super().__init__(lr, momentum=0.5)
        self.updates = updates
        self._losses = {}

    def updates_per_network(self, ipc):
        return self.updates

    def networks(self, update, updates_per_network):
        older = update // updates_per_network
        return [older, older + 1]

    def numbers(self, inner, context, progress):
        return {"loss": self._losses.get(progress.network_index, 0.0)}

    def advance(self, inner, context, progress, key):
        inner.train_step(context.loss, context.images, context.targets)
        self._losses[progress.network_index] = float(context.loss(context.images, context.targets).detach())

    def state_dict(self):
        return {"losses": dict(self._losses)}

    def load_state_dict(self, state):
        self._losses = dict(state["losses"])
