"""Train several small networks in one: their weights are stacked, each has its own batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from lit_condense.evaluation.protocols import Recipe
from lit_condense.evaluation.training import Descent, LabelledImages, batches_of, classes_of, training_batch
from lit_condense.functional.attention import plain_attention
from lit_condense.rng import RandomKey


def train_stacked(
    networks: Sequence[nn.Module],
    sets: Sequence[LabelledImages],
    recipe: Recipe,
    keys: Sequence[RandomKey],
    max_steps: int | None = None,
) -> int:
    """Train K networks in place as :func:`train_network` trains each, to rounding; return the number of steps taken.

    Args:
        networks: Fresh networks of one architecture for which :func:`can_be_stacked`.
        sets: What each is trained on, all of one size.
        recipe: Passes, schedule, augmentation.
        keys: Names the networks.
        max_steps: As for ``train_network``.
    """
    num_classes = classes_of(networks[0], sets[0])
    weights = _stacked(networks)
    parameters = list(weights.values())
    descent = Descent(parameters, recipe)
    rates = list(recipe.rates(batches_of(sets[0], recipe), max_steps))
    for step, (lr, restart) in enumerate(rates):
        batches = [training_batch(data, recipe, step, num_classes, key) for data, key in zip(sets, keys, strict=True)]
        images, labels = (torch.stack(part) for part in zip(*batches, strict=True))
        # the sum gives each network the gradient of its own loss
        with plain_attention():
            loss = vmap(_loss_of(networks[0]))(weights, images, labels).sum()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        descent.step(gradients, lr, restart)
    with torch.no_grad():
        for i, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                parameter.copy_(weights[name][i])
    return len(rates)


def can_be_stacked(networks: Sequence[nn.Module], images: Tensor) -> bool:
    """Return whether the gradients of stacked networks are those of each network.

    Args:
        networks: Two networks of one architecture, in training mode.
        images: ``(n, C, H, W)``.
    """
    if not all(parameter.requires_grad for parameter in networks[0].parameters()):
        return False  # stacked weights would all be trained
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    function, weights = _loss_of(networks[0]), _stacked(networks)
    try:
        with plain_attention():
            together = vmap(grad(function), (0, None, None))(weights, images, labels)
    except RuntimeError:  # what vmap raises for random layers, running statistics and what it does not know
        return False
    for i, network in enumerate(networks):
        parameters = list(network.parameters())
        apart = torch.autograd.grad(F.cross_entropy(network(images), labels), parameters, materialize_grads=True)
        for name, gradient in zip(together, apart, strict=True):
            if not torch.allclose(together[name][i], gradient, rtol=1e-3, atol=1e-5):
                return False
    return True


def _stacked(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    weights, _ = stack_module_state(list(networks))
    return {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}


def _loss_of(network: nn.Module) -> Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]:
    def loss(weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, dict(weights), (images,)), labels)

    return loss
