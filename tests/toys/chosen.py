"""A selection: the images that a network is surest of."""

from lit_condense.selection import Choice, Selection


class Surest(Selection):
    """Keep the candidates whose own logit is largest."""

    def choose(self, candidates, count, key):
        own = candidates.view.logits.gather(1, candidates.labels[:, None]).flatten()
        return Choice(own.argsort(descending=True, stable=True)[:count].cpu())
