"""How settings name an architecture, and how a network is made from that."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lit_condense.errors import CondenseError, SettingsError
from lit_condense.networks.adapter import as_condensable, check_adapted
from lit_condense.rng import RandomKey

# What PyTorch, NumPy and hand-written checks raise when shapes or arguments do not fit. Others, such as
# AttributeError, are faults in a network's code and keep their traceback.
_MISFIT = (TypeError, ValueError, RuntimeError, IndexError, AssertionError)


class NetworkFactory(Protocol):
    """Makes a network for given images; a class, a function, or a ``functools.partial`` of either.

    In YAML, a ``class_path`` and, for settings other than the defaults, ``init_args``. The three arguments are passed
    by name.
    """

    def __call__(self, in_channels: int, image_size: tuple[int, int], num_classes: int) -> nn.Module:
        """Return a new network for images of ``in_channels`` and ``image_size`` (height, width)."""
        ...


def build_network(
    factory: NetworkFactory,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    key: RandomKey,
    needs_features: bool = False,
) -> nn.Module:
    """Return a new network on the CPU, in training mode, whose weights follow from ``key`` alone.

    The global generators are left as they were. One forward pass of two images in evaluation mode checks the shapes.

    Args:
        factory: Makes the network.
        in_channels: Channels of the images.
        image_size: Height and width in pixels.
        num_classes: Number of logits.
        key: Names the draw of the weights.
        needs_features: Whether to return a ``CondensableNetwork`` (foreign networks wrapped by ``as_condensable``)
            and to check that its logits are its classifier's output of its features.

    Raises:
        SettingsError: The factory cannot make a network for these images, or its output has another shape.
    """
    if isinstance(factory, nn.Module) or not callable(factory):
        raise SettingsError(
            f"A network is given as a class or factory, because new ones are made all the time, but got "
            f"{type(factory).__name__} as an object: give the class_path and init_args, or functools.partial."
        )
    name = network_name(factory)
    setting = f"{in_channels}x{image_size[0]}x{image_size[1]} images and {num_classes} classes"
    # on the CPU and in float32 whatever the defaults are: the same key gives the same weights everywhere
    with torch.device("cpu"), single_precision(), key.isolated():
        with explained(f"{name} could not be built with in_channels, image_size and num_classes for {setting}"):
            network = factory(in_channels=in_channels, image_size=image_size, num_classes=num_classes)
        if not isinstance(network, nn.Module):
            raise SettingsError(f"{name} should make an nn.Module, but made {type(network).__name__}.")
        # a lazy layer draws its weights in its first forward pass, hence inside the key
        with explained(f"{name} was built, but does not run, for {setting}"):
            logits = _dry_forward(network, _example(network, in_channels, image_size))
        _check_logits(logits, name, num_classes)
        if needs_features:
            network = as_condensable(network, num_classes)
            with evaluating(network), torch.no_grad():
                check_adapted(network, _example(network, in_channels, image_size))
    return network


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Make float32 the default inside the block; Lightning changes the default in a 64-true run."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def factory_target(factory: NetworkFactory) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """Return what ``factory`` finally calls and the keyword settings it calls it with.

    jsonargparse makes ``partial(its own functions, ..., the class, **init_args)``, with the class last.
    """
    if not isinstance(factory, functools.partial):
        return factory, {}
    if not isinstance(factory.func, type) and factory.args and callable(factory.args[-1]):
        return factory.args[-1], dict(factory.keywords)
    return factory.func, dict(factory.keywords)


def network_name(factory: NetworkFactory) -> str:
    """Return a short name, such as ``ConvNet`` or ``ConvNet(norm=batch,width=64)``.

    Settings equal to the default are left out and the others sorted, so that equal networks have equal names however
    they were written down.
    """
    target, keywords = factory_target(factory)
    name = getattr(target, "__name__", type(target).__name__)
    defaults = _defaults(target)
    changed = {key: value for key, value in keywords.items() if key not in defaults or defaults[key] != value}
    if not changed:
        return name
    return f"{name}({','.join(f'{key}={changed[key]}' for key in sorted(changed))})"


def _defaults(target: Callable[..., nn.Module]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return {}
    return {key: parameter.default for key, parameter in parameters.items()}


def _example(network: nn.Module, in_channels: int, image_size: tuple[int, int]) -> Tensor:
    """Return two images (2, C, H, W) from -1 to 1, of the network's device and number type.

    Not zeros: a scaled output of a layer without bias would pass for the unscaled one.
    """
    first = next(network.parameters(), torch.empty(0))
    pixels = torch.linspace(-1, 1, 2 * in_channels * image_size[0] * image_size[1])
    return pixels.reshape(2, in_channels, *image_size).to(first.device, first.dtype)


def _dry_forward(network: nn.Module, images: Tensor) -> Any:
    with evaluating(network), torch.no_grad():
        return network(images)


def _check_logits(logits: Any, name: str, num_classes: int) -> None:
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, num_classes):
        raise SettingsError(
            f"{name} should map 2 images to logits of shape {(2, num_classes)}, but gave {found}: give its last layer "
            f"{num_classes} outputs, one a class."
        )


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of foreign code that shapes or arguments can cause into one that says so."""
    try:
        yield
    except CondenseError:
        raise
    except _MISFIT as error:
        raise SettingsError(f"{what}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode and give every part its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
