"""What a network says about blocks of images: the values of quantities, on one side of a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from torch import Tensor

from lit_condense.matching.quantity import Value


@dataclass(frozen=True)
class Quantities:
    """What a network says about k blocks of n images, on one side (real or synthetic).

    A block is a class; for losses of scope ``mean`` there is one block, the mean over classes, and for those of scope
    ``set`` one block of all images. What no loss needs is not there.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    """Name of the quantity -> its value, whose first dimension counts the blocks."""
    labels: Tensor | None = None
    """Class indices, ``(k, n)``; None for a mean over classes."""
    classes: int = 1
    """How many classes a block stands for: their number for a mean over classes and for the whole set, else 1."""
    weights: Tensor | None = None
    """What each image counts in a mean over the n, ``(k, n)``, where the sampling does not draw all alike; else None.
    The mean of ``weight * value`` over the n images, not divided by the sum of the weights, estimates the mean of the
    class without bias. ``gradients`` are of weighted means already."""

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    @property
    def gradients(self) -> Mapping[str, Tensor]:
        """Parameter name -> gradient, ``(k, *parameter.shape)``; empty where no loss needs them."""
        return cast(Mapping[str, Tensor], self.values.get("gradients", {}))

    @property
    def features(self) -> Tensor | None:
        """Input of the network's last layer, ``(k, n, d)``; None where no loss needs it."""
        return cast(Tensor | None, self.values.get("features"))

    @property
    def logits(self) -> Tensor | None:
        """``(k, n, classes)``; None where no loss needs them."""
        return cast(Tensor | None, self.values.get("logits"))

    def tensors(self) -> list[Tensor]:
        """Return what can be differentiated, in the order of :meth:`with_tensors`."""
        return [tensor for value in self.values.values() for tensor in _tensors_of(value)]

    def names(self) -> list[str]:
        """Return a name for each of :meth:`tensors`."""
        parts = ((name, [""] if isinstance(value, Tensor) else value) for name, value in self.values.items())
        return [f"{name}/{part}" for name, within in parts for part in within]

    def with_tensors(self, tensors: Iterable[Tensor]) -> Quantities:
        """Return the same quantities with other tensors, as many as :meth:`tensors` gives."""
        left = iter(tensors)
        return replace(self, values={name: _rebuilt(value, left) for name, value in self.values.items()})

    def each(self, function: Callable[[Tensor], Tensor]) -> Quantities:
        """Return the same quantities, each tensor through a function."""
        return self.with_tensors([function(tensor) for tensor in self.tensors()])

    def block(self, index: int) -> Quantities:
        """Return one of the k blocks, as quantities with k = 1."""
        at = slice(index, index + 1)
        labels, weights = (None if per_image is None else per_image[at] for per_image in (self.labels, self.weights))
        return replace(self.each(lambda tensor: tensor[at]), labels=labels, weights=weights)

    def detached(self, requires_grad: bool = False) -> Quantities:
        """Return a copy off the graph, whose tensors may be leaves of a new one."""
        return self.each(lambda tensor: tensor.detach().requires_grad_(requires_grad))


def _tensors_of(value: Value) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value.values())


def _rebuilt(value: Value, left: Iterator[Tensor]) -> Value:
    return next(left) if isinstance(value, Tensor) else {name: next(left) for name in value}
