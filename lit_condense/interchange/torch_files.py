"""Sets that PyTorch programs wrote: which layout a content is of, and what it holds.

The layouts are those of published programs, known by containers and shapes; names of files are asked next. See the
table in docs/interchange.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_condense.errors import ExportError
from lit_condense.interchange import names
from lit_condense.interchange.given import PIXEL, ZCA, Answers, Found, Packing
from lit_condense.interchange.safe import check_tensors, read_pickle, read_torch

UNPACKED, BY_ROW, BY_COLUMN = Packing(), Packing(2, "row"), Packing(2, "column")
CHALLENGE: dict[tuple[int, ...], str] = {(1000, 3, 32, 32): "cifar100", (2000, 3, 64, 64): "tiny_imagenet"}
"""Shape -> data set of the ECCV 2024 challenge: 10 images a class, class by class, without labels."""
IDC_NAME = re.compile(r"data\d*")
"""Of IDC's and DREAM's files; NCFM's ``data_<n>.pt`` are evaluated otherwise."""
PROBABILITIES_WITHIN = 1e-3


def read_file(path: Path, answers: Answers) -> Found:
    """Return the set in a file of ``torch.save``, or in IDM's pickle.

    Raises:
        ExportError: The file cannot be read safely, or its content is no set that is known here.
    """
    content = read_pickle(path) if path.suffix == ".pkl" else read_torch(path)
    check_tensors(content, path)
    for layout in (_of_results, _of_pair, _of_images_and_labels, _of_tensor):
        found = layout(content, path, answers)
        if found is not None:
            return found
    raise ExportError(
        f"Expected images with labels in {path}, as a tensor, a pair, a dictionary or a list of experiments, got "
        f"{_shape_of(content)}. See docs/interchange.md for what is read."
    )


def _of_results(content: Any, path: Path, answers: Answers) -> Found | None:
    """Zhao et al.'s programs (DC, DSA, DM) and IDM: a list of experiments, each images and labels."""
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list | tuple) or not data:
        return None
    if _is_pair(data):  # DataDAM: one experiment, not in a list
        return _normalised("datadam", data, path, "dc", "dsa", (UNPACKED,))
    if not all(_is_pair(one) for one in data):
        return None
    if len(data) > 1 and _disjoint(data):  # steps of continual learning: together they are one set
        data = [[torch.cat([torch.as_tensor(one[side]) for one in data]) for side in (0, 1)]]
    if not -len(data) <= answers.experiment < len(data):
        raise ExportError(
            f"Expected --experiment to be one of the {len(data)} sets in {path}, 0 to {len(data) - 1}, got "
            f"{answers.experiment}."
        )
    told = names.of_result(path)
    method = told.get("method", "")
    # IDM's program says DM, too
    packings = (UNPACKED,) if method in ("DC", "DSA") else (UNPACKED, BY_COLUMN)
    found = _normalised("vico", data[answers.experiment], path, "dc", "dc" if method == "DC" else "dsa", packings, told)
    notes = [] if len(data) == 1 else [f"{path.name} holds {len(data)} sets; this is {answers.experiment % len(data)}"]
    return _with(found, notes=notes, reported=_accuracies(content.get("accs_all_exps")))


def _disjoint(steps: Sequence[Any]) -> bool:
    seen = [set(torch.as_tensor(labels).flatten().tolist()) for _, labels in steps]
    return sum(map(len, seen)) == len(set().union(*seen))


def _of_pair(content: Any, path: Path, answers: Answers) -> Found | None:
    """IDC, DREAM and NCFM: images in [0, 1] and labels, often packed; IDM's pickle: the same, normalised."""
    if not _is_pair(content):
        return None
    if path.suffix == ".pkl":
        told = path.parent.name + path.stem
        packings = (BY_COLUMN,) if "aug_True" in told else (UNPACKED,) if "aug_False" in told else (UNPACKED, BY_COLUMN)
        return _normalised("idm-pickle", content, path, "dc", "dsa", packings)
    if not IDC_NAME.fullmatch(path.stem):
        return labelled("pair", content[0], content[1], (path,), None)
    known = names.packing_of_tag(path)
    packings = (UNPACKED, BY_ROW) if known is None else (known,)
    found = labelled("idc", content[0], content[1], (path,), None)
    return _with(found, spaces=(PIXEL,), packings=packings, protocol="idc", told=names.of_folders(path))


