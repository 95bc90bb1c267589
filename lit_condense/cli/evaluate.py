"""``lit-condense evaluate SET``: score any condensed set, whoever wrote it, with the card and table of a run."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

import lit_condense.networks
import lit_condense.selection
from lit_condense.data import CondenseDataModule
from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.evaluation.protocols import PROTOCOLS
from lit_condense.interchange import SPACES, Answers, Given, read_set
from lit_condense.interchange.given import PIXEL, ZCA
from lit_condense.interchange.own import OWN
from lit_condense.networks import ConvNet, NetworkFactory
from lit_condense.runs.folder import RunFolder
from lit_condense.selection import Selection
from lit_condense.sets.given_set import GivenSet
from lit_condense.sets.rebuilding import UnmakeableError, rebuilt
from lit_condense.settings import Plain, plain_defaults

CONFIG = "config.yaml"
NAMED = re.compile(r"([\w.]+)(?:\((.*)\))?")
"""``ResNet18`` or ``ConvNet(width=32,depth=3)``."""
ANSWERS: dict[str, tuple[Any, Any, str]] = {
    "space": (str | None, None, f"What values are: {', '.join(SPACES)}."),
    "factor": (int | None, None, "Cells a side of a stored image; 1: one image."),
    "order": (str | None, None, "How they are counted: row (IDC, DREAM) or column (IDM)."),
    "multi": (bool | None, None, "Whether images are used at every factor from 1 on (IDC)."),
    "inner_lr": (float | None, None, "Learning rate that the images were learned with."),
    "labels": (Path | None, None, "File of the labels, where it is not beside the images."),
    "experiment": (int, -1, "Which of several sets in one file, from 0; -1: the last."),
}
"""Options that say what files do not: type, default, help."""
FOREIGN_FAMILIES = {"idc": "idc"}
"""Layout of pixels -> family by whose constants its program normalises them."""


def main(args: Sequence[str]) -> None:
    """Evaluate a set, write its card and print the table."""
    words = list(args)
    parser = _parser()
    path = _path_in(parser, words)
    given, words = _read(words, path)
    options = parser.parse_args(words)
    data = parser.instantiate_classes(options).data
    module = _module(given, options)
    data.to(options.device)
    folder = RunFolder(Path(options.out)) if options.out else RunFolder.new_version(f"evaluate/{path.stem}")
    folder.claim(overwrite=False)
    started = time.perf_counter()
    try:
        report = module.evaluate(data)
    except BaseException:
        folder.discard()
        raise
    seconds = {"evaluating": round(time.perf_counter() - started, 1)}
    paths = module.save(folder.path, report, {"seconds": seconds})
    print("\n".join([str(report), *_notes(given), "Wrote:", *(f"  {one}" for one in paths)]))


def _parser() -> ArgumentParser:
    # a shortened option would be understood here and not where the set is read
    parser = ArgumentParser(prog="lit-condense evaluate", description=main.__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("path", metavar="SET", type=str, help="Folder or file of this program or another one; see docs/interchange.md.")
    parser.add_subclass_arguments(CondenseDataModule, "data", required=True)
    add("--protocol", type=str | None, default=None, help=f"One of {', '.join(PROTOCOLS)}.")
    add("--networks", type=str, nargs="+", default=None, help="As in: ConvNet 'ConvNet(width=32)' ResNet18.")
    add("--repeats", type=int | None, default=None, help="Fresh networks of each architecture.")
    add("--epochs", type=int | None, default=None, help="Another number than the protocol's.")
    add("--baselines", type=str, nargs="*", default=None, help="Selections, as in: RandomSubset Herding.")
    add("--full_data_steps", type=int | None, default=None, help="Steps of one network on all real images; 0: none.")
    add("--seed", type=int | None, default=None, help="Of every draw; by default that of the set, else 0.")
    _add_answers(parser)
    add("--device", type=str, default="cuda" if torch.cuda.is_available() else "cpu", help="Where to compute.")
    add("--out", type=str | None, default=None, help="Folder of the card (default: runs/evaluate/<name>/version_<k>).")
    return parser


def _path_in(parser: ArgumentParser, words: Sequence[str]) -> Path:
    """Return the set: it decides what is asked next, so that it is looked at before all else is parsed."""
    first = next((word for word in words[:1] if not word.startswith("-")), None)
    if first is None and words and words[0] in ("-h", "--help"):
        parser.parse_args(["--help"])
    if first is None:
        raise SettingsError("Expected the set first, as in: lit-condense evaluate SET --data CIFAR10 --protocol dsa.")
    return Path(first)


def _read(words: list[str], path: Path) -> tuple[Given, list[str]]:
    """Return the set, and the words with what it says of its data where they do not."""
    answers = Answers(**_answers(words))
    given = read_set(path, answers)
    data = [word for word in words if word == "--data" or word.startswith(("--data.", "--data="))]
    saved = path / CONFIG
    if not data and given.found.layout == OWN and path.is_dir() and saved.is_file():
        node = yaml.safe_load(saved.read_text(encoding="utf-8")).get("data")
        words = [*words, f"--data={yaml.safe_dump(node, default_flow_style=True).strip()}"]
    elif not any(word.startswith(("--data.normalization", "--data.init_args.normalization")) for word in data):
        family = _family(given)
        words = [*words, f"--data.normalization={family}"] if data and family else words
    return given, words


def _add_answers(parser: ArgumentParser) -> None:
    for name, (kind, default, says) in ANSWERS.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=says)


def _answers(words: Sequence[str]) -> Plain:
    """Return what the words answer, before anything is known that the data need."""
    parser = ArgumentParser(prog="lit-condense evaluate")
    _add_answers(parser)
    told = [
        f"{word}={following}" if word.startswith("--") and "=" not in word else word
        for word, following in zip(words, [*words[1:], ""], strict=True)
        if word.lstrip("-").partition("=")[0] in ANSWERS and word.startswith("--")
    ]
    found = parser.parse_args(told)
    return {name: found[name] for name in ANSWERS}


def _family(given: Given) -> str | None:
    """Return the normalisation that the set's own program uses: its networks are tested on images like that."""
    said = given.found.told.get("normalization")
    if isinstance(said, dict):
        family = said.get("family")
        if family == "given":
            return str(yaml.safe_dump({"mean": said["mean"], "std": said["std"]}, default_flow_style=True)).strip()
        return None if family is None else str(family)
    if given.space in (PIXEL, ZCA):
        return ZCA if given.space == ZCA else FOREIGN_FAMILIES.get(given.found.layout)
    return given.space


