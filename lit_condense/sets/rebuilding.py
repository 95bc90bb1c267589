"""Make an object again from its plain settings: the inverse of :func:`lit_condense.settings.settings_of`.

Settings may come from a file of unknown origin. Nothing is unpickled and no function is called. Only classes are made,
and only those that the argument takes: a class of lit_condense or one that derives from it; for a network an
``nn.Module``, for an optimizer a ``torch.optim.Optimizer``, neither of which is more than named until a run makes it.
Modules of lit_condense and ``torch.optim`` are imported; any other must have been imported before (Lightning has the
same rule for its checkpoints): a file cannot make Python run a module that happens to lie in the working folder.
"""

from __future__ import annotations

import collections.abc
import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

from torch import nn
from torch.optim import Optimizer

from lit_condense.errors import CheckpointError
from lit_condense.networks import NetworkFactory
from lit_condense.settings import Plain

IMPORTED = ("lit_condense", "torch.optim")
"""Packages whose modules are imported when settings name them."""

FACTORIES = (nn.Module, Optimizer)


class UnmakeableError(Exception):
    """Settings cannot become an object; the message is the end of a sentence."""


def arguments_of(cls: type, plain: Plain, given: collections.abc.Collection[str]) -> Plain:
    """Return the arguments that an object of ``cls`` was made with.

    Args:
        cls: The class.
        plain: What ``settings_of`` said of the object.
        given: Arguments that are not wanted, because they are given otherwise.

    Raises:
        CheckpointError: One cannot be made again.
    """
    hints, found = _hints(cls), {}
    for name, value in plain["init_args"].items():
        if name in given:
            continue
        try:
            found[name] = rebuilt(value, hints.get(name))
        except UnmakeableError as error:
            raise CheckpointError(
                f"Expected to make the {name} of the set again, {error}. Give it yourself: "
                f"{cls.__name__}.load_from_checkpoint(path, {name}=...)."
            ) from error
    return found


def rebuilt(plain: Any, hint: Any = None) -> Any:
    """Return what ``settings_of`` turned into ``plain``; tuples come back as lists.

    Args:
        plain: Plain settings.
        hint: Type of the argument that they are for, where it is known.

    Raises:
        UnmakeableError: They name something that cannot or must not be made.
    """
    if isinstance(plain, list):
        return [rebuilt(one, hint) for one in plain]
    if isinstance(plain, dict) and plain.keys() == {"class_path", "init_args"}:
        return _made(plain["class_path"], plain["init_args"], list(_leaves(hint)))
    if isinstance(plain, dict):
        return {name: rebuilt(value) for name, value in plain.items()}
    return plain


def _made(path: str, init_args: Plain, kinds: list[Any]) -> Any:
    target = _resolved(path)
    own = tuple(kind for kind in kinds if _of_package(kind) and kind is not NetworkFactory)
    is_factory = NetworkFactory in kinds or collections.abc.Callable in kinds
    if not own and not is_factory:  # the argument has no annotation that says so
        is_factory = issubclass(target, FACTORIES)
        own = tuple(base for base in target.__mro__ if _of_package(base))
    bases = FACTORIES if is_factory else own
    if not issubclass(target, bases or ()):
        names = " or ".join(base.__name__ for base in bases or FACTORIES)
        raise UnmakeableError(f"{path} is no {names}")
    hints = _hints(target)
    arguments = {name: rebuilt(value, hints.get(name)) for name, value in init_args.items()}
    if is_factory:
        return functools.partial(target, **arguments) if arguments else target
    unknown = [name for name in _parameters(target) if name not in arguments]
    if unknown:
        raise UnmakeableError(f"{path} does not keep its {', '.join(unknown)} under an attribute of that name")
    try:
        return target(**arguments)
    except (TypeError, ValueError) as error:
        raise UnmakeableError(f"{path} does not take the settings it was made with ({error})") from error


def _resolved(path: str) -> type:
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found: Any = _module(".".join(parts[:cut]))
        if found is None:
            continue
        package = found
        for name in parts[cut:]:
            found = getattr(found, name, None)
        if not isinstance(found, type):  # the file has moved since: its package may still know the name
            found = getattr(package, parts[-1], None)
        if isinstance(found, type):
            return found
        raise UnmakeableError(f"{path} is not the name of a class")
    raise UnmakeableError(f"the module of {path} is not imported here (import it first: a checkpoint imports no code)")


def _module(name: str) -> ModuleType | None:
    if name not in sys.modules and any(name == one or name.startswith(f"{one}.") for one in IMPORTED):
        try:
            importlib.import_module(name)
        except ImportError:
            return None
    return sys.modules.get(name)


def _of_package(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.split(".")[0] == "lit_condense"


def _leaves(hint: Any) -> collections.abc.Iterator[Any]:
    """Yield the types that an annotation is made of; of a callable only that it is one."""
    if get_origin(hint) is collections.abc.Callable:
        yield collections.abc.Callable
    elif get_args(hint):
        for part in get_args(hint):
            yield from _leaves(part)
    else:
        yield hint


def _hints(cls: type) -> Plain:
    try:
        return get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):  # names that exist for type checkers only
        return {}


def _parameters(target: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, one in inspect.signature(target).parameters.items() if one.kind in kinds]
