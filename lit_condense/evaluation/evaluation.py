"""How a set is evaluated: fresh networks trained on it, tested on the whole test split."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from scipy.special import stdtrit
from torch import nn

from lit_condense.augmentation import Augmentation
from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, check_least
from lit_condense.evaluation.protocols import PROTOCOLS, ProtocolName, Recipe, describe, is_convnet_bn, recipe_for
from lit_condense.evaluation.several import Trainings
from lit_condense.evaluation.training import LabelledImages, SmallSet
from lit_condense.networks import NetworkFactory, build_network, network_name
from lit_condense.networks.factory import single_precision
from lit_condense.rng import RandomKey
from lit_condense.selection import ProxyTraining, RandomSubset, Selection
from lit_condense.sharding import Share


@dataclass(frozen=True)
class Score:
    """Test accuracies of fresh networks, with how they came about."""

    network: str
    accuracies: tuple[float, ...]
    """One number a network, in [0, 1], in the order of the network indices."""
    seconds: float
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation (divisor N - 1); 0 for one network."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return self.std / math.sqrt(len(self.accuracies))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean over all such networks lies with 95 % confidence, by Student's t; None for one network."""
        if len(self.accuracies) < 2:
            return None
        half = float(stdtrit(len(self.accuracies) - 1, 0.975)) * self.standard_error
        return self.mean - half, self.mean + half

    def as_plain(self) -> dict[str, Any]:
        """Return the score as plain data for a card."""
        return {
            "network": self.network,
            "networks": len(self.accuracies),
            "accuracy_mean": self.mean,
            "accuracy_std": self.std,
            "std_definition": "sample standard deviation over networks (divisor N - 1)",
            "accuracy_interval": None if self.interval is None else list(self.interval),
            "interval_definition": "95 % confidence in the mean over networks (Student's t)",
            "accuracies": list(self.accuracies),
            "reported_epoch": "last",
            "seconds": round(self.seconds, 2),
            "recipe": self.recipe,
        }