def _module(given: Given, options: Namespace) -> GivenSet:
    """Return the set as a module, evaluated as its card or its layout says, and as the words do."""
    card = given.found.told.get("card", {})
    settings: Plain = {"protocol": given.found.protocol, **_evaluation_of(card)}
    for name in ("protocol", "repeats", "epochs", "full_data_steps"):
        if options[name] is not None:
            settings[name] = options[name]
    if settings["protocol"] is None:
        raise SettingsError(
            f"Expected --protocol, one of {', '.join(PROTOCOLS)}: a set of layout {given.found.layout} does not "
            "say how it is evaluated."
        )
    if options.networks is not None:
        settings["networks"] = [_network(name) for name in options.networks]
    if options.baselines is not None:
        settings["baselines"] = [_selection(name) for name in options.baselines]
    seed = options.seed if options.seed is not None else card.get("seed", 0)
    return GivenSet(given, _network_of(card), evaluation=Evaluation(**settings), seed=seed)


def _evaluation_of(card: Plain) -> Plain:
    """Return the evaluation of a set of this program; nothing of another's."""
    said = card.get("evaluation_settings")
    if said is None:
        return {}
    try:
        made: Evaluation = rebuilt(said, Evaluation)
    except UnmakeableError as error:
        raise SettingsError(f"Expected to make the evaluation of the set again, {error}. Import it first.") from error
    return {**vars(made), "other_data": True}


def _network_of(card: Plain) -> NetworkFactory:
    """Return the architecture that a set of this program was condensed with; of another's nobody knows."""
    method = card.get("method")
    said = method.get("model", {}).get("network") if isinstance(method, dict) else None
    if said is None:
        return ConvNet
    try:
        found: NetworkFactory = rebuilt(said, NetworkFactory)
    except UnmakeableError as error:
        raise SettingsError(f"Expected to make the network of the set again, {error}. Give --networks.") from error
    return found


def _network(name: str) -> NetworkFactory:
    """Return the architecture that a word means."""
    return _rebuilt_from(name, lit_condense.networks.__name__, NetworkFactory)  # type: ignore[no-any-return]


def _selection(name: str) -> Selection:
    """Return the selection that a word means."""
    return _rebuilt_from(name, lit_condense.selection.__name__, Selection)  # type: ignore[no-any-return]


def _rebuilt_from(name: str, home: str, kind: Any) -> Any:
    """Return what a word like ``ConvNet(width=32)`` means: a class of a package, or an import path.

    Raises:
        SettingsError: It means nothing.
    """
    match = NAMED.fullmatch(name.strip())
    if match is None:
        raise SettingsError(f"Expected a name as in ConvNet or 'ConvNet(width=32)', got {name!r}.")
    path = match[1] if "." in match[1] else f"{home}.{match[1]}"
    pairs = (pair.partition("=") for pair in (match[2] or "").split(",") if pair.strip())
    init_args = plain_defaults(path) | {key.strip(): yaml.safe_load(value) for key, _, value in pairs}
    try:
        return rebuilt({"class_path": path, "init_args": init_args}, kind)
    except UnmakeableError as error:
        raise SettingsError(f"Expected {name!r} to name one of {home}, {error}.") from error


def _notes(given: Given) -> list[str]:
    found = given.found
    said = f"Read as {found.layout}: {given.space} values, {given.packing}."
    reported = [
        f"The file reports {name}: {', '.join(f'{v:.4f}' for v in values)}." for name, values in found.reported.items()
    ]
    return [said, *(f"Note: {note}." for note in found.notes), *reported]
