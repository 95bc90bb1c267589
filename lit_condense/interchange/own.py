"""Sets that this program wrote: their card says all that others have to be asked for."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lit_condense.data.normalization import Normalization
from lit_condense.export.belonging import class_names_of
from lit_condense.export.condensed_set import CondensedSet, load_condensed
from lit_condense.interchange.given import NORMALIZED, PIXEL, ZCA, Found, Packing
from lit_condense.settings import Plain

OWN = "lit_condense"
"""Name of this program's layout."""
KNOWN = ("Pixels", "MultiFormation")
"""Parametrizations that a stored image is read by; of others the images in [0, 1] are taken."""


def read_own(path: Path) -> Found:
    """Return a set of this program: as it was stored where the file keeps that, else its images.

    Raises:
        ExportError: It is none, or is broken.
    """
    condensed = load_condensed(path)
    told = {"method": condensed.card.get("method"), **_data(condensed), "card": condensed.card}
    common: Plain = {"inner_lr": condensed.inner_lr, "class_names": class_names_of(condensed), "told": told}
    evaluation = condensed.card.get("evaluation_settings") or {}
    common["protocol"] = evaluation.get("init_args", {}).get("protocol")
    storage = _storage(condensed)
    if condensed.stored is None or storage is None:
        common |= {"soft_labels": condensed.soft_labels, "weights": _weights(condensed)}
        return Found(OWN, condensed.images, condensed.labels, (path,), (PIXEL,), **common)
    stored = len(condensed.stored)
    normalization = told.get("normalization") or {}
    space = storage.get("space", NORMALIZED)
    if space == NORMALIZED and normalization.get("family") == ZCA:
        space = ZCA
    if "mean" in normalization:
        common["constants"] = Normalization(normalization["mean"], normalization["std"])
    packing = Packing(storage.get("factor", 1), storage.get("order", "row"), storage.get("decoding") == "multi")
    # decoded images repeat the labels of the stored ones, which come first
    soft = None if condensed.soft_labels is None else condensed.soft_labels[:stored]
    labels = condensed.labels[:stored]
    return Found(OWN, condensed.stored, labels, (path,), (space,), (packing,), soft_labels=soft, **common)


def _data(condensed: CondensedSet) -> Plain:
    data = condensed.card.get("data")
    return (
        {"dataset": data.get("dataset"), "normalization": data.get("normalization")} if isinstance(data, dict) else {}
    )


def _weights(condensed: CondensedSet) -> Tensor | None:
    """Return the weights that networks are trained with: a selection may have some that it is not trained with."""
    selected = condensed.card.get("selected")
    return condensed.weights if isinstance(selected, dict) and selected.get("trained_with_weights") else None


def _storage(condensed: CondensedSet) -> Plain | None:
    """Return the settings of the parametrization that the card names, where it is one that others have too."""
    try:
        named: Plain = condensed.card["method"]["model"]["parametrization"]
    except (KeyError, TypeError):
        return None
    return named["init_args"] if named["class_path"].rpartition(".")[2] in KNOWN else None
