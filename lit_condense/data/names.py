"""Names of classes in one Unicode form: some file systems and archives give an accented letter as two characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def in_one_form(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with every letter in its composed form (NFC), so that equal names compare equal."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)
