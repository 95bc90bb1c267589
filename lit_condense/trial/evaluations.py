"""Everything a run will need, tried before its first update: what would fail after hours fails at once.

Networks are tried in training and in evaluation mode, on the device of the run, on the smallest batch that will occur
(the one that batch norm fails on) and, where the device has a memory of its own, on the largest. They are made for the
trial and thrown away; draws are keyed and the global generators put back, so that results stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.data.batching import batch_sizes
from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError
from lit_condense.evaluation.baselines import Baselines
from lit_condense.evaluation.evaluation import Evaluator
from lit_condense.evaluation.training import TEST_BATCH, SmallSet, training_batch
from lit_condense.networks import FeaturesAndLogits, NetworkFactory, build_network, evaluating, network_name
from lit_condense.networks.factory import explained
from lit_condense.rng import RandomKey
from lit_condense.runs.files import check_writable
from lit_condense.selection import ProxyTraining, Selection
from lit_condense.selection.select import candidates_of, checked
from lit_condense.selection.task import History, ProxyTask, plain_arithmetic

FEW = 8
"""Candidates that a selection of one's own is tried on."""


def tested(
    evaluator: Evaluator, factories: Sequence[NetworkFactory], real: RealImages, images: int, key: RandomKey
) -> None:
    """Try every network that a finished set is tested on, before the first one is trained.

    Args:
        evaluator: The evaluation.
        factories: The architectures.
        real: Images to try them on.
        images: Those of the set.
        key: The run's.
    """
    with plain_arithmetic(evaluator.device), key.fold("trial").isolated():
        for factory in factories:
            try_network(evaluator, factory, real, [images], False)


def evaluations(
    evaluator: Evaluator,
    factories: Sequence[NetworkFactory],
    baselines: Baselines,
    counts: Sequence[int],
    key: RandomKey,
) -> None:
    """Try every network that a set and its baselines will be evaluated by.

    Args:
        evaluator: The evaluation.
        factories: The architectures; baselines are evaluated by the first.
        baselines: What the set is compared with; their real images are tried.
        counts: Images of each class that networks are trained on; or of all classes, where all of them are real.
        key: The run's.

    Raises:
        SettingsError: A network does not fit.
    """
    real, storage = baselines.task.real, baselines.storage
    whole = [sum(counts)]
    if len(counts) == real.num_classes:  # a class with fewer real images has a smaller baseline
        whole.append(sum(min(pair) for pair in zip(counts, real.class_sizes, strict=True)))
    if storage.factor > 1:  # and a class may fill its last stored image in part
        whole.append(sum(map(storage.for_training.decoded_count, baselines.budget.stored)))
    with plain_arithmetic(evaluator.device), key.fold("trial").isolated():
        for factory in factories:
            try_network(evaluator, factory, real, whole, factory is factories[0])


def proxies(
    task: ProxyTask, proxy: ProxyTraining, selections: Sequence[Selection], setting: str, key: RandomKey, writes: bool
) -> None:
    """Try the proxy models of selections, where their trained weights are kept, and selections of one's own.

    Args:
        task: The real images on the device, and what the networks are made of.
        proxy: How the networks are trained.
        selections: The methods.
        setting: Where ``proxy`` is set, for messages.
        key: The run's.
        writes: Whether this process will keep trained weights.
    """
    real = task.real
    networks: list[nn.Module] = []
    with plain_arithmetic(real.device), key.fold("trial", "proxy").isolated():
        if any(selection.networks for selection in selections):
            if proxy.cache is not None:
                proxy.description(task, 0)
                if writes:
                    check_writable(Path(proxy.cache))
            network = proxy.start(task, 0).to(real.device)
            name, trained = network_name(task.network), batch_sizes(len(real), proxy.batch_size)
            trains(network, name, real, trained if proxy.epochs else [], f"the training by {setting}")
            seen = [size for count in real.class_sizes for size in batch_sizes(count, proxy.chunk)]
            looks(FeaturesAndLogits(network), name, real, seen, "a look through proxy models")
            networks.append(network)
        for selection in selections:
            if not type(selection).__module__.startswith("lit_condense."):
                _chooses(selection, proxy, real, networks * selection.networks, key)


