"""The rows of methods that match trajectories, and of the experts that these follow."""

from __future__ import annotations

from collections.abc import Iterator

from config_text import ANY, CLASSES, Node, comment, images, of, where

from lit_condense.augmentation import dsa_operations
from lit_condense.augmentation.siamese import DSA_OPERATIONS

WHITENED = {"cifar10": (1, 10), "cifar100": (1, 50)}
"""Rows of MTT on ZCA-whitened images; all rows of FTD and DATM on CIFAR are."""
MTT_ROWS = {
    # data set, images per class: steps, expert epochs, start epochs, batch, rates of images and step size, step size
    ("cifar10", 1): (50, 2, 2, None, 100.0, 1e-7, 0.01),
    ("cifar10", 10): (30, 2, 20, None, 100.0, 1e-5, 0.001),
    ("cifar10", 50): (30, 2, 40, None, 1000.0, 1e-5, 0.001),
    ("cifar100", 1): (20, 3, 20, None, 1000.0, 1e-5, 0.01),
    ("cifar100", 10): (20, 2, 20, None, 1000.0, 1e-5, 0.01),
    ("cifar100", 50): (80, 2, 40, 125, 1000.0, 1e-5, 0.01),
    ("tinyimagenet", 1): (10, 2, 10, None, 1e4, 1e-4, 0.01),
    ("tinyimagenet", 10): (20, 2, 40, 200, 1e4, 1e-4, 0.01),
}
FTD_ROWS = {  # the same, with the decay of the average, and GSAM's alpha of the experts
    ("cifar10", 1): (50, 2, 2, None, 100.0, 1e-7, 0.01, 0.9999, 0.3),
    ("cifar10", 10): (30, 2, 20, None, 100.0, 1e-5, 0.001, 0.9995, 0.3),
    ("cifar10", 50): (30, 2, 40, None, 1000.0, 1e-5, 0.01, 0.999, 1),
    ("cifar100", 1): (40, 3, 20, None, 1000.0, 1e-5, 0.01, 0.9995, 1),
    ("cifar100", 10): (20, 2, 40, None, 1000.0, 1e-5, 0.01, 0.9995, 1),
    ("cifar100", 50): (80, 2, 40, 1000, 1000.0, 1e-5, 0.01, 0.999, 1),
    ("tinyimagenet", 1): (30, 2, 10, None, 1e4, 1e-4, 0.01, 0.999, 1),
    ("tinyimagenet", 10): (20, 2, 40, 500, 1e4, 1e-4, 0.01, 0.999, 1),
}
DATM_ROWS = {
    # steps, expert epochs, lowest start epoch, (first, last, updates) of their bound, batch, rates of images, of labels
    # and of the step size
    ("cifar10", 1): (80, 2, 0, (None, 4, None), 10, 100.0, 5.0, 1e-7),
    ("cifar10", 10): (80, 2, 0, (10, 20, 1000), 100, 100.0, 2.0, 1e-5),
    ("cifar10", 50): (80, 2, 0, (20, 40, 2000), 500, 1000.0, 2.0, 1e-5),
    ("cifar100", 1): (40, 3, 0, (10, 20, 1000), None, 1000.0, 10.0, 1e-5),
    ("cifar100", 10): (80, 2, 0, (30, 50, 2000), 1000, 1000.0, 10.0, 1e-5),
    ("cifar100", 50): (80, 2, 20, (None, 70, None), 1000, 1000.0, 10.0, 1e-5),
    ("tinyimagenet", 1): (40, 2, 0, (15, 20, 2000), None, 1e4, 10.0, 1e-4),
    ("tinyimagenet", 10): (40, 2, 10, (None, 50, None), 500, 100.0, 10.0, 1e-4),
}
TWO_CORES = {
    ("digits", 1): (10, 2, 5, None, 100.0, 1e-6, 0.01),
    ("mnist", 1): (20, 2, 10, None, 1000.0, 1e-6, 0.02),
    ("mnist", 10): (20, 2, 10, None, 1000.0, 1e-6, 0.02),
}
"""Rows of our own, for small networks and few experts: chosen on held-out images, never on a test split."""
SMALL = {
    "digits": of("ConvNet", width=32, depth=2),
    "mnist": of("ConvNet", width=32),
    "tinyimagenet": of("ConvNet", depth=4),
}
MATCHED_IN_HALF = (
    "Its program applies half of the gradient of the images: the published rate, {published:g}, is halved here."
)
WRONG_RATE = (
    "The authors' table says lr_img 1e5 for this row, a typo that they confirmed (issue 31 of their repository) and "
    "that makes the step size explode; it is 100."
)