def _of_images_and_labels(content: Any, path: Path, answers: Answers) -> Found | None:
    """A dictionary of both, as people write it by hand, and the program of linear gradient matching."""
    if not isinstance(content, dict) or not {"images", "labels"} <= content.keys():
        return None
    lr = content.get("lr", content.get("inner_lr"))
    rate = None if lr is None else _rate(lr, path)
    return labelled("images-labels", content["images"], content["labels"], (path,), rate)


def _of_tensor(content: Any, path: Path, answers: Answers) -> Found | None:
    """Images alone: with files of labels and rate beside them (MTT, TESLA, FTD, DATM), or the challenge's."""
    if not _is_images(content):
        return None
    stem = path.stem
    if "zca" in stem:
        raise ExportError(
            f"Expected the images that were learned, {path} holds pictures of them with the whitening undone. Give "
            f"{stem.replace('_zca', '')}.pt beside it."
        )
    beside = {what: path.with_name(f"{stem.replace('images', what)}{path.suffix}") for what in ("labels", "lr")}
    there = {what: file for what, file in beside.items() if "images" in stem and file.is_file()}
    if "labels" in there:
        return _of_trajectories(content, path, there)
    if answers.labels is not None:
        labels = read_torch(answers.labels)
        check_tensors(labels, answers.labels)
        return labelled("images", content, labels, (path, answers.labels), None)
    dataset = CHALLENGE.get(tuple(content.shape))
    if dataset is None or stem.lower() != dataset.replace("_", ""):
        found = labelled("images", content, None, (path,), None)
        return _with(found, notes=["no labels beside the images: they are taken to stand class by class"])
    found = Found("challenge", _images(content, path), None, (path,), ("dc",), (UNPACKED,), protocol="dsa")
    return _with(found, told={"dataset": dataset}, notes=["labels are implied: 10 a class, class by class"])


def _of_trajectories(images: Tensor, path: Path, there: dict[str, Path]) -> Found:
    others = {what: read_torch(file) for what, file in there.items()}
    check_tensors(others, path)
    lr = _rate(others["lr"], there["lr"]) if "lr" in others else None
    soft = isinstance(others["labels"], Tensor) and others["labels"].dim() == 2
    found = labelled("datm" if soft else "mtt", images, others["labels"], (path, *there.values()), lr)
    told = names.of_folders(path)
    spaces = found.spaces if len(found.spaces) == 1 else ("mtt", ZCA)
    return _with(found, spaces=spaces, wants_lr=True, protocol="mtt", told=told)


def labelled(layout: str, images: Any, labels: Any, files: tuple[Path, ...], lr: float | None) -> Found:
    """Return a set of images with labels, or with logits or probabilities in their place.

    Raises:
        ExportError: They are not that.
    """
    soft, notes = None, []
    if isinstance(labels, Tensor) and labels.dim() == 2 and labels.shape[1] > 1:
        if not bool(labels.isfinite().all()) or float(labels.float().sum(1).abs().max()) < PROBABILITIES_WITHIN:
            raise ExportError(
                f"Expected logits or probabilities as labels in {files[0]}, got rows that sum to 0, as KIP's centred "
                "ones do; its images are whitened in a way of its own, which is not read."
            )
        soft, kind = _probabilities(labels.float())
        labels = soft.argmax(1)
        notes.append(f"labels are {kind}")
    found = Found(layout, _images(images, files[0]), None if labels is None else _labels(labels, files[0]), files)
    whole = isinstance(images, Tensor) and images.dtype == torch.uint8
    found = _with(found, soft_labels=soft, inner_lr=lr, notes=notes, spaces=(PIXEL,) if whole else found.spaces)
    _check_counts(found)
    return found