def trains(network: nn.Module, name: str, real: RealImages, sizes: Iterable[int], purpose: str) -> None:
    """Try a network in training mode: logits and their gradient, for the extremes of some sizes of batches.

    Args:
        network: Whose statistics may move.
        name: Of the network.
        real: Images to try it on.
        sizes: Of the batches.
        purpose: What needs them.
    """
    network.train()
    like = next(network.parameters())
    for size in extremes(sizes, like.device):
        learns(network, name, *_images(real, size, like), real.num_classes, purpose)


def learns(network: nn.Module, name: str, images: Tensor, labels: Tensor, num_classes: int, purpose: str) -> None:
    """Try a network in training mode on one batch."""
    size = len(images)
    with explained(f"{name} cannot be trained on a batch of {_counted(size)}, as {purpose} does"):
        logits = network(images)
        _check_output(logits, name, (size, num_classes), "in training mode")
        parameters = [p for p in network.parameters() if p.requires_grad]
        torch.autograd.grad(F.cross_entropy(logits, labels), parameters, allow_unused=True)


def looks(network: nn.Module, name: str, real: RealImages, sizes: Iterable[int], purpose: str) -> None:
    """Try a network, or its features and logits, in evaluation mode; arguments as for :func:`trains`."""
    like = next(network.parameters())
    for size in extremes(sizes, like.device):
        with explained(f"{name} cannot be tested on a batch of {_counted(size)}, as {purpose} does"):
            with evaluating(network), torch.no_grad():
                found = network(_images(real, size, like)[0])
            logits = found[1] if isinstance(network, FeaturesAndLogits) else found
            _check_output(logits, name, (size, real.num_classes), "in evaluation mode")


def extremes(sizes: Iterable[int], device: torch.device) -> list[int]:
    """Return the smallest size, and the largest too where the device has a memory of its own."""
    known = sorted(set(sizes))
    return known if len(known) < 2 else [known[0]] if device.type == "cpu" else [known[0], known[-1]]


def try_network(
    evaluator: Evaluator, factory: NetworkFactory, real: RealImages, whole: Sequence[int], short: bool
) -> None:
    """Try an evaluation network.

    Args:
        evaluator: The evaluation.
        factory: The architecture.
        real: Images to try it on.
        whole: Images of the sets that it is trained on.
        short: Whether it is trained on all real images too.
    """
    channels, height, width = real.image_shape
    key, name = RandomKey(0, ("trial",)), network_name(factory)
    network = (
        build_network(factory, channels, (height, width), evaluator.test.num_classes, key).to(evaluator.device).train()
    )
    recipe, steps = evaluator.recipe(network), evaluator.evaluation.full_data_steps
    sizes = [size for images in whole for size in batch_sizes(images, recipe.batch_size)]
    sizes += batch_sizes(len(real), recipe.batch_size)[:steps] if short else []
    like = next(network.parameters())
    for size in extremes(sizes, evaluator.device):
        batch = training_batch(SmallSet(*_images(real, size, like)), recipe, 0, real.num_classes, key)
        learns(network, name, *batch, real.num_classes, f"the evaluation by protocol {evaluator.evaluation.protocol}")
    looks(network, name, evaluator.test, batch_sizes(len(evaluator.test), TEST_BATCH), "an evaluation")


def _chooses(
    selection: Selection, proxy: ProxyTraining, real: RealImages, networks: Sequence[nn.Module], key: RandomKey
) -> None:
    """Hold a selection of one's own to its contract on a few images of one class, before the networks are trained."""
    members = real.indices_of(0)[:FEW]
    forgetting = History.new(len(real), torch.device("cpu")).forgotten if networks else None
    candidates = candidates_of(networks, forgetting, proxy, real, members)  # type: ignore[arg-type]
    count = max(1, len(members) // 2)
    checked(selection, selection.choose(candidates, count, key.fold("trial")), count, members)


def _images(real: RealImages, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return so many images, again from the first where there are fewer, and their labels."""
    chosen = torch.arange(size) % len(real)
    return real.at(chosen).to(like), real.labels_at(chosen).to(like.device)


def _check_output(found: object, name: str, wanted: tuple[int, int], mode: str) -> None:
    if isinstance(found, Tensor) and tuple(found.shape) == wanted:
        return
    got = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    raise SettingsError(
        f"{name} should return logits of shape {wanted} {mode} too, but returned {got}. Return the logits alone: "
        "auxiliary outputs are not used (a wrapper's forward can drop them)."
    )


def _counted(size: int) -> str:
    return "one image" if size == 1 else f"{size} images"