def trajectories(dataset: str, ipc: int, experts: str, loss: Node, rates: tuple[float, float, float]) -> Node:
    """Return what all methods that match trajectories have in common.

    Args:
        dataset: Where the row is from.
        ipc: Its images per class.
        experts: Name of their config.
        loss: Settings of the matching.
        rates: Learning rates of images and step size, and where the step size starts.
    """
    lr, lr_rate, inner_lr = rates
    operations = dsa_operations(dataset)
    whitened = "" if experts.endswith("_unwhitened") else "zca"
    plain = {"cifar100": "idc"}.get(dataset, "dc")
    matched = {"experts": experts if dataset != ANY else None, **loss}
    return {
        "losses": [of("TrajectoryMatching", **{name: value for name, value in matched.items() if value is not None})],
        "networks": 5000,
        "updates": 1,
        "network": SMALL.get(dataset),
        "inner": "FreshNetwork",
        "init": "RandomReal",
        "augmentation": of("OneOf", **({"operations": list(operations)} if operations != DSA_OPERATIONS else {})),
        "optimizer": images(lr),
        "learnables": {"inner_lr": inner_lr, "inner_lr_rate": lr_rate},
        "evaluation": {"protocol": "mtt"},
        "normalization": (whitened if dataset.startswith("cifar") or dataset == ANY else "") or plain,
        "remark": f"Experts first: lit-condense fit --config experts/{experts}."
        if dataset != ANY
        else ANY_EXPERTS.format(kind=experts.removeprefix(ANY)),
    }


ANY_EXPERTS = "Experts first: lit-condense fit --config experts/base{kind}, with the same data."


def mtt(dataset: str, ipc: int, unroll: str | None = None) -> Node:
    key = ("cifar10" if dataset == ANY else dataset, ipc)
    steps, epochs, start, batch, *rates = MTT_ROWS.get(key) or TWO_CORES[key]
    unwhitened = dataset in WHITENED and ipc not in WHITENED[dataset]
    loss = {"max_start_epoch": start, "expert_epochs": epochs, "steps": steps, "batch_size": batch, "unroll": unroll}
    row = trajectories(dataset, ipc, f"{dataset}_unwhitened" if unwhitened else dataset, loss, tuple(rates))
    if (dataset, ipc) == ("cifar10", 10):
        row["remark"] += f" {WRONG_RATE}"
    return row | ({"networks": 300} if dataset == "digits" else {})


def ftd(dataset: str, ipc: int) -> Node:
    *others, decay, alpha = FTD_ROWS["cifar10" if dataset == ANY else dataset, ipc]
    steps, epochs, start, batch, *rates = others
    loss = {"max_start_epoch": start, "expert_epochs": epochs, "steps": steps, "batch_size": batch}
    row = trajectories(dataset, ipc, f"{dataset}_gsam{'' if alpha != 1 else '_alpha1'}", loss, tuple(rates))
    weight = f"After 5,000 updates the average still holds {decay**5000:.1%} of the start."
    return row | {"average": decay, "remark": f"{row['remark']} {weight}"}


def tesla(dataset: str, ipc: int) -> Node:
    """TESLA; its repository has settings of two rows, the others are MTT's."""
    row = mtt(dataset, ipc, "constant_memory") | {"networks": 10_000}
    own = {("cifar10", 1): (50, 2, 5, None, 500.0, 1e-7, 0.01), ("cifar100", 50): (80, 2, 40, 125, 500.0, 1e-5, 0.01)}
    if (dataset, ipc) not in own:
        return row | {"remark": f"{row['remark']} No settings are published for this row: they are MTT's."}
    steps, epochs, start, batch, *rates = own[dataset, ipc]
    loss = {"max_start_epoch": start, "expert_epochs": epochs, "steps": steps, "batch_size": batch}
    experts = "cifar10_unwhitened" if dataset == "cifar10" else dataset
    found = trajectories(dataset, ipc, experts, loss | {"unroll": "constant_memory"}, tuple(rates))
    half = MATCHED_IN_HALF.format(published=2 * rates[0])
    return found | {"networks": 10_000, "remark": f"{found['remark']} {half}"}


