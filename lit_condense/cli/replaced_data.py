"""Data of another class take nothing over from the data that they replace.

A second config with one's own images keeps what the first one says of model and trainer. Of the first one's data the
parser would keep whatever the new class knows too, constants of a published normalisation among it.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_condense.cli.shipped import OPTIONS

DATA = "--data"


def forgetting(args: Sequence[str]) -> list[str]:
    """Return options that take settings back to their defaults that were given for data of another class.

    Args:
        args: The command line, in which every config is a file.
    """
    used, given, old = "", set[str](), set[str]()
    for node in _nodes(args):
        name = str(node.get("class_path", used))
        if name.rpartition(".")[2] != used.rpartition(".")[2]:
            used, given, old = name, set(), old | given
        given |= set(node.get("init_args") or {})
    defaults = _defaults(used) if old - given else {}
    return [f"{DATA}.init_args.{name}={_said(defaults[name])}" for name in sorted(old - given) if name in defaults]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _defaults(class_path: str) -> dict[str, Any]:
    """Return the defaults of a class's settings; of one that cannot be found, which the parser will say, none."""
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "lit_condense.data"), name)
    except (ImportError, AttributeError):
        return {}
    parameters = inspect.signature(kind).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def _nodes(args: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Go through all that is said of the data, in the order in which it counts."""
    for option, value in _options(args):
        if option in OPTIONS and Path(value).is_file():  # a pipe can be read once only
            config = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            yield _as_node(config.get("data") if isinstance(config, dict) else None)
        elif option == DATA:
            yield _as_node(yaml.safe_load(value))
        elif option.startswith(f"{DATA}."):
            name = option.removeprefix(f"{DATA}.")
            setting = name.removeprefix("init_args.").partition(".")[0]
            yield {"class_path": value} if name == "class_path" else {"init_args": {setting: None}}


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    for option, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = option.partition("=")
        if name.startswith("-"):
            yield name, value if equals else following


def _as_node(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {"class_path": node} if isinstance(node, str) else {}
