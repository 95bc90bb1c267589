"""Named evaluation protocols: how a fresh network is trained on a small set before it is tested.

The protocols of different papers give numbers that must not be compared with each other. ``dc`` and ``dsa`` follow the
program of Zhao et al. (ICLR 2021, ICML 2021), ``egm`` that of Jiang et al. (2022), ``idc`` that of Kim et al. (ICML
2022), ``mtt`` that of Cazenavette et al. (CVPR 2022), ``coreset`` that of DeepCore (Guo et al., DEXA 2022) and LCMat
(Shin et al., AISTATS 2023), except that all of them report the last epoch; nothing is ever chosen by test accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from lit_condense.augmentation import (
    AlwaysOn,
    Augmentation,
    CropFlip,
    EvaluationAugmentation,
    NoAugmentation,
    OneOf,
    dsa_operations,
)
from lit_condense.augmentation.siamese import shows_digits
from lit_condense.errors import SettingsError
from lit_condense.networks import ConvNet

ProtocolName = Literal["dc", "dsa", "idc", "coreset", "egm", "mtt"]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)


@dataclass(frozen=True)
class Recipe:
    """How one evaluation network is trained."""

    passes: int
    """Passes over the set."""
    drops: tuple[int, ...]
    """Passes before which the learning rate is multiplied by ``drop_factor``."""
    drop_factor: float
    restart: bool
    """Whether a drop makes a new optimizer, losing the momentum (the DC program does)."""
    augmentation: Augmentation
    batch_size: int
    cutmix: float = 0.0
    """Probability that a batch is mixed by CutMix."""
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    final_lr: float | None = None
    """Where a cosine over all steps, each with its own rate, leads from ``lr``; None: the rate only drops."""

    def rates(self, batches_per_pass: int, max_steps: int | None = None) -> Iterator[tuple[float, bool]]:
        """Yield the learning rate of each step, and whether the step begins with a new optimizer.

        Args:
            batches_per_pass: Steps of a pass.
            max_steps: Fewer steps than the recipe's, the schedule shrunk in proportion.
        """
        steps, drops = self.capped(batches_per_pass, max_steps)
        for step in range(steps):
            yield self.lr_at(step, steps, drops), self.restart and step in drops

    def lr_at(self, step: int, steps: int, drops: tuple[int, ...]) -> float:
        """Return the learning rate of step ``step`` of ``steps``, with the drops that ``capped`` returned."""
        lr = self.lr
        if self.final_lr is not None:
            lr = self.final_lr + (lr - self.final_lr) * (1 + math.cos(math.pi * step / steps)) / 2
        return lr * float(self.drop_factor ** sum(step >= drop for drop in drops))

    def capped(self, batches_per_pass: int, max_steps: int | None) -> tuple[int, tuple[int, ...]]:
        """Return (steps, steps before which the rate drops), shrunk in proportion to at most ``max_steps``."""
        steps, drops = self.passes * batches_per_pass, tuple(d * batches_per_pass for d in self.drops)
        if max_steps is None or steps <= max_steps:
            return steps, drops
        return max_steps, tuple(round(drop * max_steps / steps) for drop in drops)


def recipe_for(
    protocol: str,
    dataset: str,
    convnet_bn: bool,
    epochs: int | None = None,
    augmentation: Augmentation | None = None,
    step_size: float | None = None,
) -> Recipe:
    """Return the recipe of a protocol.

    Args:
        protocol: ``dc``, ``dsa``, ``idc``, ``coreset``, ``egm`` or ``mtt``.
        dataset: Name of the data set: protocols augment by data set.
        convnet_bn: Whether the evaluated network is a ConvNet with batch norm, which ``dc`` and ``egm`` augment.
        epochs: Another number of epochs than the protocol's.
        augmentation: Another one than the protocol's.
        step_size: Of the set, where it has one: the learning rate of ``mtt``, which otherwise is ``dsa``.

    Raises:
        SettingsError: The protocol is not known.
    """
    if protocol in ("dc", "egm"):
        augmentation = augmentation or _augmentation_of_dc(dataset, convnet_bn)
        epochs = epochs or (300 if isinstance(augmentation, NoAugmentation) else 1000)
        return _dc(epochs, augmentation) if protocol == "dc" else _egm(epochs, augmentation)
    if protocol == "dsa":
        return _dc(epochs or 1000, augmentation or OneOf(dsa_operations(dataset)))
    if protocol == "mtt":
        recipe = _dc(epochs or 1000, augmentation or OneOf(dsa_operations(dataset)))
        return recipe if step_size is None else replace(recipe, lr=step_size)
    if protocol == "idc":
        return _idc(epochs or 1000, augmentation or AlwaysOn(_operations_of_idc(dataset)))
    if protocol == "coreset":
        return _coreset(epochs or 200, augmentation or _augmentation_of_coreset(dataset))
    raise SettingsError(f"Expected the evaluation protocol to be one of {list(PROTOCOLS)}, got {protocol!r}.")


def is_convnet_bn(network: nn.Module) -> bool:
    """Say whether a network is what the DC program calls ConvNetBN, of whatever width and depth.

    No other network with batch norm is augmented there: neither ConvNetASwishBN nor AlexNetBN, VGG11BN and ResNet18BN.
    """
    if not isinstance(network, ConvNet):
        return False
    return (network.norm, network.activation, network.pooling) == ("batch", "relu", "avg")


def _augmentation_of_dc(dataset: str, convnet_bn: bool) -> Augmentation:
    """ConvNetBN gets crop and noise, on MNIST too; other networks crop, scale and rotate there, and nothing else."""
    if convnet_bn:
        return EvaluationAugmentation(("crop", "noise"))
    return EvaluationAugmentation(("crop", "scale", "rotate")) if dataset.lower() == "mnist" else NoAugmentation()


def _dc(epochs: int, augmentation: Augmentation) -> Recipe:
    """The DC program runs one pass more than its epochs and drops the rate after pass ``epochs // 2 + 1``."""
    return Recipe(
        passes=epochs + 1,
        drops=(epochs // 2 + 2,),
        drop_factor=0.1,
        restart=True,
        augmentation=augmentation,
        batch_size=256,
    )


def _egm(epochs: int, augmentation: Augmentation) -> Recipe:
    """EGM's program runs its epochs exactly and leaves the drop, at half of them, to a scheduler: momentum lives on."""
    return Recipe(
        passes=epochs,
        drops=(epochs // 2,),
        drop_factor=0.1,
        restart=False,
        augmentation=augmentation,
        batch_size=256,
    )


def _operations_of_idc(dataset: str) -> tuple[str, ...]:
    """All but cutout, which CutMix replaces; digits are not mirrored."""
    operations = ("color", "crop", "flip", "scale", "rotate")
    return tuple(o for o in operations if o != "flip") if shows_digits(dataset) else operations


def _idc(epochs: int, augmentation: Augmentation) -> Recipe:
    return Recipe(
        passes=epochs,
        drops=(2 * epochs // 3, 5 * epochs // 6),
        drop_factor=0.2,
        restart=False,
        augmentation=augmentation,
        batch_size=64,
        cutmix=0.5,
    )


def _augmentation_of_coreset(dataset: str) -> Augmentation:
    """DeepCore's program crops and mirrors CIFAR and ImageNet, by their names, and augments nothing else.

    Own data sets it does not know: they are left as they are, because what may be mirrored is not to be seen.
    """
    return CropFlip() if dataset.lower().startswith(("cifar", "imagenet")) else NoAugmentation()


def _coreset(epochs: int, augmentation: Augmentation) -> Recipe:
    """DeepCore's and LCMat's training: cosine from 0.1 to 1e-4, stepped every iteration."""
    return Recipe(
        passes=epochs,
        drops=(),
        drop_factor=1.0,
        restart=False,
        augmentation=augmentation,
        batch_size=128,
        lr=0.1,
        nesterov=True,
        final_lr=1e-4,
    )


def describe(recipe: Recipe) -> dict[str, object]:
    """Return a recipe as plain data for the card."""
    plain = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    augmentation = recipe.augmentation
    plain["augmentation"] = type(augmentation).__name__
    plain["operations"] = list(getattr(augmentation, "operations", ()))
    plain["drops"] = list(recipe.drops)
    return plain
