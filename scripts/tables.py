"""What the scripts that rebuild tables share: reading cards, writing between markers, checking."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def rebuild(page: str, tables: dict[str, Callable[[], str]]) -> None:
    """Rewrite the named tables of a page; with --check on the command line, fail if that would change it."""
    path = ROOT / page
    old = new = path.read_text()
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = table()
        new = re.sub(pattern, lambda match, text=text: f"{match[1]}{text}\n{match[2]}", new, flags=re.DOTALL)  # type: ignore[misc]
    if "--check" in sys.argv and new != old:
        sys.exit(f"{page} does not show what results/ and benchmarks/results/ hold: run scripts/build_readme.py")
    path.write_text(new)


def cards(pattern: str) -> dict[Path, dict[str, Any]]:
    """Return the cards whose folders match, by folder relative to results/."""
    found = sorted(RESULTS.glob(f"{pattern}/card.json"))
    return {path.parent.relative_to(RESULTS): json.loads(path.read_text()) for path in found}


def measurements(root: Path, pattern: str) -> list[dict[str, Any]]:
    """Return the JSON files that the benchmarks of a checkout wrote under such names."""
    return [json.loads(path.read_text()) for path in sorted((root / "benchmarks" / "results").glob(pattern))]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def percent(score: dict[str, Any]) -> str:
    """Return mean and spread of a score of a card, in per cent."""
    return f"{100 * score['accuracy_mean']:.1f} +- {100 * score['accuracy_std']:.1f}"
