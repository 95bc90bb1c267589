"""SGD of networks, in one call a step; optimizers of the images that published programs imply."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_condense.errors import SettingsError, described

FUSED_DEVICES = ("cpu", "cuda")
"""Where PyTorch steps all tensors of an optimizer in one call: a tenth of a training step of a small network."""


class NetworkSGD(torch.optim.SGD):
    """SGD of a network's weights: all in one call, as long as every weight has a gradient in every step."""

    def __init__(
        self, params: Sequence[Tensor], lr: float, momentum: float, weight_decay: float, nesterov: bool = False
    ) -> None:
        fused = all(parameter.device.type in FUSED_DEVICES for parameter in params)
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)

    def step(self, closure: Any = None) -> Any:
        """Take one step. From the first missing gradient on (a layer skipped at random) weights go one by one."""
        for group in self.param_groups:
            # PyTorch's one call wants the momentum of all weights or of none
            group["fused"] = group["fused"] and all(parameter.grad is not None for parameter in group["params"])
            if group["fused"]:
                _arrange(group["params"])
        return super().step(closure)


def _arrange(parameters: Sequence[Tensor]) -> None:
    """Lay gradients out in memory as their weights are.

    PyTorch's one call on a CPU goes through the memory of both in order, whatever their strides: it would give each
    weight the slope of another. Compiled convolutions return gradients with the channels last.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = laid_out_as(parameter, parameter.grad)


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient with the strides of its parameter."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


class SharedTensorSGD(torch.optim.SGD):
    """SGD as it acts when one tensor of all classes is stepped once *per class* (IDC's and IDM's programs).

    There, a class's gradient arrives in one of ``classes`` steps an update, while its momentum buffer moves it in all
    of them. At the points where gradients are taken this equals one joint step with learning rate
    ``lr * (1 - m**classes) / (1 - m)`` and momentum ``m**classes``.

    Args:
        params: The images.
        lr: The program's learning rate.
        momentum: The program's momentum ``m``.
        classes: Steps an update.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float, classes: int) -> None:
        if not 0 <= momentum < 1 or classes < 1:
            raise SettingsError(
                f"Expected momentum in [0, 1) and classes of 1 or more, got momentum {momentum} and {classes} classes."
            )
        decayed = momentum**classes
        super().__init__(params, lr=lr * (1 - decayed) / (1 - momentum), momentum=decayed)


def rescaled_lr(lr: float, ipc: int, image_size: int, base_size: int = 32) -> float:
    """Return IDC's learning rate of the images, ``lr * (ipc / 10) * (image_size / base_size)**2``.

    Args:
        lr: For 10 images per class at the base size (IDC: 5e-3 for CIFAR and SVHN, 1e-4 for MNIST).
        ipc: Images per class.
        image_size: Pixels a side.
        base_size: 32, or 28 for MNIST, 224 for ImageNet.
    """
    return lr * (ipc / 10) * (image_size / base_size) ** 2


def steps_alone(optimizer: object, of: str) -> torch.optim.Optimizer:
    """Return an optimizer, if it steps along the gradients that it finds.

    Args:
        optimizer: As a factory made it.
        of: What it steps, for the message.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SettingsError(f"Expected a torch optimizer of {of}, got {described(optimizer)}.")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise SettingsError(
            f"Expected an optimizer of {of} that steps along one gradient, got {type(optimizer).__name__}, which "
            "evaluates the loss again in a step (a closure). Choose SGD, Adam or another first-order one."
        )
    return optimizer


def steps_images(factory: OptimizerCallable) -> OptimizerCallable:
    """Return an optimizer factory if it makes one that steps images along a gradient."""
    image = torch.nn.Parameter(torch.zeros(1, 1, 2, 2))
    try:
        made = steps_alone(factory([image]), "the images")
        image.grad = torch.ones_like(image)
        made.step()
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"Expected an optimizer that steps images with its settings, it says: {error}.") from error
    return factory
