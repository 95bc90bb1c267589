"""One split of the real data in one tensor, held on one device.

Shapes: N images, C channels, H and W pixels; ``*`` stands for any leading dimensions.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from lit_condense.data.names import in_one_form
from lit_condense.data.normalization import PIXEL_RANGE, Normalizer, measured
from lit_condense.data.real_images import RealImages
from lit_condense.data.zca import ZCA
from lit_condense.errors import DataError, SettingsError
from lit_condense.transfer import sent

HASHED_IMAGES = 8192  # images copied to the CPU at a time for the fingerprint


class TensorImages(RealImages):
    """The images and labels of one split, kept as they came.

    Args:
        images: ``(N, C, H, W)``, uint8, or floating point in [0, 1] (kept as float32).
        labels: ``(N,)``, whole numbers from 0 to ``num_classes - 1``.
        num_classes: Number of classes, each of which must have an image.
        normalization: What ``at`` applies; None measures it on these images, ``zca`` fits a whitening to them.
        class_names: One name a class.
        split: The split's name, for messages.

    Attributes:
        images: As given, on the device that holds them.
        labels: int64, beside the images.
        device: Where ``at``, ``pixels_at`` and ``labels_at`` deliver. The images themselves may be held elsewhere.
        image_shape: ``(C, H, W)``.
        class_sizes: Number of images of each class.

    Raises:
        DataError: Shapes, types or labels do not fit, a class is empty, or pixels are not finite or outside [0, 1].
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        normalization: Normalizer | Literal["zca"] | None,
        class_names: Sequence[str],
        split: str = "train",
    ) -> None:
        check_shapes(images, labels, split)
        if len(class_names) != num_classes:
            raise DataError(f"Expected one name for each of {num_classes} classes but got {len(class_names)} names.")
        self.images = _checked_pixels(images, split).contiguous()
        self.labels = _checked_labels(labels, num_classes, split).to(images.device)
        self.num_classes = num_classes
        self.normalization = self._made(normalization)
        self.normalization.check_shape(images.shape[1:])
        self.class_names = in_one_form(class_names)
        self.split = split
        self.device = images.device
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        by_class = torch.argsort(self.labels.cpu(), stable=True)
        self.class_sizes: list[int] = torch.bincount(self.labels.cpu(), minlength=num_classes).tolist()
        self._indices = torch.split(by_class, self.class_sizes)
        for index, size in enumerate(self.class_sizes):
            if size == 0:
                raise DataError(
                    f"Class {index} ({class_names[index]}) has no images in the {split} split. "
                    "Add images or leave the class out with `classes`."
                )

    def _made(self, normalization: Normalizer | Literal["zca"] | None) -> Normalizer:
        if normalization == "zca":
            return ZCA(self.images, fitted_on=self.fingerprint())
        return measured(self.images) if normalization is None else normalization

    def indices_of(self, class_index: int) -> Tensor:
        """Return where the images of a class stand, ascending, int64 on the CPU. Do not write into it.

        Raises:
            SettingsError: There is no such class.
        """
        if not 0 <= class_index < self.num_classes:
            raise SettingsError(f"Expected a class index from 0 to {self.num_classes - 1} but got {class_index}.")
        return self._indices[class_index]

    def pixels_at(self, indices: Tensor) -> Tensor:
        """Return the images at ``indices`` (any shape ``*``) in [0, 1]: ``(*, C, H, W)`` float32 on ``device``."""
        chosen = self.images.index_select(0, sent(indices.reshape(-1), self.images.device))
        # bytes travel, not floats; the arithmetic happens where the result is wanted
        pixels = sent(chosen, self.device).to(torch.float32)
        if not self.images.is_floating_point():
            pixels = pixels.div_(PIXEL_RANGE)
        return pixels.view(*indices.shape, *self.image_shape)

    def labels_at(self, indices: Tensor) -> Tensor:
        """Return the labels at ``indices`` (any shape): int64 of that shape on ``device``."""
        return sent(self.labels[sent(indices, self.labels.device)], self.device)

    def to(self, device: torch.device | str) -> TensorImages:
        """Return this split delivering on ``device``; self where it already does.

        The images move too, unless the device is a GPU and they would take more than half of its free memory: then
        they stay in (or go back to) main memory and each batch is moved when it is asked for. Results are the same.
        """
        target = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0", so that devices compare
        if target == self.device:
            return self
        moved = copy.copy(self)
        holder = target if _fits(self.images, target) else torch.device("cpu")
        # Lightning validates in inference mode; tensors made there could never take part in training
        with torch.inference_mode(False):
            moved.images, moved.labels = self.images.to(holder), self.labels.to(holder)
        moved.device = target
        return moved

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, pixel type, image bytes and label bytes, as 64 hexadecimal digits."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.images.shape), str(self.images.dtype))).encode())
        for part in torch.split(self.images, HASHED_IMAGES):
            digest.update(part.cpu().numpy().data)
        digest.update(self.labels.cpu().numpy().astype("<i8").data)
        return digest.hexdigest()


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * images.element_size() <= free // 2


def check_shapes(images: Tensor, labels: Tensor, split: str) -> None:
    """Check that images are ``(N, C, H, W)`` and labels ``(N,)``.

    Raises:
        DataError: They are not.
    """
    if images.dim() != 4 or images.numel() == 0:
        raise DataError(f"Expected {split} images of shape (N, C, H, W), none of it 0, but got {tuple(images.shape)}.")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"Expected one label for each of the {len(images)} {split} images but got labels of shape "
            f"{tuple(labels.shape)}."
        )


def _checked_labels(labels: Tensor, num_classes: int, split: str) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"Expected {split} labels to be whole numbers but got {labels.dtype}.")
    labels = labels.to(torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"Expected {split} labels from 0 to {num_classes - 1} but they go from {low} to {high}. "
            "Relabel the data or name all classes."
        )
    return labels


def _checked_pixels(images: Tensor, split: str) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise DataError(f"Expected {split} images as uint8, or floating point in [0, 1], but got {images.dtype}.")
    images = images.to(torch.float32)
    finite = torch.isfinite(images)
    if not finite.all():
        first = torch.nonzero(~finite)[0].tolist()
        raise DataError(
            f"The {split} images hold {int((~finite).sum())} value(s) that are not finite; the first is at "
            f"[image, channel, row, column] = {first}. Remove or repair these images."
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise DataError(
            f"Expected floating-point {split} images in [0, 1] but they go from {low:g} to {high:g}. "
            "Divide by the value that is white (`white_level` of ArrayFile), or store uint8."
        )
    return images
