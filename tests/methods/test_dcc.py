"""DCC: one distance between the gradients of whole sets, after a warm-up (Lee et al., ICML 2022)."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from lightning.pytorch.loggers.logger import Logger

from lit_condense.engine import Engine
from lit_condense.errors import SettingsError
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import ContrastiveGradientMatching, GradientMatching, Progress, WarmUpGradientMatching
from lit_condense.synthetic.schedule import check_schedule
from tests.helpers import Emptying, fitted
from tests.methods.helpers import (
    CLASSES,
    EQUAL,
    PRECISION,
    KeyedDraws,
    labels_of,
    matched,
    network_of,
    one_update,
    real_of,
    stored_of,
)
from tests.oracles import dc, methods

AFTER, BEFORE = Progress(2500, 250, 0), Progress(2499, 249, 9)
COUNTS = (6,) * CLASSES


class Growing(GradientMatching):
    def weight_at(self, progress):
        return min(1.0, progress.update / 100)


@functools.cache
def literal(norm="instance"):
    return methods.image_gradient(
        network_of(norm), stored_of(EQUAL), labels_of(EQUAL), real_of(COUNTS), [(1.0, methods.dcc)]
    )


@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize("norm", ["instance", "layer", "none"])
def test_after_the_warm_up_the_whole_set_is_matched_as_in_one_forward_pass(norm, per_block):
    losses = [WarmUpGradientMatching(), ContrastiveGradientMatching()]
    active = [loss for loss in losses if loss.weight_at(AFTER)]
    values, gradient = matched(network_of(norm), active, per_block, EQUAL, COUNTS, progress=AFTER)
    wanted, wanted_gradient = literal(norm)
    assert values == {"ContrastiveGradientMatching": pytest.approx(wanted[0], rel=1e-10)}
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


def test_a_smaller_real_class_counts_as_much_as_any_other():
    counts = (6, 6, 6, 4, 6)
    values, gradient = matched(network_of(), [ContrastiveGradientMatching()], 2, EQUAL, counts, progress=AFTER)
    wanted, wanted_gradient = methods.image_gradient(
        network_of(), stored_of(EQUAL), labels_of(EQUAL), real_of(counts), [(1.0, methods.dcc)]
    )
    assert values["ContrastiveGradientMatching"] == pytest.approx(wanted[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


@pytest.mark.parametrize("per_block", [1, 5])
def test_during_the_warm_up_it_is_dc(per_block):
    values, gradient = matched(network_of(), [WarmUpGradientMatching()], per_block, EQUAL, COUNTS, progress=BEFORE)
    plain, plain_gradient = matched(network_of(), [GradientMatching()], per_block, EQUAL, COUNTS)
    wanted, _ = methods.image_gradient(
        network_of(), stored_of(EQUAL), labels_of(EQUAL), real_of(COUNTS), [(1.0, methods.intra(dc.row_cosine))]
    )
    assert values["WarmUpGradientMatching"] == plain["GradientMatching"] == pytest.approx(wanted[0], rel=1e-10)
    assert torch.equal(gradient, plain_gradient)


@pytest.mark.parametrize(("ipc", "updates"), [(1, 10), (10, 10), (50, 50)])
def test_the_published_switch_points(ipc, updates):
    # only with 50 images a class does a network serve more than 10 updates, and meets the second rule
    contrastive, warm_up = ContrastiveGradientMatching(weight=2.0), WarmUpGradientMatching(weight=3.0)
    for network in (0, 1, 100, 248, 249, 250, 251, 999):
        for match in range(updates):
            progress = Progress(network * updates + match, network, match)
            on = network >= 250 or match >= 10
            assert (contrastive.weight_at(progress), warm_up.weight_at(progress)) == ((2.0, 0.0) if on else (0.0, 3.0))
    switched = [m for m in range(updates) if contrastive.weight_at(Progress(m, 0, m))]
    assert switched == list(range(10, 50)) if ipc == 50 else switched == []


class Memory(Logger):
    """Keeps every line that is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    name, version = "memory", 0

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.lines.append(metrics)


