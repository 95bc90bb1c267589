"""CutMix (Yun et al., ICCV 2019), with which IDC trains its networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.augmentation.base import Draw, check_range, integers, uniform
from lit_condense.augmentation.operations import geometry_dtype
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent


class CutMix:
    """Paste a box of each image's partner into it, for some of the batches.

    The box has the sides ``sqrt(1 - lambda)`` of the image's, lambda from Beta(1, 1), rounded down to even numbers of
    pixels, and a centre uniform over the pixels; what lies outside the image is cut off. Box and partners' order are
    drawn once for a batch.

    Args:
        probability: Share of batches that are mixed. IDC: 0.5 on small images, 1 on ImageNet (Kim et al., ICML 2022).

    Raises:
        SettingsError: The probability is not in [0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = check_range("probability", probability, 0, 1)

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw the partners of ``samples`` images and one box; a batch that stays unmixed has an empty box.

        Args:
            key: Names the draw.
            image_size: ``(H, W)``.
            samples: Number of images.
        """
        mixed = float(uniform(key.fold("mixed"), samples=1)) < self.probability
        side = math.sqrt(1 - float(uniform(key.fold("lambda"), samples=1))) if mixed else 0.0
        edges: list[Tensor] = []
        for axis, size in zip("yx", image_size, strict=True):
            centre, half = integers(key.fold(axis), 0, size, samples=1), int(size * side) // 2
            edges += [(centre - half).clamp(min=0), (centre + half).clamp(max=size)]
        partners = torch.randperm(samples, generator=key.fold("partners").generator())
        return {"cutmix": (partners, *edges)}

    def apply(self, images: Tensor, labels: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix a batch; its loss is ``ratio * CE(labels) + (1 - ratio) * CE(partners' labels)``.

        Args:
            images: ``(n, C, H, W)``.
            labels: ``(n,)``, or soft ones ``(n, classes)``.
            draw: A draw for n images.

        Returns:
            The mixed images, their labels, their partners' labels, and the ratio: the share of the image that is its
            own, a tensor without dimensions, recomputed from the box that is left after cutting.

        Raises:
            SettingsError: The draw is for another number of images.
        """
        height, width = images.shape[-2:]
        partners, top, bottom, left, right = (sent(parameter, images.device) for parameter in draw["cutmix"])
        if partners.shape[0] != images.shape[0]:
            raise SettingsError(
                f"Expected a draw for {images.shape[0]} images, got one for {partners.shape[0]}. "
                "Draw with samples=len(images)."
            )
        y = torch.arange(height, device=images.device)[:, None]
        x = torch.arange(width, device=images.device)
        box = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        ratio = 1 - box.to(geometry_dtype(images)).mean()
        return torch.where(box, images[partners], images), labels, labels[partners], ratio


def mixed(
    images: Tensor, labels: Tensor, probability: float, num_classes: int, key: RandomKey
) -> tuple[Tensor, Tensor]:
    """Mix a training batch, with the two labels of each image joined to one soft label.

    Cross-entropy is linear in the target: with ``ratio * onehot(a) + (1 - ratio) * onehot(b)`` it equals the weighted
    sum of the two cross-entropies, for one forward pass.

    Args:
        images: ``(n, C, H, W)``.
        labels: ``(n,)``, or soft labels ``(n, num_classes)``.
        probability: Of mixing; at 0 images and labels come back as they are.
        num_classes: Length of a soft label.
        key: Names the draw.

    Returns:
        Images, and labels ``(n,)`` or soft labels ``(n, num_classes)``.
    """
    if probability == 0:
        return images, labels
    cutmix = CutMix(probability)
    draw = cutmix.draw(key, (images.shape[-2], images.shape[-1]), len(images))
    images, own, partners, ratio = cutmix.apply(images, labels, draw)
    ratio = ratio.to(images.dtype)
    if labels.ndim == 1:
        own, partners = F.one_hot(own, num_classes), F.one_hot(partners, num_classes)
    return images, ratio * own + (1 - ratio) * partners
