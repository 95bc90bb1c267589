"""Training through a student: both gradients against the definitions, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_condense.engine.execution_plan import StudentPlan, student_plan
from lit_condense.engine.unrolling import Unroller
from lit_condense.matching import Student
from lit_condense.matching.trajectory import normalised_distance, squared_distance
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet
from tests.oracles import trajectory as oracle

KEY = RandomKey(0, ("students",))
CLASSES, IMAGES = 3, 5


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(seed=0, norm="instance"):
    return build_network(tiny_convnet(norm), 1, (8, 8), CLASSES, RandomKey(seed)).double()


def weights_of(one, seed=None, size=0.05):
    """Weights, moved a little where a seed says how."""
    return {
        name: p.detach().clone() + (0 if seed is None else size * noise(*p.shape, seed=seed + i))
        for i, (name, p) in enumerate(one.named_parameters())
    }


def task(steps, soft=False, **settings):
    """A student, what it is trained with, and the same for the oracle."""
    net = network()
    start, target = weights_of(net), weights_of(net, seed=10)
    images = noise(IMAGES, 1, 8, 8, seed=1)
    targets = noise(IMAGES, CLASSES, seed=2).softmax(1) if soft else torch.arange(IMAGES) % CLASSES
    batches = [torch.randperm(IMAGES, generator=torch.Generator().manual_seed(i))[: 2 + i % 2] for i in range(steps)]

    def value(weights):
        return normalised_distance(weights, target, squared_distance(start, target))

    def augmented(x, step):
        return x * (1 + 0.1 * step) + x.square() * 0.05

    student = Student(start, batches, augmented, value, KEY, **settings)
    return net, student, images, targets, target


def expected(which, net, student, images, targets, target, step_size):
    images, leaves = images.clone().requires_grad_(), []
    leaves.append(images)
    if targets.is_floating_point():
        targets = targets.clone().requires_grad_()
        leaves.append(targets)
    batches = [(student.augmented(images[chosen], i), targets[chosen]) for i, chosen in enumerate(student.batches)]

    def forward(weights, x):
        return torch.func.functional_call(net, weights, (x,))

    return which(forward, student.start, target, batches, step_size, leaves)


WAYS = {
    "a graph of all steps": ({"unroll": "full", "checkpointing": False}, oracle.full),
    "step by step": ({"unroll": "full", "checkpointing": True}, oracle.full),
    "constant memory": ({"unroll": "constant_memory"}, oracle.constant_memory),
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_the_definition(way, steps, soft):
    settings, definition = WAYS[way]
    net, student, images, targets, target = task(steps, soft, **settings)
    step_size = torch.tensor(0.3, dtype=torch.float64)
    found = Unroller(net)(student, images, targets, step_size)
    value, gradients, in_step_size = expected(definition, net, student, images, targets, target, 0.3)
    assert float(found.value) == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(found.images, gradients[0], rtol=1e-8, atol=1e-12)
    if soft:
        torch.testing.assert_close(found.targets, gradients[1], rtol=1e-8, atol=1e-12)
    assert float(found.step_size) == pytest.approx(in_step_size, rel=1e-8)


def test_one_step_has_no_cross_term_and_two_have():
    for steps, equal in ((1, True), (2, False)):
        found = []
        for unroll in ("full", "constant_memory"):
            net, student, *others, _ = task(steps, unroll=unroll)
            found.append(Unroller(net)(student, *others, torch.tensor(0.3, dtype=torch.float64)).images)
        assert torch.allclose(*found, rtol=1e-10, atol=1e-14) == equal


def test_the_value_alone_is_that_of_the_training():
    for settings, _ in WAYS.values():
        net, student, images, targets, _ = task(3, **settings)
        step_size = torch.tensor(0.3, dtype=torch.float64)
        alone = Unroller(net)(student, images, targets, step_size, differentiated=False)
        torch.testing.assert_close(alone.value, Unroller(net)(student, images, targets, step_size).value)
        assert not bool(alone.images.any())


def test_the_network_is_left_as_it_was():
    net, student, images, targets, _ = task(2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    Unroller(net)(student, images, targets, torch.tensor(0.3, dtype=torch.float64))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class OneWeight(nn.Module):
    """Logits (0, w x): the sheet's one-parameter student."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x):
        return torch.stack([torch.zeros_like(x.flatten()), self.w * x.flatten()], dim=1)


