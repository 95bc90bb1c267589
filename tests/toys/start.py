"""A start: the mean image of a class."""

import torch

from lit_condense.init import Initialization


class MeanImage(Initialization):
    """Every image of a class starts from the class's mean."""

    keyed = True

    def start(self, parametrization, real, ipc, network, key):
        means = [real.pixels_at(real.indices_of(c)).mean(0, keepdim=True).cpu() for c in range(real.num_classes)]
        return torch.cat(
            [parametrization.encode(m, real.normalization).repeat(n, 1, 1, 1) for m, n in zip(means, ipc, strict=True)]
        )