def run(networks, matches):
    """Three networks of three updates, with the switch where it is set; returns the log and the branches computed."""
    computed = []

    class Spy:
        def loss(self, real, synthetic):
            computed.append(self.tag)
            return super().loss(real, synthetic)

    class Contrastive(Spy, ContrastiveGradientMatching):
        pass

    class WarmUp(Spy, WarmUpGradientMatching):
        pass

    memory = Memory()
    fitted(
        Contrastive(networks, matches, name="contrastive"),
        WarmUp(networks, matches, name="warm_up"),
        Emptying(computed),
        inner=TrainOnSynthetic(updates=3, epochs=1),
        max_steps=9,
        trainer={"logger": memory, "log_every_n_steps": 1},
        engine=Engine(classes_per_block=1),
    )
    return memory.lines, computed


# the seventh update opens the third network, whose predecessors switch at their third update
SWITCHED = [False, False, True, False, False, True, True, True, True]


def test_a_run_computes_the_active_branch_and_the_distance_of_whole_sets_for_the_log():
    _, computed = run(networks=2, matches=2)
    # class by class it is called once for each class block, for whole sets once for the mean
    wanted = [["contrastive"] if on else ["contrastive"] + ["warm_up"] * CLASSES for on in SWITCHED]
    assert computed == [tag for update in wanted for tag in update]


def test_the_log_names_the_branch_of_each_update():
    # Lightning goes on writing the last value of a metric that is not logged any more: a loss that is off is NaN.
    lines = [line for line in run(networks=2, matches=2)[0] if "loss/total" in line]
    assert [math.isnan(line["loss/warm_up"]) for line in lines] == SWITCHED
    assert not any(math.isnan(line["loss/contrastive"]) for line in lines)


@pytest.mark.parametrize("warm_up", [0, 1], ids=["after", "before"])
def test_the_log_has_the_distance_of_whole_sets_on_one_scale_before_and_after_the_switch(warm_up):
    losses = [WarmUpGradientMatching(warm_up, 9), ContrastiveGradientMatching(warm_up, 9, weight=2.0)]
    _, start, module = one_update(*losses)
    draws, logged = KeyedDraws(), module.trainer.callback_metrics
    synthetic = [start[2 * c : 2 * c + 2] for c in range(CLASSES)]
    literal = float(methods.dcc(draws.network(), synthetic, draws.real()).detach())
    assert float(logged["loss/ContrastiveGradientMatching"]) == pytest.approx(literal, rel=1e-6)
    term = methods.intra(dc.row_cosine)
    summed = float(term(draws.network(), synthetic, draws.real()).detach())
    assert float(logged["loss/total"]) == pytest.approx(summed if warm_up else 2 * literal, rel=1e-6)


@pytest.mark.parametrize("per_block", [1, 5])
def test_what_is_logged_only_leaves_the_images_alone(per_block):
    engine = Engine(classes_per_block=per_block)
    watched, _, _ = one_update(ContrastiveGradientMatching(), WarmUpGradientMatching(), engine=engine)
    alone, _, _ = one_update(GradientMatching(), engine=engine)  # what the warm-up is
    assert torch.equal(watched, alone)
    assert alone.abs().max() > 1e-6


@pytest.mark.parametrize(
    ("losses", "first", "last"),
    [
        ([WarmUpGradientMatching(2, 10)], 20, 999),
        ([ContrastiveGradientMatching(2, 10)], 0, 19),
        ([WarmUpGradientMatching(3, 10), ContrastiveGradientMatching(4, 10)], 30, 39),
    ],
    ids=["warm-up alone", "contrastive alone", "other networks"],
)
def test_a_network_on_which_nothing_is_matched_is_refused(losses, first, last):
    loop = TrainOnSynthetic(updates=10)
    with pytest.raises(
        SettingsError, match=rf"in updates {first} to {last} \(from network {first // 10}, its update 0"
    ):
        check_schedule(losses, loop, 10, 1000)
    check_schedule(losses, loop, 10, first)  # a run that ends before it


