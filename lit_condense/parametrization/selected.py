"""Synthetic images that start from a selection, or from a set that was written before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.errors import SettingsError
from lit_condense.export.belonging import insist_on
from lit_condense.export.condensed_set import load_condensed
from lit_condense.networks import NetworkFactory
from lit_condense.parametrization.initial import Initialization, encode_classes, real_images_to_start
from lit_condense.parametrization.pixels import Pixels
from lit_condense.rng import RandomKey
from lit_condense.selection import Budget, Scoring, Selection, select_now


class Selected(Initialization):
    """The real images that a selection keeps.

    Its scoring networks have the architecture that the set is condensed with. They are trained before the run begins,
    also where a checkpoint then brings other images: give ``scoring`` a ``cache`` to train them once.

    Args:
        selection: The method. Weights that it gives are not used.
        scoring: How the scoring networks are trained, where it needs any; default: 10 epochs of SGD.
    """

    def __init__(self, selection: Selection, scoring: Scoring | None = None) -> None:
        self.selection = selection
        self.scoring = scoring or Scoring()

    def start(
        self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], network: NetworkFactory, key: RandomKey
    ) -> Tensor:
        """Return encoded real images.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        wanted = real_images_to_start(parametrization, real, ipc)
        kept = select_now(self.selection, self.scoring, real, Budget(ipc=wanted), network, key.fold("selection"))
        return encode_classes(parametrization, real, torch.split(kept.indices, wanted))


class FromFile(Initialization):
    """The images of a condensed or selected set that was written before.

    Args:
        path: The ``.safetensors`` file or its folder. It must hold, for each class, as many images as stored ones are
            made of. Its classes must be those of the data, in their order.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def start(
        self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], network: NetworkFactory, key: RandomKey
    ) -> Tensor:
        """Return the encoded images of the file; nothing is drawn.

        Raises:
            ExportError: The file cannot be read, or is of other classes or of images of another shape.
            SettingsError: Its images are not as many.
        """
        condensed = load_condensed(self.path)
        insist_on(condensed, real.class_names, real.image_shape, self.path)
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
