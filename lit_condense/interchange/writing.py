"""``write_set``: this program's sets in the layouts of others, so that their evaluations read them.

Values are in the space that each program expects: normalised by its own constants, or in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_condense.data.normalization import PRESETS, preset
from lit_condense.data.zca import FAMILY
from lit_condense.errors import ExportError, SettingsError
from lit_condense.export.condensed_set import CondensedSet
from lit_condense.export.images import write_image_folder
from lit_condense.interchange.torch_files import CHALLENGE
from lit_condense.runs.files import check_writable, write_atomically
from lit_condense.settings import Plain

NAMES = {name: name.upper() for name in ("mnist", "svhn", "cifar10", "cifar100")} | {
    "fashion_mnist": "FashionMNIST",
    "tiny_imagenet": "TinyImageNet",
}
"""Our name of a data set -> that in file names."""
SMALLEST_PROBABILITY = 1e-30
"""Whose logarithm is a finite logit."""


def write_set(condensed: CondensedSet, format: str, folder: str | Path) -> list[Path]:
    """Write a set in another program's layout, and return the paths.

    Args:
        condensed: The set.
        format: A key of ``FORMATS``.
        folder: Where to. Files that stand there are not replaced.

    Raises:
        SettingsError: The format is not known.
        ExportError: The layout cannot hold the set, its program has no constants for the data, or a file stands there.
    """
    if format not in FORMATS:
        raise SettingsError(f"Expected a format of {', '.join(FORMATS)}, got {format}.")
    folder = Path(folder)
    if format == "image_folder":
        return [write_image_folder(folder, condensed)]
    check_writable(folder)
    files = FORMATS[format](condensed)
    there = [folder / name for name in files if (folder / name).exists()]
    if there:
        raise ExportError(f"Expected no file at {there[0]}, there is one. Choose another folder.")
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def lost(condensed: CondensedSet, format: str) -> list[str]:
    """Return what of a set a layout cannot hold."""
    values = {
        "soft labels": (condensed.soft_labels, ("datm", "npz")),
        "the step size": (condensed.inner_lr, ("mtt", "datm", "npz")),
        "weights of images": (condensed.weights, ("npz",)),
        "the averaged images": (condensed.averaged, ()),
    }
    return [name for name, (value, holding) in values.items() if value is not None and format not in holding]


def _vico(condensed: CondensedSet) -> dict[str, bytes]:
    """Zhao et al.'s ``res_*.pt``: a list of one experiment."""
    images, labels = _class_major(condensed, _normalised(condensed, "dc"))
    method, dataset = _method(condensed.card), NAMES.get(_dataset(condensed), _dataset(condensed))
    ipc = len(labels) // len(set(labels.tolist()))
    scores = (condensed.card.get("evaluation") or {}).get("condensed", [])
    accuracies = {str(score["network"]): [float(one) for one in score["accuracies"]] for score in scores}
    content = {"data": [[images, labels]], "accs_all_exps": accuracies}
    return {f"res_{method}_{dataset}_{_network(condensed.card)}_{ipc}ipc.pt": _bytes(content)}


def _mtt(condensed: CondensedSet) -> dict[str, bytes]:
    """MTT's, TESLA's and FTD's files."""
    images, labels = _class_major(condensed, _normalised(condensed, "mtt"))
    return {"images_best.pt": _bytes(images), "labels_best.pt": _bytes(labels), **_rate(condensed)}


def _datm(condensed: CondensedSet) -> dict[str, bytes]:
    """DATM's: as MTT's, with the logits of soft labels."""
    if condensed.soft_labels is None:
        raise ExportError("Expected a set with soft labels for datm, this one has none. Use mtt.")
    logits = condensed.soft_labels.clamp(min=SMALLEST_PROBABILITY).log()
    images = _normalised(condensed, "mtt")
    return {"images_best.pt": _bytes(images), "labels_best.pt": _bytes(logits), **_rate(condensed)}


def _idc(condensed: CondensedSet) -> dict[str, bytes]:
    """IDC's and DREAM's ``data.pt``: decoded images in [0, 1], to be read with factor 1."""
    images, labels = _class_major(condensed, condensed.images)
    return {"data.pt": _bytes([images, labels])}


