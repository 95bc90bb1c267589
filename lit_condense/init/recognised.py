"""Real images that recorded experts recognise, with soft labels of the experts (DATM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_condense.data.batching import batches
from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError
from lit_condense.experts import Experts
from lit_condense.experts.description import describe
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.init.base import RealStart, real_images_to_start
from lit_condense.networks import NetworkFactory, build_network, evaluating, network_name
from lit_condense.parametrization import Parametrization
from lit_condense.rng import RandomKey

LOOKED_AT = 256
"""Images of a class that an expert looks at in one go."""


class RecognisedReal(RealStart):
    """Distinct real images that an expert classifies rightly, and what the experts say of them as first soft labels.

    Of each class, images are looked at in random order by the first expert after its last epoch, until there are
    enough; where it does not recognise enough, the next expert looks at the others. The logits of the first soft labels
    are the mean over all experts that recognise an image (DATM, Guo et al., ICLR 2024). Images are not augmented.

    Args:
        experts: Folder of recorded experts of the run's network, or its name below ``runs/experts``.
    """

    def __init__(self, experts: str) -> None:
        self.experts = experts

    def chosen(self, real: RealImages, counts: list[int], network: NetworkFactory, key: RandomKey) -> list[Tensor]:
        """Return images that an expert recognises.

        Raises:
            SettingsError: All experts together recognise too few of a class.
        """
        panel = _Panel(Experts(self.experts), real, network, key)
        found = []
        for c, count in enumerate(counts):
            found.append(torch.cat(list(_first(self._recognised(panel, real, c, key), count))))
            if len(found[-1]) < count:
                raise SettingsError(
                    f"Expected experts in {self.experts} that recognise {count} images of class {c} "
                    f"({real.class_names[c]}), they recognise {len(found[-1])}. Lower ipc, or start from RandomReal."
                )
        return found

    def label_logits(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor | None:
        """Return the experts' mean logits; of a stored image that holds several real ones, the mean over these."""
        counts = real_images_to_start(parametrization, real, ipc)
        panel = _Panel(Experts(self.experts), real, network, key)
        parts = []
        for chosen, stored in zip(self.chosen(real, counts, network, key), ipc, strict=True):
            logits = panel.mean_of_right(chosen)
            parts.append(logits.view(-1, stored, real.num_classes).mean(0))  # cell k holds block k of the images
        return torch.cat(parts)

    def _recognised(self, panel: _Panel, real: RealImages, class_index: int, key: RandomKey) -> Iterator[Tensor]:
        """Yield the images of a class that experts recognise, a few at a time."""
        left = real.random_of_class(class_index, real.class_sizes[class_index], key.fold("real", class_index))
        for expert in range(len(panel.experts)):
            missed = []
            for looked_at in batches(left, LOOKED_AT):
                right = panel.right(expert, looked_at)
                missed.append(looked_at[~right])
                yield looked_at[right]
            left = torch.cat(missed)
            if not len(left):
                return


class _Panel:
    """The experts after their last epoch, looking at real images.

    Args:
        experts: Recorded.
        real: The images.
        network: Architecture of the experts.
        key: For the weights that are overwritten.
    """

    def __init__(self, experts: Experts, real: RealImages, network: NetworkFactory, key: RandomKey) -> None:
        experts.insist_on(describe(real, network))
        self.experts, self._real = experts, real
        channels, height, width = real.image_shape
        self._network: nn.Module = build_network(network, channels, (height, width), real.num_classes, key).to(
            real.device
        )
        self._loaded: int | None = None
        if any(True for _ in self._network.buffers()):
            raise SettingsError(
                f"Expected experts without running statistics for RecognisedReal, {network_name(network)} has some, "
                "which are not recorded. Start from RandomReal, or take another norm."
            )

    def right(self, expert: int, indices: Tensor) -> Tensor:
        """Return which images an expert recognises, ``(n,)`` bool on the CPU."""
        return self._logits(expert, indices).argmax(1).eq(self._real.labels_at(indices)).cpu()

    def mean_of_right(self, indices: Tensor) -> Tensor:
        """Return the mean logits over the experts that recognise each image, ``(n, classes)`` on the CPU."""
        total, count = torch.zeros(len(indices), self._real.num_classes), torch.zeros(len(indices), 1)
        for expert in range(len(self.experts)):
            logits = self._logits(expert, indices)
            right = logits.argmax(1).eq(self._real.labels_at(indices)).cpu().unsqueeze(1)
            total, count = total + logits.cpu() * right, count + right
        return total / count.clamp(min=1)

    @torch.no_grad()
    def _logits(self, expert: int, indices: Tensor) -> Tensor:
        self._load(expert)
        with evaluating(self._network):
            parts: list[Any] = [self._network(self._real.at(part)) for part in batches(indices, LOOKED_AT)]
        return torch.cat(parts)

    def _load(self, expert: int) -> None:
        if self._loaded == expert:
            return
        parameters = trainable_parameters(self._network)
        for name, weights in self.experts.weights(expert, self.experts.epochs, parameters).items():
            parameters[name].copy_(weights)
        self._loaded = expert


def _first(parts: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """Yield the first ``count`` of what the parts hold, and look at no more parts than that takes."""
    missing = count
    for part in parts:
        yield part[:missing]
        missing -= min(missing, len(part))
        if missing == 0:
            return