def datm(dataset: str, ipc: int) -> Node:
    key = ("cifar10" if dataset == ANY else dataset, ipc)
    steps, epochs, low, (first, last, updates), batch, lr, label_lr, lr_rate = DATM_ROWS[key]
    loss = {"max_start_epoch": last, "min_start_epoch": low or None, "initial_max_start_epoch": first}
    loss |= {"expansion_updates": updates, "expert_epochs": epochs, "steps": steps, "batch_size": batch}
    loss |= {"threshold": 1.1 if key == ("cifar10", 1) else 1.0}
    experts = f"{dataset}_gsam"
    row = trajectories(dataset, ipc, experts, loss, (lr, lr_rate, 0.01))
    row["learnables"] |= {"label_lr": label_lr, "label_momentum": 0.9}
    start = of("RecognisedReal", experts=experts) if dataset != ANY else "RandomReal"
    if dataset == ANY:
        row["remark"] += " The published rows start from images that experts recognise (init: RecognisedReal)."
    if key == ("cifar100", 50):
        row["remark"] += " Its program starts this row from random images, with the labels of one expert."
    return row | {"networks": 10_000, "init": start}


EXPERT_KINDS = {
    # name after the data set: optimizer, epochs, what it is
    "": (None, 50, "MTT and TESLA"),
    "_unwhitened": (None, 50, "MTT and TESLA, without ZCA"),
    "_gsam": (of("lit_condense.optim.GSAM", lr=0.01, rho=0.01, alpha=0.3), 100, "FTD and DATM, flat minima"),
    "_gsam_alpha1": (of("lit_condense.optim.GSAM", lr=0.01, rho=0.01, alpha=1.0), 50, "FTD, alpha 1"),
}
ON_TWO_CORES = {"digits": (10, 20), "mnist": (10, 20)}
"""Experts and epochs of what is meant for two cores."""


def experts() -> Iterator[tuple[str, Node, str]]:
    """Go through the configs that record experts: name, config, header."""
    for dataset in ("digits", "mnist", "cifar10", "cifar100", "tinyimagenet", ANY):
        for kind, (optimizer, epochs, use) in EXPERT_KINDS.items():
            small = dataset in ON_TWO_CORES or dataset == ANY
            if (
                (small and kind not in ("", "_gsam"))
                or (dataset in ON_TWO_CORES and kind)
                or (dataset == "tinyimagenet" and kind == "_unwhitened")
            ):
                continue
            count, epochs = ON_TWO_CORES.get(dataset, (100, epochs))
            operations = dsa_operations(dataset)
            model: Node = {"experts": count, "epochs": epochs, "network": SMALL.get(dataset), "optimizer": optimizer}
            model["augmentation"] = of("OneOf", operations=list(operations)) if operations != DSA_OPERATIONS else None
            found: Node = {
                "model": {"class_path": "ExpertTrajectories", "init_args": {k: v for k, v in model.items() if v}}
            }
            whitened = dataset.startswith("cifar") and kind != "_unwhitened"
            family = "zca" if whitened else {"cifar100": "idc"}.get(dataset, "dc")
            if dataset in CLASSES:
                found["data"] = CLASSES[dataset] if family == "dc" else of(CLASSES[dataset], normalization=family)
            name = f"base{kind}" if dataset == ANY else f"{dataset}{kind}"
            yield (
                name,
                found,
                comment(
                    f"Experts for {use}: {count} networks x {epochs} epochs on {where(dataset, kind == '_gsam')}.",
                    "The same command goes on with what is recorded. Runs find experts by the name of their config.",
                ),
            )