def _normalised(
    layout: str,
    pair: Sequence[Any],
    path: Path,
    family: str,
    protocol: str,
    packings: tuple[Packing, ...],
    told: dict[str, Any] | None = None,
) -> Found:
    found = labelled(layout, pair[0], pair[1], (path,), None)
    spaces = found.spaces if len(found.spaces) == 1 else (family,)
    return _with(found, spaces=spaces, packings=packings, protocol=protocol, told=told or names.of_folders(path))


def _with(found: Found, **changes: Any) -> Found:
    """Return the same with changes; notes are added to those that are there."""
    notes = (*found.notes, *changes.pop("notes", ()))
    return replace(found, **changes, notes=notes)


def _is_pair(content: Any) -> bool:
    pair = isinstance(content, list | tuple) and len(content) == 2
    return pair and _is_images(content[0]) and isinstance(content[1], Tensor) and content[1].dim() in (1, 2)


def _is_images(content: Any) -> bool:
    return isinstance(content, Tensor) and content.dim() == 4


def _images(images: Any, path: Path) -> Tensor:
    if not _is_images(images) or not images.numel():
        raise ExportError(f"Expected images (n, C, H, W) in {path}, got {_shape_of(images)}.")
    values: Tensor = images.detach().contiguous()
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise ExportError(f"Expected finite images in {path}, {bad} values are NaN or infinite: its run had exploded.")
    return values


def _labels(labels: Any, path: Path) -> Tensor:
    flat = labels.detach().reshape(-1) if isinstance(labels, Tensor) and labels.dim() <= 2 else None
    whole = flat is not None and not flat.is_complex() and bool((flat == flat.round()).all() and (flat >= 0).all())
    if flat is None or not whole:
        raise ExportError(f"Expected labels (n,), whole numbers from 0, in {path}, got {_shape_of(labels)}.")
    return flat.to(torch.int64)


def _check_counts(found: Found) -> None:
    labels = found.labels if found.soft_labels is None else found.soft_labels
    if labels is not None and len(labels) != len(found.images):
        raise ExportError(
            f"Expected one label an image in {', '.join(map(str, found.files))}, got {len(labels)} for "
            f"{len(found.images)} images."
        )


def _probabilities(values: Tensor) -> tuple[Tensor, str]:
    """Return probabilities, and what they were: logits, unless no value is negative and each row sums to 1."""
    rows = values.sum(1)
    if bool((values >= 0).all()) and bool(((rows - 1).abs() < PROBABILITIES_WITHIN).all()):
        return values, "probabilities"
    return values.softmax(1), "logits"


def _rate(value: Any, path: Path) -> float:
    single = (isinstance(value, Tensor) and value.numel() == 1) or isinstance(value, float | int)
    if not single or not 0 <= float(value) < float("inf"):
        raise ExportError(f"Expected a learning rate in {path}, one number of 0 or more, got {_shape_of(value)}.")
    return float(value)


def _accuracies(said: Any) -> dict[str, Any]:
    """Return the accuracies that a program kept, a list a network, as plain numbers."""
    if not isinstance(said, dict):
        return {}
    lists = {str(name): values for name, values in said.items() if isinstance(values, list | tuple)}
    found = {name: [float(one) for one in values if isinstance(one, float | int)] for name, values in lists.items()}
    return {name: values for name, values in found.items() if values}


def _shape_of(content: Any) -> str:
    if isinstance(content, Tensor):
        return f"a tensor of shape {tuple(content.shape)} and type {content.dtype}"
    if isinstance(content, dict):
        return f"a dictionary of {', '.join(map(str, list(content)[:6]))}"
    length = f" of {len(content)}" if isinstance(content, list | tuple) else ""
    return f"a {type(content).__name__}{length}"
