"""Candidates as the methods look at them: in the order of the data, and refused where values are not finite."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lit_condense.errors import DataError
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates

Variant = Literal["definition", "deepcore"]
"""``definition``: as the method's paper defines it. ``deepcore``: as DeepCore's program (Guo et al., DEXA 2022)."""

LCMatVariant = Literal["definition", "lcmat_program"]
"""``definition``, or as LCMat's program (Shin et al., AISTATS 2023)."""


def in_index_order(candidates: Candidates) -> tuple[Candidates, Tensor]:
    """Return the candidates in the order of the data, and where each stood among those given, ``(n,)`` on the CPU.

    Choosing in this order makes a choice independent of the order given: ties, draws and the last digits of sums too.
    """
    order = candidates.indices.argsort()
    if torch.equal(order, torch.arange(len(order))):
        return candidates, order
    forgetting = candidates.forgetting
    ordered = Candidates(
        candidates.real,
        candidates.indices[order],
        _rows(candidates.labels, order),
        [replace(v, features=_rows(v.features, order), logits=_rows(v.logits, order)) for v in candidates.views],
        None if forgetting is None else _rows(forgetting, order),
        candidates.validation,
    )
    return ordered, order


def require_finite(finite: Tensor, what: str, method: str) -> None:
    """Refuse candidates of which a value is not finite.

    Args:
        finite: ``(n,)``, whether the candidate's is.
        what: The values, for the message.
        method: The selection, for the message.

    Raises:
        DataError: One is not.
    """
    bad = int((~finite).sum())
    if bad:
        raise DataError(
            f"{method} needs finite {what}, but those of {bad} of {len(finite)} candidates are NaN or infinite. "
            "The proxy model has diverged or is constant: lower its learning rate, and look at the images."
        )


def finite_features(candidates: Candidates, method: str) -> Tensor:
    """Return the first network's features ``(n, d)``.

    Raises:
        DataError: Some are NaN, infinite or too large to square.
    """
    features = candidates.view.features
    # four times: then the squared distance of any two is finite too
    require_finite(torch.linalg.vector_norm(features, dim=1).mul(4).square().isfinite(), "features", method)
    return features


def log_predictions(candidates: Candidates, method: str) -> Tensor:
    """Return the logarithms of the first network's softmax outputs, ``(n, K)``.

    Raises:
        DataError: Logits are NaN or infinite.
    """
    logits = candidates.view.logits
    require_finite(logits.isfinite().all(1), "logits", method)
    return logits.log_softmax(1)


def random_row(n: int, key: RandomKey) -> int:
    """Draw a number from 0 to ``n - 1``."""
    return int(torch.randint(n, (1,), generator=key.generator()))


def _rows(values: Tensor, order: Tensor) -> Tensor:
    return values[order.to(values.device)]