FIXTURES = {  # steps: value, MTT in x, MTT in the step size, TESLA in x, TESLA in the step size
    1: (1.034116722681, (-0.029421185181, -0.300991140427), 0.086007124942, None, None),
    2: (
        *(1.061626541063, (-0.057739936729, -0.543742419428), 0.138337415927),
        *((-0.063908344172, -0.606847830692), 0.156369557948),
    ),
    3: (
        *(1.083671751970, (-0.084141563821, -0.737050090659), 0.165953161948),
        *((-0.102565248972, -0.915616427710), 0.213380969384),
    ),
}


@pytest.mark.parametrize("steps", FIXTURES)
def test_the_one_parameter_student(steps):
    value, in_x, in_step, tesla_x, tesla_step = FIXTURES[steps]
    images = torch.tensor([2.0, -1.0], dtype=torch.float64).view(2, 1, 1, 1)
    target = {"w": torch.tensor(1.5, dtype=torch.float64)}
    start = {"w": torch.tensor(0.5, dtype=torch.float64)}
    wanted = {"full": (in_x, in_step), "constant_memory": (tesla_x or in_x, tesla_step or in_step)}
    for unroll, checkpointing in (("full", False), ("full", True), ("constant_memory", None)):
        student = Student(
            start,
            [torch.arange(2)] * steps,
            lambda x, _: x,
            lambda w: normalised_distance(w, target, squared_distance(start, target)),
            KEY,
            unroll,
            checkpointing,
        )
        step_size = torch.tensor(0.4, dtype=torch.float64)
        found = Unroller(OneWeight())(student, images, torch.ones(2, dtype=torch.int64), step_size)
        assert float(found.value) == pytest.approx(value, abs=1e-11)
        assert found.images.flatten().tolist() == pytest.approx(wanted[unroll][0], abs=1e-11)
        assert float(found.step_size) == pytest.approx(wanted[unroll][1], abs=1e-11)


def test_layers_that_draw_do_so_alike_in_both_passes():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, CLASSES)).double()
    found = []
    for settings, _ in WAYS.values():
        if settings["unroll"] == "constant_memory":
            continue
        _, student, images, targets, _ = task(3)
        start = {name: p.detach() for name, p in net.named_parameters()}
        drawn = Student(
            start, student.batches, student.augmented, lambda w: w["2.weight"].square().sum(), KEY, **settings
        )
        found.append(Unroller(net)(drawn, images, targets, torch.tensor(0.3, dtype=torch.float64)).images)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-14)


def test_which_batches_are_compiled():
    assert student_plan("cpu", 0.1, [100], "fast", "auto") == StudentPlan("fast", frozenset({100}))
    assert student_plan("cpu", 0.001, [100], "fast", "auto") == StudentPlan()
    assert student_plan("cpu", 0.1, [100, 1], "exact", "auto") == StudentPlan("exact", frozenset({100}))
    assert student_plan("cpu", 0.001, [100], "exact", "always") == StudentPlan("exact", frozenset({100}))
    assert student_plan("cpu", 0.1, [100], "fast", "never") == StudentPlan()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("unroll", ["full", "constant_memory"])
def test_compiled_steps_give_the_same(mode, unroll):
    """float32 to its rounding; bfloat16 to a few per cent of the gradient's norm, like all that is matched in it."""
    net, student, images, targets, _ = task(4, soft=True, unroll=unroll)
    net, images, targets = net.float(), images.float(), targets.float()
    batches = [torch.arange(3)] * 4
    start = {name: w.float() for name, w in student.start.items()}
    moved = {name: w + 0.05 for name, w in start.items()}
    scale = squared_distance(start, moved)
    single = Student(start, batches, student.augmented, lambda w: normalised_distance(w, moved, scale), KEY, unroll)
    step_size = torch.tensor(0.3)
    eager = Unroller(net)(single, images, targets, step_size)
    compiled = Unroller(net, StudentPlan(mode, frozenset({3})))(single, images, targets, step_size)
    most = {"exact": 1e-4, "fast": 0.1}[mode]
    for name in ("images", "targets", "step_size", "value"):
        one, other = getattr(compiled, name), getattr(eager, name)
        assert float((one - other).norm() / other.norm()) < most, name
