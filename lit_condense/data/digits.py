"""scikit-learn's bundled handwritten digits: real images that need no file and no download."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_condense.data.module import CondenseDataModule, Splits

BRIGHTEST = 16  # the digits' pixels count inked points in a 4x4 cell
TEST_EVERY = 5


class Digits(CondenseDataModule):
    """Serve scikit-learn's 1,797 handwritten digits, 8x8 pixels, one channel, 10 classes.

    Pixels of 0 to 16 become ``round(255 * pixel / 16)`` as uint8. The dataset has no split of its own: within each
    class the 5th, 10th, 15th, ... image is a test image, which leaves 1,442 for training and 355 for the test. No paper
    has constants for it, so normalisation is measured unless given.
    """

    dataset_name: ClassVar[str] = "digits"
    source = "scikit-learn's load_digits; test part of the UCI set 'Optical Recognition of Handwritten Digits'"
    licence = "CC BY 4.0 (UCI Machine Learning Repository)"
    citation = "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"

    def load(self) -> Splits:
        """Read the digits from the installed scikit-learn."""
        from sklearn.datasets import load_digits  # imported late: slow, and nothing else needs it

        digits = load_digits()
        pixels = np.round(digits.images * (255 / BRIGHTEST)).astype(np.uint8)
        images = torch.from_numpy(pixels).unsqueeze(1)
        labels = torch.from_numpy(digits.target.astype(np.int64))
        test = _every_fifth_of_each_class(labels)
        names = tuple(str(name) for name in digits.target_names)
        return Splits(images[~test], labels[~test], images[test], labels[test], names)


def _every_fifth_of_each_class(labels: Tensor) -> Tensor:
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in torch.unique(labels):
        members = torch.nonzero(labels == label).flatten()
        chosen[members[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return chosen
