"""Select with eight methods and judge every subset alike: the numbers behind docs/results.md, into results/selection/.

CIFAR-10 and MNIST at 0.2 and 1 %, three seeds. One proxy model a seed, trained as the configs ship it (10 epochs at
learning rate 0.1), is shared by all methods through the cache, and one fresh network a seed is trained on each subset:
with weights where the method was published with weights. Needs data/MNIST and data/cifar10 (image folders). A record
is measured again where it was made under other settings; what is measured already is kept. About an hour of one core.

Usage: python scripts/run_selection.py [DATASET [FRACTION]]
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from pathlib import Path

from fitting import quiet_trainer
from torch import Tensor

from lit_condense.callbacks import FinalReport
from lit_condense.data import MNIST, CondenseDataModule, ImageFolder
from lit_condense.evaluation import Evaluation
from lit_condense.networks import ConvNet
from lit_condense.selection import (
    CRAIG,
    AdaCore,
    Glister,
    GradMatch,
    Herding,
    KCenterGreedy,
    LCMatS,
    ProxyTraining,
    RandomSubset,
    Selection,
)
from lit_condense.selection.base import ProxyOutputs
from lit_condense.selection.task import ProxyTask, plain_arithmetic
from lit_condense.sets.selected_set import SelectedSet
from lit_condense.settings import Plain, differences, settings_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "selection"
CACHE = "runs/proxy_models"
WIDTH, EPOCHS = 16, 100
SEEDS = (0, 1, 2)
FRACTIONS = ("0.002", "0.01")
WEIGHTED = (CRAIG, GradMatch)
"""Published with the weights that they give, and trained with them here; AdaCore and LCMat-S leave theirs out."""
METHODS: tuple[type[Selection], ...] = (
    RandomSubset,
    Herding,
    KCenterGreedy,
    CRAIG,
    GradMatch,
    Glister,
    AdaCore,
    LCMatS,
)


def main(datasets: list[str], fractions: list[str]) -> None:
    """Measure what is not measured yet."""
    for dataset in datasets:
        data = data_of(dataset)
        for fraction in fractions:
            for seed in SEEDS:
                for method in METHODS:
                    measure(data, dataset, fraction, seed, method)


def data_of(dataset: str) -> CondenseDataModule:
    """Return the data module, loaded once for all runs."""
    if dataset == "mnist":
        return MNIST(root=str(ROOT / "data"), normalization="dc")
    return ImageFolder(root=str(ROOT / "data" / "cifar10"), normalization="dc")


def measure(data: CondenseDataModule, dataset: str, fraction: str, seed: int, method: type[Selection]) -> None:
    """Select, evaluate and add one record, unless it is there."""
    path = RESULTS / f"{dataset}_{fraction}.json"
    module = selected_set(method(), float(fraction), seed, method in WEIGHTED, EPOCHS)
    identity = {"method": method.__name__, "seed": seed, **described(module)}
    records = read(path)
    if any(is_same(record, identity) for record in records):
        return
    record = {**identity, **outcome(module, data)}
    others = [one for one in records if (one["method"], one["seed"]) != (method.__name__, seed)]
    write(path, [*others, record])
    print(dataset, fraction, seed, method.__name__, record["accuracies"], flush=True)


def selected_set(
    method: Selection, fraction: float, seed: int, weighted: bool, epochs: int, networks: int = 1
) -> SelectedSet:
    """Return what selects and is judged; the cache of proxy models is named as seen from the repository."""
    return SelectedSet(
        selection=method,
        fraction=fraction,
        weighted=weighted,
        network=functools.partial(ConvNet, width=WIDTH, depth=3),
        proxy=ProxyTraining(epochs=10, lr=0.1, batch_size=128, cache=CACHE),
        evaluation=Evaluation(protocol="coreset", epochs=epochs, repeats=networks, baselines=[], full_data_steps=0),
        seed=seed,
    )


def looked_through(module: SelectedSet, data: CondenseDataModule, indices: Tensor) -> ProxyOutputs:
    """Return what the first proxy model says of training images; it is trained unless it is in the cache."""
    task = ProxyTask(data.real, module.network, module.seed)
    with plain_arithmetic(data.real.device):
        (trained,) = module.proxy.train_all(task, 1)
        return module.proxy.view(module.proxy.restore(task, trained), data.real, indices)


def described(module: SelectedSet) -> Plain:
    """Return the settings by which a record is known again, of the evaluation those that are set here."""
    settings = settings_of(module)["init_args"]
    judged = settings.pop("evaluation")["init_args"]
    del settings["proxy"]["init_args"]["cache"], settings["proxy"]["init_args"]["chunk"]
    return {"settings": settings, "judged": {name: judged[name] for name in ("protocol", "epochs", "repeats")}}


def outcome(module: SelectedSet, data: CondenseDataModule) -> Plain:
    """Run a selection and return what is kept of it: a set of real images is its indices."""
    with tempfile.TemporaryDirectory() as folder:
        fit(module, data, folder)
        card: Plain = json.loads((Path(folder) / "card.json").read_text())
    score, selected = card["evaluation"]["condensed"][0], card["selected"]
    return {
        "images": sum(card["ipc"]),
        "accuracies": score["accuracies"],
        "network": score["network"],
        "recipe": score["recipe"],
        "seconds_selecting": card["seconds"]["selecting"],
        "data": {name: card["data"][name] for name in ("train", "test")},
        "versions": card["versions"],
        "indices": selected["indices"],
        "weights": selected["weights"] if module.weighted else None,
    }


def fit(module: SelectedSet, data: CondenseDataModule, folder: str) -> None:
    """Select and judge; the report goes into the folder."""
    quiet_trainer(FinalReport(folder), max_epochs=1).fit(module, datamodule=data)


def read(path: Path) -> list[Plain]:
    """Return the records of a file, none where there is no file."""
    records: list[Plain] = json.loads(path.read_text()) if path.exists() else []
    return records


def write(path: Path, records: list[Plain]) -> None:
    """Write records, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")


def is_same(record: Plain, identity: Plain) -> bool:
    """Return whether a record is of these settings; those without indices are from before sets were kept."""
    return "indices" in record and not differences({name: record[name] for name in identity}, identity)


if __name__ == "__main__":
    main(sys.argv[1:2] or ["cifar10", "mnist"], sys.argv[2:3] or list(FRACTIONS))
