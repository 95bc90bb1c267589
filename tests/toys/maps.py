"""A quantity and the loss that reads it: mean feature maps of every convolution (as CAFE and DataDAM compare)."""

import torch
from torch import nn

from lit_condense.matching import MatchingLoss, Quantity, register


class FeatureMaps(Quantity):
    """What every convolution gives, by the name of the layer."""

    name = "feature_maps"

    def form(self, network, images, labels, create_graph):
        seen, layers = {}, {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
        hooks = [
            layer.register_forward_hook(lambda module, given, output, name=name: seen.update({name: output}))
            for name, layer in layers.items()
        ]
        try:
            network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


register(FeatureMaps())


class MapMatching(MatchingLoss):
    """Squared distance of the class's mean maps."""

    needs = frozenset({"feature_maps"})

    def loss(self, real, synthetic):
        pairs = zip(real["feature_maps"].values(), synthetic["feature_maps"].values(), strict=True)
        return torch.stack([(a.mean(1) - b.mean(1)).square().sum() for a, b in pairs]).sum()
