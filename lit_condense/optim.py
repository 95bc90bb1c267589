"""Optimizers of the images that published programs imply, and what an optimizer must be to be used here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from lit_condense.errors import SettingsError, described


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