@pytest.mark.parametrize(
    ("losses", "first", "last"),
    [
        ([WarmUpGradientMatching(9, 3), ContrastiveGradientMatching(9, 5)], 3, 4),
        ([Growing()], 0, 0),
    ],
    ids=["other matches", "a loss that grows from 0"],
)
def test_a_shorter_time_is_warned_of(losses, first, last):
    with pytest.warns(UserWarning, match=rf"in updates {first} to {last} "):
        check_schedule(losses, TrainOnSynthetic(updates=10), 10, 80)


def test_such_a_run_does_not_start():
    with pytest.raises(SettingsError, match="ContrastiveGradientMatching is switched off there"):
        one_update(ContrastiveGradientMatching())


@pytest.mark.parametrize(
    "losses",
    [
        [WarmUpGradientMatching(), ContrastiveGradientMatching()],
        [WarmUpGradientMatching(5, 9), ContrastiveGradientMatching(3, 5)],  # on together for a while
        [ContrastiveGradientMatching(), GradientMatching()],
    ],
    ids=["published", "overlapping", "beside one that is always on"],
)
def test_losses_that_are_never_all_off_may_run_without_end(losses):
    check_schedule(losses, TrainOnSynthetic(updates=10), 10, -1)


def test_without_a_warm_up_the_contrastive_loss_stands_alone():
    one_update(ContrastiveGradientMatching(warm_up_networks=0))


def test_a_contrastive_loss_without_weight_is_not_even_logged():
    _, _, module = one_update(ContrastiveGradientMatching(weight=0.0), WarmUpGradientMatching())
    assert math.isnan(float(module.trainer.callback_metrics["loss/ContrastiveGradientMatching"]))


def test_the_logged_total_is_the_loss_of_the_active_branch():
    lines, _ = run(networks=2, matches=2)
    names = ["loss/contrastive" if on else "loss/warm_up" for on in SWITCHED]
    updates = [line for line in lines if "loss/total" in line]
    assert [line["loss/total"] for line in updates] == pytest.approx(
        [line[name] for name, line in zip(names, updates, strict=True)], rel=1e-6
    )


def test_a_network_is_trained_without_momentum_by_default():
    assert (TrainOnSynthetic().momentum, TrainOnSynthetic().weight_decay, TrainOnSynthetic().lr) == (0.0, 0.0, 0.01)


@pytest.mark.parametrize("loss", [ContrastiveGradientMatching, WarmUpGradientMatching])
@pytest.mark.parametrize("settings", [{"warm_up_networks": -1}, {"warm_up_matches": -1}], ids=str)
def test_a_negative_warm_up_is_refused(loss, settings):
    with pytest.raises(SettingsError, match="warm-up"):
        loss(**settings)


def test_without_a_warm_up_it_is_on_from_the_start():
    assert ContrastiveGradientMatching(0, 0).weight_at(Progress(0, 0, 0)) == 1.0
    assert ContrastiveGradientMatching(5, 0).weight_at(Progress(0, 0, 0)) == 1.0
    assert ContrastiveGradientMatching(0, 5).weight_at(Progress(0, 0, 0)) == 1.0
    assert WarmUpGradientMatching(0, 0).weight_at(Progress(0, 0, 0)) == 0.0


class Naming(TrainOnSynthetic):
    def networks(self, update, updates_per_network):
        return [update % 2]


class Counting(TrainOnSynthetic):
    def numbers(self, inner, context, progress):
        return {"accuracy": 0.5}


@pytest.mark.parametrize("loop", [Naming, Counting])
def test_what_only_the_run_can_say_is_not_refused_before_it(loop):
    check_schedule([ContrastiveGradientMatching()], loop(updates=10), 10, 1000)
