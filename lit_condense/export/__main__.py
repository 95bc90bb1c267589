"""``python -m lit_condense.export SET --output FOLDER``: write a condensed set in another layout."""

from __future__ import annotations

import argparse
import sys

from lit_condense.errors import CondenseError
from lit_condense.export.condensed_set import load_condensed
from lit_condense.export.images import write_image_folder

FORMATS = {"image_folder": write_image_folder}


def export(condensed: str, output: str, format: str = "image_folder") -> None:
    """Write a condensed set in another layout and say what that cost.

    Args:
        condensed: The ``.safetensors`` file or the folder that holds it.
        output: Folder to write to.
        format: A key of ``FORMATS``.
    """
    read = load_condensed(condensed)
    FORMATS[format](output, read)
    outside = read.card.get("pixels", {}).get("share_outside", 0.0)
    print(
        f"Wrote {len(read.labels)} PNG images to {output}. 8-bit rounding and clamping lose information "
        f"({outside:.1%} of the values lay outside [0, 1]); the accuracy of the rounded images was not measured."
    )
    lost = [("soft labels", read.soft_labels), ("a step size", read.inner_lr), ("weights", read.weights)]
    left_out = [name for name, value in lost if value is not None]
    if left_out:
        print(f"The set also has {' and '.join(left_out)}, which this layout cannot hold: networks do worse without.")


def main() -> None:
    """Entry point of ``python -m lit_condense.export``: errors meant for the user end as one message."""
    parser = argparse.ArgumentParser("python -m lit_condense.export", description="Write a set in another layout.")
    parser.add_argument("condensed", metavar="SET", help="the .safetensors file or the folder that holds it")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="new or empty folder to write to")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="image_folder",
        help="image_folder: 8-bit PNG files that torchvision's ImageFolder reads with the same labels",
    )
    try:
        export(**vars(parser.parse_args()))
    except CondenseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