class Evaluation:
    """How a condensed set is evaluated.

    Args:
        protocol: Training recipe of the fresh networks: ``dc``, ``dsa``, ``idc``, ``coreset``, ``egm``, or ``mtt``,
            which takes the learning rate of a set that has one; its baselines, which have none, are trained with 0.01.
        networks: Architectures to evaluate on; by default the one that the set was condensed with. More than one is a
            cross-architecture evaluation.
        repeats: Fresh networks of each architecture in ``test`` and in the final report.
        quick_repeats: Fresh networks (of the first architecture) in each validation during ``fit`` and in ``validate``.
        epochs: Another number of epochs than the protocol's; the card says so.
        cutmix: Another probability of mixing a batch by CutMix than the protocol's (IDC on packed MNIST: 0).
        start: Evaluate what a synthetic set started from too, under the identical recipe, in the final report.
        full_data_steps: SGD steps of the one network trained on all real images, at most 1,000; 0 leaves it out.
        baselines: Selections of real images that networks are trained on too, under the identical recipe, in the final
            report; default: random ones. They take as much storage as the set: where its stored images hold several
            small ones, so do theirs. An empty list leaves them out.
        proxy: How the proxy models of such selections are trained, where they need any; default: 10 epochs.
        augmentation: Another augmentation than the protocol's (IDC-I on SVHN at 1 image a class: with cutout).
        other_data: Let ``validate`` and ``test`` evaluate a condensed set whose training split is not the one it
            was made from (transfer). Class names, image shape, normalisation values and parametrization must be its own
            even so; the test split may be another without this.
    """

    def __init__(
        self,
        protocol: ProtocolName = "dc",
        networks: list[NetworkFactory] | None = None,
        *,
        repeats: int = 10,
        quick_repeats: int = 2,
        epochs: int | None = None,
        full_data_steps: int = 1000,
        baselines: list[Selection] | None = None,
        proxy: ProxyTraining | None = None,
        cutmix: float | None = None,
        augmentation: Augmentation | None = None,
        other_data: bool = False,
        start: bool = True,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise SettingsError(f"Expected Evaluation.protocol to be one of {list(PROTOCOLS)}, got {protocol!r}.")
        check_least("Evaluation", 1, repeats=repeats, quick_repeats=quick_repeats, epochs=epochs)
        if not 0 <= full_data_steps <= 1000:
            raise SettingsError(f"Expected Evaluation.full_data_steps to be in 0 to 1000, got {full_data_steps}.")
        if cutmix is not None and not 0 <= cutmix <= 1:
            raise SettingsError(f"Expected Evaluation.cutmix to be a probability in [0, 1], got {cutmix}.")
        tags = [selection.tag for selection in baselines or []]
        if len(set(tags)) < len(tags):
            raise SettingsError(f"Expected Evaluation.baselines to be different methods, got {tags}. Leave one out.")
        self.protocol = protocol
        self.networks = networks
        self.repeats = repeats
        self.quick_repeats = quick_repeats
        self.epochs = epochs
        self.full_data_steps = full_data_steps
        self.baselines = baselines
        self.proxy = proxy
        self.cutmix = cutmix
        self.augmentation = augmentation
        self.other_data = other_data
        self.start = start

    @property
    def proxy_of_baselines(self) -> ProxyTraining:
        """How proxy models of baselines are trained."""
        return self.proxy or ProxyTraining()

    @property
    def compared_with(self) -> list[Selection]:
        """The baselines in use."""
        return [RandomSubset()] if self.baselines is None else self.baselines


@dataclass(frozen=True)
class Evaluator:
    """An evaluation bound to its data: trains network ``k`` of an architecture on a set and tests it.

    The key of a network depends on its architecture and index only, so a condensed set and its baselines are evaluated
    by networks with the same initial weights, and evaluating never changes what a run draws.
    """

    evaluation: Evaluation
    test: RealImages
    dataset: str
    key: RandomKey
    device: torch.device

    def recipe(self, network: nn.Module, data: LabelledImages | None = None) -> Recipe:
        """Return the protocol's recipe for this network on these data, with what the evaluation changes of it."""
        asked, step_size = self.evaluation, data.step_size if isinstance(data, SmallSet) else None
        bn, protocol = is_convnet_bn(network), asked.protocol
        recipe = recipe_for(protocol, self.dataset, bn, asked.epochs, asked.augmentation, step_size)
        return recipe if asked.cutmix is None else replace(recipe, cutmix=asked.cutmix)

    def accuracy(
        self, factory: NetworkFactory, index: int, data: LabelledImages, max_steps: int | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Train fresh network ``index`` on ``data``; return its test accuracy and its recipe as plain data."""
        accuracies, recipe = self.accuracies(factory, [index], lambda _: data, 1, max_steps)
        return accuracies[0], recipe

    def accuracies(
        self,
        factory: NetworkFactory,
        indices: Sequence[int],
        set_for: Callable[[int], LabelledImages],
        networks: int,
        max_steps: int | None = None,
    ) -> tuple[list[float], dict[str, Any]]:
        """Train fresh networks, several at once where that is faster, and test them.

        Args:
            factory: Their architecture.
            indices: Which networks of that architecture.
            set_for: Gives what network ``i`` is trained on; all of one size.
            networks: How many the evaluation trains on all ranks: a fixed table reads it.
            max_steps: Fewer steps than the recipe's.

        Returns:
            An accuracy a network, and the recipe as plain data.
        """
        keys = self._keys(factory, indices)
        with self._training():
            first = set_for(indices[0])
            trainings = self._planned(factory, first, networks, max_steps)
            found: list[float] = []
            for group in trainings.groups(len(indices)):
                sets = [set_for(indices[i]) if i > 0 else first for i in group]
                found += trainings.accuracies([keys[i] for i in group], sets)
        return found, {**describe(trainings.recipe), "steps": trainings.steps}

    def first_accuracies(
        self, factory: NetworkFactory, indices: Sequence[int], data: LabelledImages, networks: int
    ) -> list[float]:
        """Train the first of some fresh networks, as many as make a group, and test them.

        Args:
            factory: Their architecture.
            indices: Which networks of that architecture.
            data: What they are trained on.
            networks: How many the evaluation trains on all ranks.

        Returns:
            An accuracy for each of ``indices``, or for the first of them.
        """
        with self._training():
            trainings = self._planned(factory, data, networks)
            keys = self._keys(factory, indices[: trainings.group_size])
            return trainings.accuracies(keys, [data] * len(keys))

    def _keys(self, factory: NetworkFactory, indices: Sequence[int]) -> list[RandomKey]:
        return [self.key.fold("evaluation", network_name(factory), index) for index in indices]

    def _planned(
        self, factory: NetworkFactory, data: LabelledImages, networks: int, max_steps: int | None = None
    ) -> Trainings:
        channels, height, width = self.test.image_shape

        def build(key: RandomKey) -> nn.Module:
            return build_network(factory, channels, (height, width), self.test.num_classes, key).to(self.device)

        def recipe_of(network: nn.Module) -> Recipe:
            return self.recipe(network, data)

        return Trainings.planned(build, recipe_of, data, self.test, networks, max_steps)

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Validation runs in inference mode and possibly under autocast: a network is trained here in neither."""
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(self.device.type, enabled=False),
            single_precision(),
        ):
            yield

    def score(
        self,
        factory: NetworkFactory,
        set_for: Callable[[int], LabelledImages],
        repeats: int,
        share: Share,
        max_steps: int | None = None,
    ) -> Score:
        """Train ``repeats`` fresh networks, network ``i`` on ``set_for(i)``; ranks share them out.

        Returns:
            The same score on every rank.
        """
        start = time.perf_counter()
        accuracies = torch.zeros(repeats, dtype=torch.float64)
        recipe: dict[str, Any] = {}
        mine = share.take(range(repeats))
        if mine:
            found, recipe = self.accuracies(factory, mine, set_for, repeats, max_steps)
            accuracies[mine] = torch.tensor(found, dtype=torch.float64)
        # float32 carries an accuracy to 1e-7; some accelerators cannot reduce float64
        gathered = share.sum(accuracies.to(self.device, torch.float32)).tolist() if share.world_size > 1 else None
        return Score(
            network_name(factory),
            tuple(gathered or accuracies.tolist()),
            time.perf_counter() - start,
            {"protocol": self.evaluation.protocol, **recipe},
        )
