"""ZCA whitening: pixels that are correlated over the image become nearly uncorrelated, and still look like the image.

Trajectory matching (Cazenavette et al., CVPR 2022) and methods after it train on CIFAR whitened so; their programs call
kornia's ``ZCAWhitening`` with ``eps=0.1`` on all training images in [0, 1]. This is the same map.
Letters: n images, C channels, H and W pixels, D = C * H * W; ``...`` stands for any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_condense.data.normalization import PIXEL_RANGE
from lit_condense.errors import DataError, SettingsError

FAMILY = "zca"
"""The name of this normalisation in settings and cards."""

EPS = 0.1
"""Added to the variances (Cazenavette et al., CVPR 2022, by kornia's argument of this name)."""

LARGEST_SIZE = 3 * 64 * 64
"""Largest D: the whitening is a D x D matrix, here of 1.2 GB in float64, and finding it takes D**3 operations."""

MIDDLE = 128
"""Subtracted from 8-bit pixels, so that none is larger."""

PART = 2**24 // MIDDLE**2
"""Images whose products are summed at a time: so many products of 8-bit pixels are summed in float32 without rounding,
in whatever order (float32 holds every whole number up to 2**24)."""


class ZCA:
    r"""Whitening of whole images, fitted to the images it is made with; they are not kept.

    With the mean ``m`` and the covariance ``S = U diag(s) U^T`` of the flattened images (divisor n - 1), an image ``x``
    becomes ``(x - m) T``, ``T = U diag((s + eps)**-1/2) U^T``. Sums over 8-bit images are exact, whatever the number of
    threads. To whiten is one matrix product: its last digits depend on how many images share it, and under a lowered
    ``float32_matmul_precision`` it has that precision.

    Args:
        images: ``(n, C, H, W)``, uint8, or floating point in [0, 1]; 2 or more.
        eps: Added to every variance, so that what hardly varies is not amplified without end.
        fitted_on: A fingerprint of the training split that the images are, for cards and comparisons.

    Attributes:
        image_shape: ``(C, H, W)``.

    Raises:
        SettingsError: ``eps`` is not a positive number.
        DataError: There are fewer than two images, they are too large, or a pixel is not finite.
    """

    per_channel: ClassVar[bool] = False
    # Arguments under their own names; not the images, so that settings_of sees small plain data.
    image_shape: tuple[int, int, int]
    eps: float
    fitted_on: str

    def __init__(self, images: Tensor, eps: float = EPS, *, fitted_on: str) -> None:
        if not (math.isfinite(eps) and eps > 0):
            raise SettingsError(f"Expected ZCA.eps to be a positive number, got {eps}. The published one is {EPS}.")
        _check_images(images)
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        self.eps = float(eps)
        self.fitted_on = fitted_on
        # the first use of data may be in a validation, in inference mode: tensors made there take no part in training
        with torch.inference_mode(False), torch.no_grad():
            self._mean, covariance = _moments(images)
            self._whitening, self._colouring = _roots(covariance, self.eps)
        self._casts: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def normalize(self, images: Tensor) -> Tensor:
        """Whiten pixels in [0, 1].

        Args:
            images: ``(..., C, H, W)``, floating point. Those of 16 bits are whitened in float32.

        Returns:
            A new tensor of the same shape, dtype and device; differentiable any number of times.

        Raises:
            DataError: ``(C, H, W)`` is not that of the images that this was fitted to.
        """
        flat = self._flat(images)
        with torch.autocast(flat.device.type, enabled=False):
            whitened = (flat - self._cast("mean", flat)) @ self._cast("whitening", flat)
        return whitened.to(images.dtype).reshape(images.shape)

    def denormalize(self, images: Tensor) -> Tensor:
        """Map whitened images ``(..., C, H, W)`` back to pixels, by the inverse matrix; nothing is clamped.

        Raises:
            DataError: ``(C, H, W)`` is not that of the images that this was fitted to.
        """
        flat = self._flat(images)
        with torch.autocast(flat.device.type, enabled=False):
            pixels = flat @ self._cast("colouring", flat) + self._cast("mean", flat)
        return pixels.to(images.dtype).reshape(images.shape)

    def check_shape(self, image_shape: Sequence[int]) -> None:
        """Refuse images of another shape ``(C, H, W)`` than those that this was fitted to.

        Raises:
            DataError: They have another.
        """
        if tuple(image_shape) != self.image_shape:
            raise DataError(
                f"This ZCA was fitted to images of shape {self.image_shape} and needs such, but got "
                f"{tuple(image_shape)}. Fit one to images of this shape: `normalization: zca` with their data."
            )

    def describe(self) -> dict[str, Any]:
        """Return what decides the whitening: not the matrix, whose last digits another machine computes otherwise."""
        return {"family": FAMILY, "eps": self.eps, "fitted_on": self.fitted_on}

    def _flat(self, images: Tensor) -> Tensor:
        """Return the images as rows ``(..., D)``, in float32 or float64."""
        self.check_shape(images.shape[-3:])
        rows = images.flatten(-3)
        return rows if images.dtype == torch.float64 else rows.float()

    def _cast(self, name: str, like: Tensor) -> Tensor:
        """Return the mean or a matrix in the type and on the device of a tensor; made once for each."""
        key = (name, like.device, like.dtype)
        if key not in self._casts:
            with torch.inference_mode(False):
                self._casts[key] = getattr(self, f"_{name}").to(like.device, like.dtype)
        return self._casts[key]


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or images.numel() == 0 or len(images) < 2:
        raise DataError(
            f"Expected two or more images (n, C, H, W) to fit ZCA to, got {tuple(images.shape)}: one has no "
            "covariance. Add training images, or use another `normalization`."
        )
    if (size := images[0].numel()) > LARGEST_SIZE:
        raise DataError(
            f"Expected images of at most {LARGEST_SIZE} values (64 x 64 in colour) for ZCA, got {size}: the whitening "
            "is a matrix with a row and a column for each. Use smaller images, or another `normalization`."
        )


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean ``(D,)`` and covariance ``(D, D)`` of the images in [0, 1], in float64 on the CPU.

    Pixels are shifted to lie around 0, so that little is lost when the squared mean is taken off the mean square.
    """
    count, size = len(images), images[0].numel()
    total = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    for part in torch.split(images.flatten(1), PART):
        rows = _shifted(part.cpu())
        total += rows.sum(0)
        products += rows.T @ rows
    # in place: the matrix may be large
    covariance = products.addr_(total, total, alpha=-1 / count).div_(count - 1)
    if not bool(torch.isfinite(total).all()):
        raise DataError("Expected finite pixels to fit ZCA to, got NaN or infinity. Remove or repair these images.")
    mean = total / count
    if images.is_floating_point():
        return mean + MIDDLE / PIXEL_RANGE, covariance
    return (mean + MIDDLE) / PIXEL_RANGE, covariance.div_(PIXEL_RANGE**2)


def _shifted(part: Tensor) -> Tensor:
    """Return rows around 0: whole numbers in float32 for 8-bit pixels, else float64."""
    if part.is_floating_point():
        return part.double() - MIDDLE / PIXEL_RANGE
    return part.float() - MIDDLE


def _roots(covariance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``(S + eps)**-1/2`` and ``(S + eps)**1/2``, symmetric to the last digit."""
    variances, directions = torch.linalg.eigh(covariance)
    scale = (variances.clamp_(min=0) + eps).sqrt()  # rounding leaves constant pixels below 0
    whitening, colouring = ((directions * by) @ directions.T for by in (1 / scale, scale))
    return (whitening + whitening.T) / 2, (colouring + colouring.T) / 2
