"""Images that start from a set that was written before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError
from lit_condense.export.belonging import insist_on, insist_on_whitening
from lit_condense.export.condensed_set import load_condensed
from lit_condense.init.base import Initialization
from lit_condense.networks import NetworkFactory
from lit_condense.parametrization.base import Parametrization
from lit_condense.rng import RandomKey


class FromFile(Initialization):
    """The images of a condensed or selected set that was written before.

    Args:
        path: The ``.safetensors`` file or its folder. It must hold, for each class, as many images as stored ones are
            made of. Its classes must be those of the data, in their order. A condensed set made under ZCA needs data
            under the same ZCA, and one made without it data without.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def start(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor:
        """Return the encoded images of the file; nothing is drawn.

        Raises:
            ExportError: The file cannot be read, or is of other classes, of images of another shape or of another
                whitening.
            SettingsError: Its images are not as many.
        """
        condensed = load_condensed(self.path)
        insist_on(condensed, real.class_names, real.image_shape, self.path)
        insist_on_whitening(condensed, real.normalization, self.path)
        images, labels = condensed.images, condensed.labels
        wanted = [count * parametrization.factor**2 for count in ipc]
        found = torch.bincount(labels).tolist()
        if found != wanted:
            raise SettingsError(
                f"Expected {wanted} images for the classes in {self.path}, got {found}. Set ipc to what the file "
                "holds, or use another file."
            )
        by_class = [images[labels == c] for c in range(len(wanted))]
        return torch.cat([parametrization.encode(pixels, real.normalization) for pixels in by_class])

    def label_logits(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor | None:
        """Return the logits of the file's soft labels, where it has some and each stored image is one image."""
        condensed = load_condensed(self.path)
        if condensed.soft_labels is None or parametrization.factor > 1:
            return None
        by_class = [condensed.soft_labels[condensed.labels == c] for c in range(real.num_classes)]
        return torch.cat(by_class).clamp(min=torch.finfo(torch.float32).tiny).log()
