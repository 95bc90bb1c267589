"""Published accuracies on whole data sets, quoted beside the short full-data baseline as its ceiling."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedAccuracy:
    """A number from a paper, for orientation; never a target of a test."""

    accuracy: float
    """In [0, 1]."""
    source: str


WHOLE_DATA_SET = {
    "cifar10": PublishedAccuracy(0.848, "ConvNet-3, whole set: arXiv 2211.11004, Table 1"),
    "cifar100": PublishedAccuracy(0.562, "ConvNet-3, whole set: arXiv 2211.11004, Table 1"),
}
"""Data set name -> ConvNet trained on the whole training split. Only entries whose source was read."""
