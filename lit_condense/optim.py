"""Optimizers that published programs imply, and what an optimizer must be to step images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from lit_condense.errors import SettingsError, check_least, described


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


class GSAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation with a guided surrogate gap, element-wise adaptive: experts in flat minima (FTD).

    With the gradient ``g`` of a batch, it looks at the same batch at ``w + e``, ``e = rho * w^2 g / |w g|``, for its
    gradient ``h`` there, and steps along ``h`` less ``alpha`` times the part of ``g`` that is at right angles to ``h``
    (Zhuang et al., ICLR 2022; Du et al., CVPR 2023). Norms are over all parameters together. It looks twice at each
    batch, so that only networks can be trained by it.

    Args:
        params: The weights.
        lr: Learning rate.
        rho: Size of the perturbation relative to the weights: ``|e / w| = rho``.
        alpha: Weight of the surrogate gap (FTD's table: 0.3 or 1; its program, without saying so: 0.4).

    Raises:
        SettingsError: A number is out of its range.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, rho: float = 0.01, alpha: float = 0.3) -> None:
        check_least("GSAM", 0, lr=lr, rho=rho, alpha=alpha)
        super().__init__(params, {"lr": lr, "rho": rho, "alpha": alpha})

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        """Step once.

        Args:
            closure: Sets every gradient at the weights as they are, and returns the loss.
        """
        looked = torch.enable_grad()(closure)
        loss = looked()
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not weights:
            return loss
        group = self.param_groups[0]  # rho and alpha are of all parameters together
        before = [p.clone() for p in weights]
        gradient = [_gradient(p).clone() for p in weights]
        scale = group["rho"] / (_norm([p.abs() * g for p, g in zip(weights, gradient, strict=True)]) + TINY)
        for p, g in zip(weights, gradient, strict=True):
            p.add_(p.square() * g * scale)
        looked()
        perturbed = [_gradient(p) for p in weights]
        norm, perturbed_norm = _norm(gradient), _norm(perturbed)
        product = sum((g * h).sum() for g, h in zip(gradient, perturbed, strict=True))
        along = product / (norm * perturbed_norm + TINY) * norm / (perturbed_norm + TINY)
        steps = [h - group["alpha"] * (g - along * h) for g, h in zip(gradient, perturbed, strict=True)]
        rates = {id(p): one["lr"] for one in self.param_groups for p in one["params"]}
        for p, old, step in zip(weights, before, steps, strict=True):
            p.copy_(old).sub_(rates[id(p)] * step)
        return loss


TINY = 1e-12
"""Keeps GSAM's quotients of norms finite, as published."""


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None  # the closure sets it
    return parameter.grad


def _norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()


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


def insist_on_momentum(factory: OptimizerCallable) -> None:
    """Refuse an optimizer without a momentum, where one of its groups is to have its own.

    Raises:
        SettingsError: It has none.
    """
    made = factory([torch.nn.Parameter(torch.zeros(1))])
    if "momentum" not in made.defaults:
        raise SettingsError(
            f"Expected an optimizer with momentum for Learnables.label_momentum, got {type(made).__name__}. Leave it "
            "out, or choose SGD."
        )
