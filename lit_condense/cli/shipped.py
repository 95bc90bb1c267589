"""The configs that ship with the library: found by name, and listed and copied by ``lit-condense configs``."""

from __future__ import annotations

import argparse
import difflib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_condense.errors import SettingsError
from lit_condense.evaluation.published import shipped_configs
from lit_condense.runs.ownership import is_our_config

OPTIONS = ("--config", "-c")
DEFAULTS = {
    "SyntheticSet": {
        "network": "ConvNet",
        "inner": "TrainOnSynthetic",
        "sampling": "RandomSampling",
        "parametrization": "Pixels",
        "evaluation": "Evaluation",
    },
    "SelectedSet": {"evaluation": "Evaluation", "proxy": "ProxyTraining"},
    "ExpertTrajectories": {"network": "ConvNet"},
}
"""Classes that a config may leave out; the signature of the model says which they are."""
NO_RUNS = ("published.yaml",)
"""Files beside the configs that are none."""


def shipped() -> dict[str, Path]:
    """Return the shipped configs by name, as in ``dc/cifar10_ipc10``."""
    top = shipped_configs()
    paths = (path for path in sorted(top.rglob("*.yaml")) if path.name not in NO_RUNS)
    return {path.relative_to(top).with_suffix("").as_posix(): path for path in paths}


def row_of(config: Path) -> str | None:
    """Return the name of a config if it is a shipped one."""
    return next((name for name, path in shipped().items() if path.resolve() == config.resolve()), None)


def named(config: str) -> Path:
    """Return the file that ``--config`` means: one that is there, else the shipped config of that name.

    Raises:
        SettingsError: There is neither.
    """
    if Path(config).is_file():
        return Path(config)
    name, known = config.removeprefix("configs/").removesuffix(".yaml"), shipped()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3)
    raise SettingsError(
        f"Expected --config to be a file or the name of a shipped config, got {config}. "
        + (f"Did you mean {' or '.join(close)}? " if close else "")
        + "lit-condense configs lists them all."
    )


def read(name: str) -> dict[str, Any]:
    """Return a shipped config as plain data to change: every class with ``class_path`` and ``init_args``."""
    config: dict[str, Any] = yaml.safe_load(named(name).read_text(encoding="utf-8"))
    model = config["model"]["init_args"]
    for key, usual in DEFAULTS[config["model"]["class_path"]].items():
        model[key] = _written_out(model.get(key, {}), usual)
    for key, usual in {"init": "", "augmentation": "", "selection": "", "learnables": "Learnables"}.items():
        if key in model:
            model[key] = _written_out(model[key], usual)
    trainer = config.setdefault("trainer", {})
    trainer["callbacks"] = [_written_out(callback, "") for callback in trainer.get("callbacks", [])]
    config["data"] = _written_out(config["data"], "") if "data" in config else None
    return config


def _written_out(node: str | dict[str, Any], usual: str) -> dict[str, Any]:
    """Return a class that may be given by its name alone, or by settings alone, in the long form."""
    if isinstance(node, str):
        return {"class_path": node, "init_args": {}}
    return {"init_args": {}, **node} if "class_path" in node else {"class_path": usual, "init_args": dict(node)}


def with_paths(args: Sequence[str]) -> list[str]:
    """Return a command line in which every config is a file."""
    found = list(args)
    for position, arg in enumerate(found):
        option, equals, value = arg.partition("=")
        if option in OPTIONS and equals:
            found[position] = f"{option}={named(value)}"
        elif arg in OPTIONS and position + 1 < len(found):
            found[position + 1] = str(named(found[position + 1]))
    return found


def run_name(configs: Sequence[Path], data: str) -> str:
    """Return what a run of these configs is called: the first one's place among configs, and the others' names.

    Args:
        configs: In the order in which they were given.
        data: Name of the data, for configs that leave them open.
    """
    if not configs:
        return data
    first, *others = configs
    name = _place(first.resolve())
    if name.name == "base":
        name = name.with_name(data)
    return "+".join([name.as_posix(), *("_".join(_place(other.resolve()).parts) for other in others)])


def _place(config: Path) -> Path:
    """Return ``<method>/<name>`` of a config below a folder ``configs``, else its name; of a saved one its run's."""
    if config.parent.name.startswith("version_"):
        return _below("runs", config.parent.parent)
    if config.is_file() and is_our_config(config):
        return _below("runs", config.parent)
    return _below("configs", config.with_suffix(""))


def _below(folder: str, path: Path) -> Path:
    """Return what of a path lies below the last folder of that name; its last part where there is none."""
    parts = path.parts
    return Path(*parts[len(parts) - parts[::-1].index(folder) :]) if folder in parts else Path(path.name)


def main(args: Sequence[str]) -> None:
    """List the shipped configs whose name or headline holds all words, or copy them."""
    parser = argparse.ArgumentParser(prog="lit-condense configs", description=main.__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="as in: dream cifar10")
    parser.add_argument("--copy", action="store_true", help="copy them, into the working folder or --to")
    parser.add_argument("--to", metavar="FOLDER", type=Path, default=Path(), help="copy them there")
    options = parser.parse_intermixed_args(args)
    if options.copy and not options.words:
        raise SettingsError("Expected names or words of the configs to copy, as in: --copy dc/cifar10_ipc10 --to mine.")
    known = shipped()
    exact = {name: known[name] for name in options.words if name in known}
    others = [word for word in options.words if word not in exact]
    if exact and others:
        raise SettingsError(f"Expected names of shipped configs, got {others[0]} beside {next(iter(exact))}.")
    found = exact or {name: path for name, path in known.items() if _holds(name, path, options.words)}
    if not found:
        raise SettingsError(f"Expected words of a shipped config, none has {' and '.join(options.words)}.")
    if options.copy:
        _copy(found, options.to)
    else:
        print("\n".join(f"{name:38} {_headline(path)}" for name, path in found.items()))


def _holds(name: str, path: Path, words: Sequence[str]) -> bool:
    text = f"{name} {_headline(path)}".lower()
    return all(word.lower() in text for word in words)


def _headline(path: Path) -> str:
    """Return the first line of a config, which says what it is."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("# ").strip()


def _copy(configs: Mapping[str, Path], where: Path) -> None:
    """Copy configs under their names with ``_`` for ``/``: all, or none where a file of such a name is there."""
    copies = {path: where / f"{name.replace('/', '_')}.yaml" for name, path in configs.items()}
    there = next((copy for copy in copies.values() if copy.exists()), None)
    if there is not None:
        raise SettingsError(f"Expected no file at {there}, but there is one. Move it away, or choose another folder.")
    where.mkdir(parents=True, exist_ok=True)
    for path, copy in copies.items():
        shutil.copyfile(path, copy)
        print(copy)
