"""Gradients of a network's loss, one class block at a time.

Letters: k class blocks of n images each, C channels of H x W pixels.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.functional.attention import plain_attention

Gradients = dict[str, Tensor]
"""Parameter name -> gradients of k class blocks, ``(k, *parameter.shape)``."""


def trainable_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the network's trainable parameters by name, in the network's own order."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def mean_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of a batch, each image times its weight.

    The divisor is the number of images, not the sum of the weights: for images drawn with unequal probabilities, and
    weights that are inverse to these, it is then an unbiased estimate of the mean over all that could be drawn.

    Args:
        logits: ``(n, classes)``.
        labels: Class indices ``(n,)``, or soft labels ``(n, classes)``.
        weights: ``(n,)``; None: all images count alike.
    """
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def gradients_of(loss: Tensor, network: nn.Module, create_graph: bool = False) -> Gradients:
    """Return the gradient of a loss with respect to every trainable parameter, by name, without a block dimension.

    Args:
        loss: 0-dimensional.
        network: Whose parameters. One that the loss does not depend on has gradient 0.
        create_graph: Keep the graph, so that the result can be differentiated.
    """
    parameters = trainable_parameters(network)
    found = torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def class_gradients(network: nn.Module, images: Tensor, labels: Tensor, create_graph: bool = False) -> Gradients:
    """Return the gradient of each class block's mean cross-entropy with respect to every parameter.

    The gradient ``g`` of Zhao et al., ICLR 2021, eq. 4: one mean loss a block, never across blocks. Blocks go through
    the network one after the other, so batch statistics (if any) are those of a block.

    Args:
        network: Maps ``(n, C, H, W)`` to logits ``(n, classes)``; used in the mode (train or eval) it is in.
        images: ``(k, n, C, H, W)``, normalised.
        labels: ``(k, n)`` class indices.
        create_graph: Keep the graph, so that the result can be differentiated with respect to ``images``.

    Returns:
        Parameter name -> ``(k, *parameter.shape)``.
    """
    with plain_attention() if create_graph else nullcontext():
        blocks = [
            gradients_of(F.cross_entropy(network(block_images), block_labels), network, create_graph)
            for block_images, block_labels in zip(images, labels, strict=True)
        ]
    return {name: torch.stack([block[name] for block in blocks]) for name in trainable_parameters(network)}
