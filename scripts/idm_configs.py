"""The rows of IDM."""

from __future__ import annotations

from typing import Any

from config_text import ANY, Node, images, of

from lit_condense.augmentation import dsa_operations
from lit_condense.augmentation.siamese import DSA_OPERATIONS

IDM_ROWS = {
    # data set, images per class: real batch, weight of the cross-entropy, pool: updates between two new networks, steps
    # of training, updates between two resets of the meters
    ("cifar10", 1): (5000, 0.5, 5, 10, 100),
    ("cifar10", 10): (256, 0.5, 30, 10, 100),
    ("cifar10", 50): (256, 0.1, 30, 10, 500),
    ("cifar100", 1): (5000, 0.5, 5, 10, 100),
    ("cifar100", 10): (256, 0.1, 30, 50, 100),
    ("cifar100", 50): (256, 0.1, 30, 10, 500),
    ("tinyimagenet", 1): (256, 0.5, 30, 10, 100),
    ("tinyimagenet", 10): (256, 0.5, 30, 10, 500),
    ("tinyimagenet", 50): (256, 0.8, 30, 50, 1000),
}
PARTITION = of("MultiFormation", space="normalized", clamp="never", order="column", shrinking="mean")
SMALL_POOL = of("Pool", size=20, every=5, trained=1, steps=5, batch_size=64)
"""For two cores: training the pool is most of what an update costs."""
TWO_CORES = {
    # data set: network, real batch, updates
    "digits": (of("ConvNet", width=32, depth=2), 64, 300),
    "mnist": (of("ConvNet", width=32), 256, 2000),
    "cifar10": (of("ConvNet", width=32), 256, 2000),
}
REMARKS = {
    ("cifar100", 50): "Its author later advised 40 steps of training (issue 1 of their repository).",
    "tinyimagenet": "Its program starts this data from whole images, which it then cuts in four; here from four.",
}


def idm(dataset: str, ipc: int, two_cores: bool = False) -> Node:
    """IDM; as one joint step, where its program steps class by class on one tensor (optim.SharedTensorSGD)."""
    operations = dsa_operations(dataset)
    shared: Node = {
        "parametrization": PARTITION,
        "init": "RandomReal",
        "augmentation": of("OneOf", **({"operations": list(operations)} if operations != DSA_OPERATIONS else {})),
        "optimizer": images(0.2),
        "evaluation": {"protocol": "dsa"},
    }
    if two_cores:
        network, batch, updates = TWO_CORES[dataset]
        return shared | {
            "losses": ["FeatureMatching", "ClassAwareCrossEntropy"],
            "network": network,
            "inner": SMALL_POOL,
            "sampling": of("RandomSampling", batch_size=batch) if batch != 256 else None,
            "max_steps": updates,
            "updates": 5,
            "title": "IDM with a small network and pool, for two cores",
            "unverified": True,
        }
    batch, weight, every, steps, reset = IDM_ROWS["cifar10" if dataset == ANY else dataset, ipc]
    changed: dict[str, Any] = {"every": every, "steps": steps, "reset_meters_every": reset}
    usual = {"every": 30, "steps": 10, "reset_meters_every": 100}
    return shared | {
        "losses": ["FeatureMatching", of("ClassAwareCrossEntropy", weight=weight)],
        "inner": of("Pool", **{name: value for name, value in changed.items() if value != usual[name]}),
        "sampling": of("RandomSampling", batch_size=batch) if batch != 256 else None,
        "max_steps": 20_000,
        "updates": every,
        "remark": REMARKS.get((dataset, ipc), REMARKS.get(dataset, "")),
    }
