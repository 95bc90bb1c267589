"""A set as pictures to look at: each class under its name, several images a row, pages where there are many classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

COLUMNS = 10
"""Images side by side, of one class or of several."""
SMALLEST_TILE = 64
"""Pixels of an image's shorter side; smaller images are enlarged by a whole factor, so that each pixel is a square."""
LARGEST_PAGE = 2000
"""Pixels of a page's height."""
GAP, CAPTION = 4, 18
"""Pixels between images, and above them for the name of their class."""
PICTURE_CHANNELS = (1, 3)
PAPER, INK = "white", "black"


def image_pages(images: Tensor, labels: Tensor, class_names: Sequence[str] | None = None) -> list[Tensor]:
    """Return a set as pages, class by class, each class with its first ten images.

    Args:
        images: ``(n, C, H, W)`` in [0, 1]; what lies outside is clamped, on one fixed scale for all images. Neither
            one nor three channels are shown as their mean.
        labels: ``(n,)``.
        class_names: One a class; by default the labels themselves.

    Returns:
        One or more pages ``(3, height, width)`` in [0, 1], each at most 2,000 pixels high, unless one row is higher.
    """
    if images.shape[1] not in PICTURE_CHANNELS:
        images = images.mean(1, keepdim=True)
    classes = int(labels.max()) + 1
    names = [str(c) for c in range(classes)] if class_names is None else list(class_names)
    blocks = [(_caption(names[c], int((labels == c).sum())), images[labels == c][:COLUMNS]) for c in range(classes)]
    across = max(len(tiles) for _, tiles in blocks)
    a_row = COLUMNS // across
    rows = [blocks[start : start + a_row] for start in range(0, classes, a_row)]
    factor = math.ceil(SMALLEST_TILE / min(images.shape[-2:]))
    height, width = (factor * side + GAP for side in images.shape[-2:])
    a_page = max(1, (LARGEST_PAGE - GAP) // (height + CAPTION))
    size = (GAP + min(a_row, classes) * across * width, height + CAPTION)
    pages = [rows[start : start + a_page] for start in range(0, len(rows), a_page)]
    return [_page(page, size, across * width, width, factor) for page in pages]


def _caption(name: str, images: int) -> str:
    return f"{name} ({COLUMNS} of {images})" if images > COLUMNS else name


def _page(
    rows: Sequence[Sequence[tuple[str, Tensor]]], size: tuple[int, int], block: int, tile: int, factor: int
) -> Tensor:
    """Draw the rows of a page.

    Args:
        rows: The classes of each, caption and images.
        size: Width of the page, and height of a row.
        block: Width of a class.
        tile: Width of an image, gap included.
        factor: By which images are enlarged.
    """
    page = Image.new("RGB", (size[0], GAP + len(rows) * size[1]), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default()
    for r, row in enumerate(rows):
        for b, (caption, tiles) in enumerate(row):
            left, top = GAP + b * block, GAP + r * size[1]
            draw.text((left, top), _fitting(caption, block - GAP, font), fill=INK, font=font)
            for t, image in enumerate(tiles):
                page.paste(_picture(image, factor), (left + t * tile, top + CAPTION))
    pixels: Tensor = pil_to_tensor(page)
    return pixels.float() / 255


def _picture(image: Tensor, factor: int) -> Image.Image:
    enlarged = F.interpolate(image[None].float().clamp(0, 1), scale_factor=factor, mode="nearest")[0]
    picture: Image.Image = to_pil_image(enlarged.mul(255).round().to(torch.uint8).cpu())
    return picture.convert("RGB")


def _fitting(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Return as much of a text as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
