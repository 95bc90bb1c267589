"""Quantities: what losses read of a network, each one registered under a name.

A loss says by name what it reads (``needs = frozenset({"gradients"})``). What stands behind the name, a
:class:`Quantity`, says how it is formed from a network, images and labels, and how blocks of classes and chunks of
images come together; the engine asks nothing else. A loss on something new, intermediate feature maps for instance
(CAFE, DataDAM), is therefore one file, which registers its quantity and defines the loss.

Shapes: k blocks (classes) of n images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, cast

import torch
from torch import Tensor, nn

from lit_condense.errors import SettingsError

Need: TypeAlias = str
"""Name of a registered quantity."""
Value: TypeAlias = Tensor | Mapping[str, Tensor]
"""A quantity: one tensor, or several by name."""


class Quantity(ABC):
    """Something that a network says about images.

    A quantity that is registered by a user is formed class by class, without compilation; that of several blocks of
    classes, or of chunks of one, is then put together.
    """

    name: ClassVar[str]
    """What losses ask for it by."""
    differentiates: ClassVar[bool] = False
    """Whether it is formed from gradients in the parameters, so that images are reached by a second derivative only."""
    reads_features: ClassVar[bool] = False
    """Whether it reads what enters the network's last layer, so that a foreign network must be adapted."""

    @abstractmethod
    def form(self, network: nn.Module, images: Tensor, labels: Tensor, create_graph: bool) -> Value:
        """Return the quantity of one block, differentiable in ``images``.

        Args:
            network: In the mode and with the weights it is to be observed in.
            images: ``(n, C, H, W)``, as the network sees them.
            labels: Class indices, ``(n,)``.
            create_graph: Whether the gradients that it takes must keep their graph.

        Returns:
            A floating-point tensor, or several by name, with whatever dimensions :meth:`stacked` and :meth:`rejoined`
            understand; by default with the n images first.
        """

    def stacked(self, blocks: Sequence[Tensor]) -> Tensor:
        """Return what was formed of several blocks, each ``(1, ...)``, as one tensor ``(k, ...)``."""
        return torch.cat(list(blocks))

    def rejoined(self, chunks: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        """Return what was formed of chunks of the images of the same blocks, as if of all images at once.

        Args:
            chunks: Each ``(k, n of the chunk, ...)``.
            shares: Each chunk's share of the images; they add up to 1.

        Returns:
            By default the images in a row, ``(k, n, ...)``. A mean over images wants the mean by shares instead
            (:func:`mean_by_shares`).
        """
        return torch.cat(list(chunks), dim=1)


@dataclass(frozen=True)
class Pass:
    """One pass of images through the network, which all built-in quantities are read from."""

    features: Tensor | None
    """``(n, d)``; None where no quantity of the run reads them."""
    logits: Tensor
    """``(n, classes)``."""
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    """Parameter name -> gradient of the mean cross-entropy; empty where it was not asked for."""


class PassQuantity(Quantity):
    """A built-in quantity: read from a pass that the engine makes, by whichever of its plans."""

    @abstractmethod
    def read(self, seen: Pass) -> Value:
        """Return the quantity."""

    def form(self, network: nn.Module, images: Tensor, labels: Tensor, create_graph: bool) -> Value:
        """Refuse: the engine makes the pass."""
        raise NotImplementedError(f"{self.name} is read from a pass of the engine.")


def mean_by_shares(chunks: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the mean over all images, from the means over chunks of them and the chunks' shares."""
    return torch.stack([share * chunk for share, chunk in zip(shares, chunks, strict=True)]).sum(0)


class Gradients(PassQuantity):
    """Parameter name -> gradient of each block's mean cross-entropy, ``(k, *parameter.shape)``."""

    name = "gradients"
    differentiates = True

    def read(self, seen: Pass) -> Value:
        """Return the gradients."""
        return seen.gradients

    def rejoined(self, chunks: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        """Return the mean by the chunks' sizes: gradients are of means."""
        return mean_by_shares(chunks, shares)


class Features(PassQuantity):
    """Input of the network's last layer, ``(k, n, d)``."""

    name = "features"
    reads_features = True

    def read(self, seen: Pass) -> Value:
        """Return the features."""
        return cast(Tensor, seen.features)


class Logits(PassQuantity):
    """``(k, n, classes)``."""

    name = "logits"
    reads_features = True

    def read(self, seen: Pass) -> Value:
        """Return the logits."""
        return seen.logits


GRADIENTS: frozenset[Need] = frozenset({Gradients.name})

_REGISTERED: dict[str, Quantity] = {}


def register(quantity: Quantity) -> None:
    """Make a quantity known under its name, for losses to need.

    Raises:
        SettingsError: The name is no name, or stands for another quantity already.
    """
    name, known = quantity.name, _REGISTERED.get(quantity.name)
    if not isinstance(name, str) or not name.isidentifier():
        raise SettingsError(f"Expected {type(quantity).__name__}.name to be an identifier, got {name!r}.")
    # a module that is imported again (a notebook's cell that is run twice) defines its class anew
    if known is not None and type(known).__qualname__ != type(quantity).__qualname__:
        raise SettingsError(
            f"Expected a new name for the quantity {type(quantity).__name__}, {name!r} stands for "
            f"{type(known).__name__}. Choose another."
        )
    _REGISTERED[name] = quantity


for _built_in in (Gradients(), Features(), Logits()):
    register(_built_in)


def known_quantities() -> list[str]:
    """Return the names of all registered quantities, sorted."""
    return sorted(_REGISTERED)


def quantities_of(needs: Iterable[Need]) -> tuple[Quantity, ...]:
    """Return the quantities of these names, in the order of the names: an order that no hash decides."""
    return tuple(_REGISTERED[name] for name in sorted(needs))


def built_in(needs: Iterable[Need]) -> bool:
    """Return whether all quantities of these names can be read from a pass that the engine makes."""
    return all(isinstance(quantity, PassQuantity) for quantity in quantities_of(needs))


def differentiate(needs: Iterable[Need]) -> bool:
    """Return whether a quantity of these names is formed from gradients in the parameters."""
    return any(quantity.differentiates for quantity in quantities_of(needs))


def read_features(needs: Iterable[Need]) -> bool:
    """Return whether a quantity of these names reads what enters the network's last layer."""
    return any(quantity.reads_features for quantity in quantities_of(needs))
