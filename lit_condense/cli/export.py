"""``lit-condense export SET``: write a set in the layout of another program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lit_condense.export import load_condensed
from lit_condense.interchange import FORMATS, write_set
from lit_condense.interchange.writing import lost


def main(args: Sequence[str]) -> None:
    """Write a condensed set of this program in another layout, and say what that loses."""
    parser = argparse.ArgumentParser(prog="lit-condense export", description=main.__doc__)
    parser.add_argument("condensed", metavar="SET", help="a run's folder, its condensed.safetensors, or a shipped set")
    parser.add_argument("--format", choices=FORMATS, default="image_folder", help="see docs/interchange.md")
    parser.add_argument(
        "--out", metavar="FOLDER", required=True, help="where to; a folder of images must be new or empty"
    )
    options = parser.parse_args(args)
    condensed = load_condensed(options.condensed)
    paths = write_set(condensed, options.format, options.out)
    print("\n".join(["Wrote:", *(f"  {path}" for path in paths)]))
    if options.format == "image_folder":
        outside = condensed.card.get("pixels", {}).get("share_outside", 0.0)
        print(
            f"These are {len(condensed.labels)} PNG images. 8-bit rounding and clamping lose information "
            f"({outside:.1%} of the values lay outside [0, 1]); lit-condense evaluate scores them."
        )
    left_out = lost(condensed, options.format)
    if left_out:
        print(f"The set also has {' and '.join(left_out)}, which this layout cannot hold: networks do worse without.")