def _challenge(condensed: CondensedSet) -> dict[str, bytes]:
    """The ECCV 2024 challenge's tensor: 10 images a class, class by class."""
    images, labels = _class_major(condensed, _normalised(condensed, "dc"))
    wanted = CHALLENGE.get(tuple(images.shape))
    if wanted != _dataset(condensed) or labels.tolist() != [c for c in range(len(labels) // 10) for _ in range(10)]:
        raise ExportError(
            f"Expected 10 images for each class of CIFAR-100 or Tiny-ImageNet for challenge, got {len(labels)} images "
            f"of {_dataset(condensed)}."
        )
    return {f"{wanted.replace('_', '')}.pt": _bytes(images)}


def _npz(condensed: CondensedSet) -> dict[str, bytes]:
    """A NumPy archive with pixels in [0, 1] and all that the set holds."""
    arrays: dict[str, Any] = {"images": condensed.images.numpy(), "labels": condensed.labels.numpy()}
    for name in ("soft_labels", "weights"):
        if (value := getattr(condensed, name)) is not None:
            arrays[name] = value.numpy()
    if condensed.inner_lr is not None:
        arrays["inner_lr"] = np.float32(condensed.inner_lr)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return {"condensed.npz": file.getvalue()}


FORMATS: dict[str, Callable[[CondensedSet], dict[str, bytes]]] = {
    "vico": _vico,
    "mtt": _mtt,
    "datm": _datm,
    "idc": _idc,
    "challenge": _challenge,
    "npz": _npz,
    "image_folder": lambda _: {},
}
"""Layout -> what writes its files; a folder of images is written by ``write_image_folder``."""


def _normalised(condensed: CondensedSet, family: str) -> Tensor:
    """Return the images as a program normalises them; whitened ones as they were learned, one image each."""
    data = condensed.card.get("data")
    used = data.get("normalization") if isinstance(data, dict) else None
    if isinstance(used, dict) and used.get("family") == FAMILY:
        if family != "mtt":
            raise ExportError(
                "Expected a set that was not made under ZCA for this layout, whose programs whiten nothing. Use mtt."
            )
        if _space(condensed.card) != "normalized" or condensed.stored is None or packed(condensed):
            raise ExportError(
                "Expected whitened images in the file of a set made under ZCA, one each, it holds others."
            )
        return condensed.stored
    dataset = _dataset(condensed)
    if dataset not in PRESETS[family]:
        raise ExportError(
            f"Expected a set of {', '.join(PRESETS[family])}, for which programs of this layout have constants, got "
            f"one of {dataset}. Use idc, npz or image_folder, which hold pixels."
        )
    return preset(family, dataset).normalize(condensed.images)


def packed(condensed: CondensedSet) -> bool:
    """Return whether several images are decoded from a stored one."""
    return condensed.stored is not None and condensed.stored.shape != condensed.images.shape


def _model(card: Plain) -> Plain:
    """Return the settings of the module that made a set, where its card says them."""
    method = card.get("method")
    model = method.get("model") if isinstance(method, dict) else None
    return model if isinstance(model, dict) else {}


def _space(card: Plain) -> str:
    storage = _model(card).get("parametrization")
    return str(storage["init_args"].get("space", "normalized")) if isinstance(storage, dict) else "normalized"


def _class_major(condensed: CondensedSet, images: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.sort(condensed.labels, stable=True).indices
    return images[order].contiguous(), condensed.labels[order].contiguous()


def _rate(condensed: CondensedSet) -> dict[str, bytes]:
    rate = condensed.inner_lr
    return {} if rate is None else {"lr_best.pt": _bytes(torch.tensor(rate, dtype=torch.float32))}


def _bytes(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _dataset(condensed: CondensedSet) -> str:
    data = condensed.card.get("data")
    return str(data.get("dataset")) if isinstance(data, dict) else "unknown"


def _method(card: Plain) -> str:
    """Return what the set was made by in one word without ``_``, which file names part words by."""
    method = card.get("method")
    matching = method.get("matching") if isinstance(method, dict) else None
    losses = "".join(matching) if isinstance(matching, dict) else ""
    augmentation = str((_model(card).get("augmentation") or {}).get("class_path", "NoAugmentation"))
    if losses == "GradientMatching":
        return "DC" if augmentation.endswith("NoAugmentation") else "DSA"
    return "DM" if losses == "FeatureMatching" else losses.replace("_", "") or "set"


def _network(card: Plain) -> str:
    return str(_model(card).get("network", {}).get("class_path", "ConvNet")).rpartition(".")[2]
