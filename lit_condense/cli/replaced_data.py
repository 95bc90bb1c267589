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
HOME = "lit_condense.data"
"""Where a class stands that is named without its module."""


def forgetting(args: Sequence[str]) -> list[str]:
    """Return options that take settings back to their defaults that were given for data of another class.

    What a flag says of a single setting stays, wherever the flag stands.

    Args:
        args: The command line, in which every config is a file.
    """
    used: Any = None
    given, old, flagged = set[str](), set[str](), set[str]()
    for node, is_flag in _nodes(args):
        kind = _class(node["class_path"]) if "class_path" in node else used
        if kind != used:
            used, given, old = kind, set(), old | given
        settings = set(node.get("init_args") or {})
        given |= settings
        flagged |= settings if is_flag else set()
    defaults = _defaults(used)
    told = {name: _said(defaults[name]) for name in sorted(old - given - flagged) if name in defaults}
    return [f"{DATA}.init_args.{name}={value}" for name, value in told.items() if value is not None]


def _class(class_path: Any) -> Any:
    """Return the class of that name; the name itself where there is none, which the parser will say."""
    module, _, name = str(class_path).rpartition(".")
    try:
        return getattr(importlib.import_module(module or HOME), name)
    except (ImportError, AttributeError, ValueError):
        return class_path


def _defaults(kind: Any) -> dict[str, Any]:
    """Return the defaults of a class's settings, those that it hands on to its bases among them."""
    found: dict[str, Any] = {}
    for base in kind.__mro__ if isinstance(kind, type) else ():
        for one in inspect.signature(vars(base)["__init__"]).parameters.values() if "__init__" in vars(base) else ():
            if one.default is not inspect.Parameter.empty:
                found.setdefault(one.name, one.default)
    return found


def _said(value: Any) -> str | None:
    """Return a default as the command line says it; None where it cannot."""
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except TypeError:
        return None


def _nodes(args: Sequence[str]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Go through all that is said of the data, in the order in which it counts, and whether a flag says one setting."""
    for option, value in _options(args):
        if option in OPTIONS:
            config = _read(value)
            yield _as_node(config.get("data") if isinstance(config, dict) else None), False
        elif option == DATA:
            yield _as_node(_read(value)), False
        elif option == f"{DATA}.class_path":
            yield {"class_path": value}, False
        elif option == f"{DATA}.init_args":
            yield _as_node({"init_args": _read(value)}), True
        elif option.startswith(f"{DATA}."):
            name = option.removeprefix(f"{DATA}.").removeprefix("init_args.").partition(".")[0].rstrip("+")
            yield {"init_args": {name: None}}, True


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    for option, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = option.partition("=")
        if name.startswith("-c") and len(name) > 2:
            yield "-c", option.removeprefix("-c")
        elif name.startswith("-"):
            yield name, value if equals else following


def _read(value: str) -> Any:
    """Return what a file or a value says; nothing where it is no YAML, which the parser will say."""
    try:
        is_file = bool(value) and Path(value).is_file()
        return yaml.safe_load(Path(value).read_text(encoding="utf-8") if is_file else value)
    except (yaml.YAMLError, OSError, ValueError):
        return None


def _as_node(said: Any) -> dict[str, Any]:
    """Return what is said of the data with class and settings apart."""
    if isinstance(said, str):
        return {"class_path": said}
    if not isinstance(said, dict):
        return {}
    node = said if {"class_path", "init_args"} & set(said) else {"init_args": said}
    return node if isinstance(node.get("init_args", {}), dict) else {**node, "init_args": {}}
