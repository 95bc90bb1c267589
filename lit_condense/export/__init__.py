"""Condensed sets as files: safetensors with a card, pictures, image folders."""

from lit_condense.export.condensed_set import CondensedSet, load_condensed, save_condensed
from lit_condense.export.figure import image_pages
from lit_condense.export.images import write_grid, write_image_folder

__all__ = ["CondensedSet", "image_pages", "load_condensed", "save_condensed", "write_grid", "write_image_folder"]
