"""Find options that a config sets to null though their type takes none: the parser lets null stand anywhere."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from jsonargparse import Namespace


def null_options(node: Any, name: str, taken_by: Callable[..., Any] | None = None) -> Iterator[str]:
    """Yield the names of such options.

    Args:
        node: A part of a parsed config: options, a list, or one value.
        name: Of the part, as a key of the config.
        taken_by: Class or function whose arguments the part holds, where it is known.
    """
    if isinstance(node, list):
        for i, child in enumerate(node):
            yield from null_options(child, f"{name}[{i}]")
    options = vars(node) if isinstance(node, Namespace) else node
    if not isinstance(options, Mapping):
        return
    refused = _without_none(taken_by) if taken_by else set()
    for key, child in options.items():
        if child is None and key in refused:
            yield f"{name}.{key}"
        inner = _named(options.get("class_path")) if key == "init_args" else None
        yield from null_options(child, name if inner else f"{name}.{key}", inner)


def _named(class_path: Any) -> Callable[..., Any] | None:
    try:
        found = pkgutil.resolve_name(class_path)
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return found if callable(found) else None


def _without_none(called: Callable[..., Any]) -> set[str]:
    """Return the arguments whose type and default are not None."""
    function = called.__init__ if inspect.isclass(called) else called
    try:
        hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    except (NameError, TypeError, ValueError, AttributeError):  # names that exist for type checkers only
        return set()
    return {
        name
        for name, hint in hints.items()
        if hint is not Any
        and NoneType not in get_args(hint)
        and name in parameters
        and parameters[name].default is not None
    }
