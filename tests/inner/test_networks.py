"""An inner loop names its networks by slot: several are matched on, swapped in and out, and outlive a break."""

from __future__ import annotations

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.inner import FreshNetwork, InnerNetwork, TrainOnSynthetic
from lit_condense.inner.contract import slots_of
from lit_condense.inner.networks import InnerNetworks
from lit_condense.matching import Progress
from lit_condense.rng import RandomKey
from lit_condense.synthetic.inner_training import with_births
from tests.helpers import TinyData, fitted, resumed, tiny_convnet
from tests.inner.several import ByAccuracy, TwoOfThree


def networks():
    loop = TwoOfThree()
    inner = InnerNetwork(tiny_convnet(), TinyData().real, RandomKey(1), loop.optimizer, torch.zeros(()))
    return InnerNetworks(inner), inner


def weights(inner):
    return torch.cat([p.detach().flatten().clone() for p in inner.network.parameters()])


def trained(inner):
    for parameter in inner.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    inner.optimizer.step()
    return weights(inner)


def test_networks_take_turns_in_one_module_with_optimizers_of_their_own():
    held, inner = networks()
    module = inner.network
    held.bring_in(0, update=4)
    first = trained(inner)
    held.bring_in(1, update=5)
    second = weights(inner)
    assert not torch.equal(first, second)
    held.use(0)
    assert inner.network is module
    assert torch.equal(weights(inner), first)
    again = trained(inner)  # its momentum has outlived the turn of the other
    torch.testing.assert_close(again - first, -0.05 * torch.full_like(first, 1.9))
    held.use(1)
    assert torch.equal(weights(inner), second)
    assert [held.age(slot, 7) for slot in (0, 1)] == [3, 2]
    held.keep([1])
    assert [slot in held for slot in (0, 1)] == [False, True]
    assert held.state_dict()["resting"] == {}


def test_one_network_at_a_time_is_never_copied():
    held, _ = networks()
    for slot in range(3):
        held.keep([slot])
        held.bring_in(slot, slot)
        held.use(slot)
        assert held.state_dict()["resting"] == {}


def test_loops_name_one_network_at_a_time_unless_they_say_otherwise():
    found = [slots_of(TrainOnSynthetic(), update, 3) for update in range(4)]
    assert [slots.matched for slots in found] == [slots.alive for slots in found] == [[0], [0], [0], [1]]
    assert [slots.trained for slots in found] == [[0], [0], [], [1]]
    assert slots_of(FreshNetwork(), 5, 1).trained == []


def test_an_update_is_the_sum_over_its_networks():
    module = fitted(ByAccuracy(), inner=TwoOfThree(), max_steps=1)
    matcher, both = module._matcher, [Progress(0, 0, 0), Progress(0, 1, 0)]
    total, apart = matcher(both), [matcher.on(one) for one in both]
    torch.testing.assert_close(total.gradients["images"], sum(one.gradients["images"] for one in apart))
    torch.testing.assert_close(total.losses["ByAccuracy"], sum(one.losses["ByAccuracy"] for one in apart))
    assert not torch.equal(apart[0].gradients["images"], apart[1].gradients["images"])


def test_a_weight_reads_plain_numbers_about_each_network():
    loss = ByAccuracy()
    module = fitted(loss, inner=TwoOfThree(), max_steps=3)
    asked = [numbers for numbers in loss.asked if numbers]
    assert all(set(numbers) == {"accuracy", "steps"} for numbers in asked)
    assert len({numbers["accuracy"] for numbers in asked}) > 1
    last = [
        Progress(2, slot, 0, numbers) for slot, numbers in zip(module.inner.networks(2, 2), asked[-2:], strict=True)
    ]
    assert module.trainer.callback_metrics["loss/total"] >= module.trainer.callback_metrics["loss/ByAccuracy"]
    assert all(loss.weight_at(one) == 1 + one.numbers["accuracy"] for one in last)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_broken_run_goes_on_with_all_its_networks(tmp_path, stop):
    straight, on = resumed(tmp_path, stop, 6, ByAccuracy, inner=TwoOfThree)
    one, other = straight._training.state_dict(), on._training.state_dict()
    assert one["born"] == other["born"]
    assert one["loop"] == other["loop"] != {"steps": 0}
    assert one["resting"].keys() == other["resting"].keys()
    for slot, resting in one["resting"].items():
        for name, value in resting["network"].items():
            assert torch.equal(value, other["resting"][slot]["network"][name]), (slot, name)


def test_a_checkpoint_of_one_network_that_does_not_say_when_it_began():
    state = with_births({"index": 3, "network": {}, "optimizer": {}}, updates_per_network=5)
    assert (state["born"], state["resting"], state["loop"]) == ({3: 15}, {}, {})


@pytest.mark.parametrize(
    ("method", "found", "words"),
    [
        ("networks", [], "one or more networks"),
        ("networks", [7], "networks that are alive"),
        ("networks", (0,), "a list of different whole numbers"),
        ("alive", [0, 0], "a list of different whole numbers"),
        ("alive", [-1], "a list of different whole numbers"),
        ("trained_after", [9], "networks that are alive"),
    ],
)
def test_slots_that_cannot_be_are_refused_before_the_run(method, found, words):
    loop = TwoOfThree()
    setattr(loop, method, lambda update, updates_per_network: found)
    with pytest.raises(SettingsError, match=rf"TwoOfThree\.{method} .*{words}"):
        fitted(inner=loop)


def test_numbers_that_are_none_are_refused():
    class Wrong(TwoOfThree):
        def numbers(self, inner, context, progress):
            return {"accuracy": torch.ones(())}

    with pytest.raises(SettingsError, match=r"Wrong\.numbers .*finite numbers"):
        fitted(inner=Wrong())
