"""The command line."""

from lit_condense.cli.command import main, run

__all__ = ["main", "run"]
