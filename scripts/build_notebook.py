"""Build notebooks/*.ipynb from their paired scripts, without outputs; with --check, fail if one is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def built(script: Path) -> str:
    """Return the notebook of a script as text, the same at every call."""
    notebook = jupytext.read(script)
    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position}"
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return str(nbformat.writes(notebook, version=4)) + "\n"


def main() -> None:
    """Write every notebook."""
    for script in sorted(NOTEBOOKS.glob("*.py")):
        path, text = script.with_suffix(".ipynb"), built(script)
        if "--check" in sys.argv and path.read_text() != text:
            sys.exit(f"{path.name} is not what {script.name} gives: run scripts/build_notebook.py")
        path.write_text(text)


if __name__ == "__main__":
    main()
