"""The inner network's forward pass in the precision of a run."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_condense.networks import FeaturesAndLogits, evaluating
from lit_condense.rng import RandomKey

Mode = Literal["exact", "fast"]


class Forward:
    """From images to features and logits.

    Args:
        network: One module object for the whole run (its weights are overwritten for each new inner network), so that
            a compiled region is compiled once.
        mode: ``exact`` computes in the network's own precision; ``fast`` computes the layers in bfloat16 and keeps
            weights, their gradients and whatever follows the logits in float32. Double precision stays as it is.
        outputs: Gives the features too, where a run reads them.
    """

    def __init__(self, network: nn.Module, mode: Mode, outputs: FeaturesAndLogits | None = None) -> None:
        self.network = network
        self.mode = mode
        self.outputs = outputs

    def __call__(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return features ``(n, d)``, if there are any, and logits ``(n, classes)`` in the images' type."""
        features = None
        low_precision = self.mode == "fast" and images.dtype == torch.float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low_precision):
            if self.outputs is None:
                logits = self.network(images)
            else:
                features, logits = self.outputs(images)
                features = features.to(images.dtype)
        return features, logits.to(images.dtype)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Keep convolutions on a GPU from rounding to TF32, which PyTorch lets them do; matrix products it does not."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def per_image(network: nn.Module, images: Tensor) -> tuple[float, int]:
    """Return the cost of a forward pass of one image in GFLOP (a multiply-add counts 2), and its largest feature map.

    Args:
        network: Any.
        images: ``(n, C, H, W)``; one is looked at.
    """
    largest = images[0].numel()

    def look(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [layer.register_forward_hook(look) for layer in network.modules()]
    counter = FlopCounterMode(display=False)
    try:
        with evaluating(network), torch.no_grad(), counter:
            network(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() / 1e9, largest


def images_are_independent(network: nn.Module, like: Tensor) -> bool:
    """Return whether the outputs of a batch are those of its halves: no layer draws or uses the batch's statistics.

    Args:
        network: In training mode, which it keeps.
        like: An image ``(C, H, W)``, for its shape, type and device; the trial is made on noise.
    """
    mixing = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    if any(isinstance(layer, mixing) for layer in network.modules()):
        return False
    key = RandomKey(0, ("independent",))
    noise = torch.randn(4, *like.shape, generator=key.generator()).to(like)
    copied = copy.deepcopy(network).train()  # a layer may count what it sees
    with key.isolated(), torch.no_grad():
        whole, halves = copied(noise), torch.cat([copied(half) for half in torch.split(noise, 2)])
    return torch.allclose(whole, halves, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))
