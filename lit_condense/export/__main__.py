"""``python -m lit_condense.export SET --output FOLDER``: write a condensed set in another layout."""

from __future__ import annotations

import sys
from typing import Literal

from jsonargparse import auto_cli

from lit_condense.errors import CondenseError
from lit_condense.export.condensed_set import load_condensed
from lit_condense.export.images import write_image_folder


def export(condensed: str, output: str, format: Literal["image_folder"] = "image_folder") -> None:
    """Write a condensed set in another layout.

    Args:
        condensed: The ``.safetensors`` file or the folder that holds it.
        output: Folder to write to.
        format: ``image_folder``: 8-bit PNG files that torchvision's ImageFolder reads with the same labels.
    """
    read = load_condensed(condensed)
    write_image_folder(output, read)
    outside = read.card.get("pixels", {}).get("share_outside", 0.0)
    print(
        f"Wrote {len(read.labels)} PNG images to {output}. 8-bit rounding and clamping lose information "
        f"({outside:.1%} of the values lay outside [0, 1]); the accuracy of the rounded images was not measured."
    )


if __name__ == "__main__":
    try:
        auto_cli(export, as_positional=True)
    except CondenseError as error:
        sys.exit(f"error: {error}")
