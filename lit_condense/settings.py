"""Read an object's settings back as plain data, for cards, logs and the check on resume.

Every configurable class keeps each constructor argument under an attribute of the same name (scikit-learn's
convention), so its settings can be read from the outside.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from lit_condense.networks import NetworkFactory, factory_target

Plain = dict[str, Any]

ROUNDING = 1e-12
"""Relative difference of two numbers that are taken to be the same."""


PUBLIC = ("lit_condense.", "torch.optim.")
"""Names that are written as short as they can be imported, so that they stay when a file moves."""


def settings_of(thing: Any) -> Any:
    """Return ``thing`` as plain data: numbers, strings, lists, and ``{"class_path": ..., "init_args": ...}``."""
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, Path):
        return str(thing)
    if isinstance(thing, dict):
        return {str(name): settings_of(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [settings_of(value) for value in thing]
    if is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: settings_of(getattr(thing, f.name)) for f in fields(thing)}
    if isinstance(thing, functools.partial | type) or inspect.isfunction(thing):
        target, keywords = factory_target(cast(NetworkFactory, thing))
        return _named(target, _with_defaults(target, keywords))
    names = list(inspect.signature(type(thing).__init__).parameters)[1:]
    return _named(type(thing), {name: getattr(thing, name) for name in names if hasattr(thing, name)})


def flat(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted name, value)`` of every leaf."""
    if isinstance(plain, dict) and plain:
        for name, value in plain.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, plain


def differences(before: Plain, now: Plain) -> list[str]:
    """Return one line for each setting that differs, with both values; numbers may differ by rounding."""
    old, new = dict(flat(before)), dict(flat(now))
    missing = "(absent)"
    return [
        f"{name}: {old.get(name, missing)!r} then, {new.get(name, missing)!r} now"
        for name in sorted(old.keys() | new.keys())
        if not _same(*(_comparable(name, side.get(name, missing)) for side in (old, new)))
    ]


def with_new_defaults(before: Any, now: Any) -> Any:
    """Return settings of an older version with what its classes did not know yet, where that has its default now.

    An option that came later changes nothing as long as nobody sets it: a run of before may go on.

    Args:
        before: As plain data.
        now: Those of this version.
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [with_new_defaults(*pair) for pair in zip(before, now, strict=True)]
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before
    found = {name: with_new_defaults(value, now.get(name)) for name, value in before.items()}
    if {"class_path", "init_args"} <= found.keys() and isinstance(now.get("init_args"), dict):
        defaults = plain_defaults(found["class_path"])
        arguments: Plain = found["init_args"]
        new = {name: value for name, value in now["init_args"].items() if name in defaults and name not in arguments}
        found["init_args"] = arguments | {name: value for name, value in new.items() if defaults[name] == value}
    return found


def plain_defaults(path: str) -> Plain:
    """Return the defaults of a class of this library; of others nothing is known."""
    module, _, name = canonical(path).rpartition(".")
    if not module.startswith("lit_condense."):
        return {}
    try:
        target = getattr(importlib.import_module(module), name, None)
    except ImportError:  # it is gone: the comparison says so
        return {}
    return _with_defaults(target, {}) if callable(target) else {}


def public_path(target: Callable[..., Any]) -> str:
    """Return the shortest name under which a class or function of this library can be imported, or its full one."""
    full = f"{target.__module__}.{target.__qualname__}"
    if not full.startswith(PUBLIC):
        return full
    packages = target.__module__.split(".")
    for end in range(1, len(packages)):
        name = ".".join(packages[:end])
        if getattr(importlib.import_module(name), target.__qualname__, None) is target:
            return f"{name}.{target.__qualname__}"
    return full


def canonical(path: str) -> str:
    """Return the public path of what a path of any version names; the path itself where that is gone."""
    parts = path.split(".")
    if not path.startswith(PUBLIC):
        return path
    for end in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ImportError:  # the file has moved: its package may still know the name
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            found = getattr(module, parts[-1], None)
        if callable(found):
            return public_path(found)
    return path


def _comparable(name: str, value: Any) -> Any:
    return canonical(value) if name.rpartition(".")[2] == "class_path" and isinstance(value, str) else value


def _same(one: Any, other: Any) -> bool:
    """Compare two leaves. Measured values are sums, whose last digits depend on the number of threads."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ROUNDING) or one == other
    return bool(one == other)


def _named(target: Callable[..., Any], arguments: Plain) -> Plain:
    return {
        "class_path": public_path(target),
        "init_args": {name: settings_of(value) for name, value in arguments.items()},
    }


def _with_defaults(target: Callable[..., Any], keywords: Plain) -> Plain:
    """Fill in the target's own defaults, so that writing one out is no difference."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **keywords}
