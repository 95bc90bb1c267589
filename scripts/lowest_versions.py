"""Print the lowest supported version of every dependency in pyproject.toml, as constraints for pip."""

from __future__ import annotations

import re
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
FLOOR = re.compile(r'^  "(?P<name>[\w-]+)(?:\[\w+\])?>=(?P<version>[\d.]+)')


def lowest(text: str) -> dict[str, str]:
    """Return name -> version of the package's own dependencies (not those of its extras)."""
    start = text.index("\ndependencies = [")
    block = text[start : text.index("\n]", start)]
    found = [FLOOR.match(line) for line in block.splitlines()]
    return {match["name"]: match["version"] for match in found if match}


if __name__ == "__main__":
    for name, version in lowest(PYPROJECT.read_text()).items():
        print(f"{name}=={version}")
    print("numpy<2")  # scikit-learn 1.3 was built against it
