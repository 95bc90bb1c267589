"""Look at the subsets of run_selection.py through their proxy models: results/selection_explained.json.

Which share of the kept images the proxy model classifies correctly; which share of them has a loss gradient in the
logits that is nearly 0; how far apart two images of a class are, in normalised pixels; and how many images of equal
weight the subset is worth: (sum of weights)^2 / sum of squares. Of the whole training split: the two shares. Trains
the proxy models that are not in the cache.

Usage: python scripts/explain_selection.py [DATASET], by default mnist.
"""

from __future__ import annotations

import json
import sys

import torch
from run_selection import FRACTIONS, METHODS, RESULTS, ROOT, SEEDS, data_of, looked_through, read, selected_set

from lit_condense.data import CondenseDataModule
from lit_condense.functional.curvature import softmax_error
from lit_condense.selection import RandomSubset
from lit_condense.settings import Plain

EXPLAINED = ROOT / "results" / "selection_explained.json"
SETTLED = 0.01
"""Norm of a gradient in the logits (softmax minus label) below which an image says nothing any more."""


def main(datasets: list[str]) -> None:
    """Explain the data sets."""
    found: Plain = json.loads(EXPLAINED.read_text()) if EXPLAINED.exists() else {}
    for dataset in datasets:
        found[dataset] = explained(dataset, data_of(dataset))
    EXPLAINED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def explained(dataset: str, data: CondenseDataModule) -> Plain:
    """Return what the proxy models of all seeds say of the data and of what is kept of them."""
    records = {fraction: read(RESULTS / f"{dataset}_{fraction}.json") for fraction in FRACTIONS}
    kept: Plain = {fraction: {method.__name__: [] for method in METHODS} for fraction in FRACTIONS}
    whole = []
    for seed in SEEDS:
        right, size = seen(data, seed)
        whole.append({"right": share(right), "settled": share(size < SETTLED)})
        for fraction, of_all in records.items():
            for record in (one for one in of_all if one["seed"] == seed):
                about = {"right": share(right[record["indices"]]), "settled": share(size[record["indices"]] < SETTLED)}
                about |= {"worth": worth(record), "apart": apart(data, record["indices"])}
                kept[fraction][record["method"]].append(about)
    return {"whole": whole, "kept": kept}


def seen(data: CondenseDataModule, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each training image whether the proxy model is right, and the norm of its logit gradient."""
    module = selected_set(RandomSubset(), float(FRACTIONS[0]), seed, False, 1)
    data.prepare_data()
    data.setup("fit")
    everything = torch.arange(len(data.real))
    logits, labels = looked_through(module, data, everything).logits, data.real.labels_at(everything)
    return logits.argmax(1) == labels, softmax_error(logits.double(), labels).norm(dim=1)


def share(mask: torch.Tensor) -> float:
    """Return the share of True."""
    return round(float(mask.double().mean()), 4)


def apart(data: CondenseDataModule, indices: list[int]) -> float:
    """Return the mean distance between two images of a class, over all such pairs."""
    chosen = torch.tensor(indices)
    images, labels = data.real.at(chosen).flatten(1).double(), data.real.labels_at(chosen)
    pairs = (labels[:, None] == labels[None]).triu(1)
    return round(float(torch.cdist(images, images)[pairs].mean()), 2)


def worth(record: Plain) -> float:
    """Return how many images of equal weight the subset is worth."""
    weights = torch.tensor(record["weights"] or [1.0] * record["images"], dtype=torch.float64)
    return round(float(weights.sum() ** 2 / weights.square().sum()), 1)


if __name__ == "__main__":
    main(sys.argv[1:2] or ["mnist"])
