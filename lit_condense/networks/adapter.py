"""Gives any ``nn.Module`` classifier the features and the classifier that losses beyond gradients need."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_condense.errors import SettingsError
from lit_condense.networks.base import CondensableNetwork


class AdaptedNetwork(CondensableNetwork):
    """A foreign classifier whose last linear layer was found and whose input to it is shown.

    The foreign network is the only child, ``module``: parameters and buffers are its own, in its order, under names
    that begin with ``module.``; its own ``state_dict`` is untouched. Use ``as_condensable`` to make one.

    Args:
        module: The foreign classifier; images (n, C, H, W) to logits (n, K).
        linear: Dotted name of its last linear layer, whose output is the logits.
    """

    def __init__(self, module: nn.Module, linear: str) -> None:
        super().__init__()
        self.module = module
        self.linear = linear
        self._seen: list[Tensor] = []
        # a bound method and no closure, so that a deep copy shows its own features
        self.classifier.register_forward_pre_hook(self._keep)

    @property
    def classifier(self) -> nn.Linear:  # type: ignore[override]
        """The last linear layer; a property, because an attribute would register its parameters twice."""
        return cast("nn.Linear", self.module.get_submodule(self.linear))

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the last linear layer, (n, d), of ``images`` (n, C, H, W)."""
        return self.features_and_logits(images)[0]

    def forward(self, images: Tensor) -> Tensor:
        """Return the foreign network's logits, (n, K), of ``images`` (n, C, H, W)."""
        return self.features_and_logits(images)[1]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, d) and logits (n, K) from one forward pass.

        Raises:
            SettingsError: The last linear layer did not run exactly once.
        """
        self._seen.clear()
        logits: Tensor = self.module(images)
        runs = len(self._seen)
        if runs != 1:
            self._seen.clear()
            raise SettingsError(
                f"{type(self.module).__name__} should run its last linear layer {self.linear!r} once for a batch, but "
                f"ran it {runs} times: derive the network from CondensableNetwork and define features and classifier."
            )
        return self._seen.pop(), logits

    def _keep(self, _linear: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen.append(inputs[0])


def as_condensable(module: nn.Module, num_classes: int) -> CondensableNetwork:
    """Return ``module`` with ``features`` and ``classifier``.

    A ``CondensableNetwork`` is returned as it is. Any other module is wrapped if exactly one of its linear layers has
    ``num_classes`` outputs and it is the last of its linear layers in the order of ``modules()``.

    Args:
        module: A classifier; images (n, C, H, W) to logits (n, K).
        num_classes: K.

    Raises:
        SettingsError: There is no such layer, or there are several; the message names what was found.
    """
    if isinstance(module, CondensableNetwork):
        return module
    return AdaptedNetwork(module, _last_linear(module, num_classes))


class FeaturesAndLogits(nn.Module):
    """Gives a network's features (n, d) and logits (n, K) from one forward pass.

    A module, because the forward pass is all that ``torch.func.functional_call`` can reach. Make it once for a network
    and outside code for ``torch.compile``, which cannot trace the making.

    Args:
        network: The network, which stays the only owner of its parameters.
    """

    def __init__(self, network: CondensableNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits of ``images`` (n, C, H, W)."""
        if isinstance(self.network, AdaptedNetwork):
            return self.network.features_and_logits(images)
        features = self.network.features(images)
        return features, self.network.classifier(features)

    def with_tensors(self, tensors: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits of ``images`` with ``tensors`` in place of the network's own.

        Args:
            tensors: Parameters and buffers under the names of ``network.named_parameters()`` and ``named_buffers()``.
            images: Images (n, C, H, W).
        """
        renamed = {f"network.{name}": tensor for name, tensor in tensors.items()}
        pair: tuple[Tensor, Tensor] = functional_call(self, renamed, (images,))
        return pair


def check_adapted(network: CondensableNetwork, images: Tensor) -> Tensor:
    """Return the logits of ``images`` after checking that they are the classifier's output of the features.

    Raises:
        SettingsError: The features are not (n, d), or something follows the last linear layer.
    """
    name = type(network.module if isinstance(network, AdaptedNetwork) else network).__name__
    logits: Tensor
    features, logits = FeaturesAndLogits(network)(images)
    if features.ndim != 2 or len(features) != len(images):
        raise SettingsError(
            f"{name} should give its last linear layer one row of features for an image, but gave a tensor of shape "
            f"{tuple(features.shape)} for {len(images)} images: flatten or pool before that layer."
        )
    again = network.classifier(features)
    if again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise SettingsError(
            f"{name} should return the output of its last linear layer, but changes it afterwards: return raw logits, "
            "without softmax or scaling."
        )
    return logits


def _last_linear(module: nn.Module, num_classes: int) -> str:
    """Return the dotted name of the only last linear layer with ``num_classes`` outputs."""
    name = type(module).__name__
    remedy = "derive the network from CondensableNetwork and define features and classifier"
    linears: dict[str, nn.Linear] = {
        path: layer for path, layer in module.named_modules() if isinstance(layer, nn.Linear)
    }
    if "" in linears:
        raise SettingsError(f"{name} is itself the only linear layer: wrap it in nn.Sequential(nn.Flatten(), ...).")
    if not linears:
        kinds = sorted({type(layer).__name__ for layer in module.modules() if layer is not module})
        raise SettingsError(
            f"{name} needs a last nn.Linear with {num_classes} outputs, but has no nn.Linear (it holds "
            f"{', '.join(kinds) or 'no layers'}): {remedy}."
        )
    found = ", ".join(f"{path!r} ({layer.in_features} to {layer.out_features})" for path, layer in linears.items())
    candidates = [path for path, layer in linears.items() if layer.out_features == num_classes]
    last = list(linears)[-1]
    if candidates != [last]:
        raise SettingsError(
            f"{name} needs exactly one nn.Linear with {num_classes} outputs, as the last of its linear layers, but its "
            f"linear layers are {found}, of which {len(candidates)} have {num_classes} outputs: {remedy}."
        )
    return last
