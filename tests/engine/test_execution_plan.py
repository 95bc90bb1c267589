"""The table that says what is computed how."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from lit_condense.engine import Engine
from lit_condense.engine.execution_plan import MOST_CLASSES, Workload, plan_for
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward, images_are_independent, per_image
from lit_condense.networks import ConvNet, build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet

CIFAR = Workload("cpu", 256, 10, gflop=0.1, largest_map=128 * 32 * 32, pixels=3 * 32 * 32, independent=True)
DIGITS = Workload("cpu", 128, 1, gflop=0.00033, largest_map=32 * 8 * 8, pixels=64, independent=True)


def changed(work, **fields):
    return Workload(**{**vars(work), **fields})


def convnet(width=128, norm="instance"):
    return build_network(partial(ConvNet, width=width, norm=norm), 3, (32, 32), 10, RandomKey(0))


def test_heavy_runs_compile_and_take_bfloat16_in_the_fast_mode_only():
    fast, exact = plan_for(CIFAR, "fast", "auto"), plan_for(CIFAR, "exact", "auto")
    assert (fast.mode, fast.compiled) == ("fast", True)
    assert (exact.mode, exact.compiled) == ("exact", True)


def test_light_runs_stay_eager_in_float32_class_by_class():
    plan = plan_for(DIGITS, "fast", "auto")
    assert (plan.mode, plan.compiled, plan.compiled_twice) == ("exact", False, False)
    assert plan.classes_per_block == 1


def test_what_is_asked_for_goes_before_the_table():
    assert plan_for(DIGITS, "fast", "always").mode == "fast"
    assert not plan_for(CIFAR, "fast", "never").compiled
    assert plan_for(CIFAR, "fast", "never").mode == "exact"
    assert plan_for(DIGITS, "fast", "auto", classes_per_block=3).classes_per_block == 3
    assert plan_for(CIFAR, "fast", "auto", real_chunk=100).real_chunk == 100


def test_a_gpu_replays_what_does_not_draw_and_gathers_many_classes():
    on_gpu = changed(CIFAR, device="cuda")
    assert not plan_for(CIFAR, "fast", "auto").recorded
    for compile in ("auto", "never"):
        assert plan_for(on_gpu, "fast", compile).recorded
        assert not plan_for(on_gpu, "fast", compile, record=False).recorded
        assert not plan_for(changed(on_gpu, independent=False), "fast", compile).recorded
    assert plan_for(on_gpu, "fast", "auto").classes_per_block == MOST_CLASSES
    # 266 images of 224 x 224 pixels are 153 MiB: no two classes in 256 MiB
    assert plan_for(changed(on_gpu, pixels=3 * 224 * 224), "fast", "auto").classes_per_block == 1


def test_exact_runs_do_without_tf32_and_leave_the_setting_as_it_was():
    allowed = torch.backends.cudnn.allow_tf32
    for mode, seen in (("exact", False), ("fast", allowed)):
        engine = Engine(mode, "always").start(convnet(width=4), torch.zeros(8, 3, 32, 32))
        with engine.precision():
            assert torch.backends.cudnn.allow_tf32 == seen
        assert torch.backends.cudnn.allow_tf32 == allowed


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_device_that_was_never_measured_gets_the_plain_plan(device):
    plan = plan_for(changed(CIFAR, device=device), "fast", "auto")
    assert (plan.compiled, plan.classes_per_block, plan.real_chunk) == (False, 1, None)


def test_double_backward_is_compiled_where_this_torch_can(monkeypatch):
    monkeypatch.setattr("lit_condense.engine.execution_plan.DOUBLE_BACKWARD_COMPILES", True)
    assert plan_for(CIFAR, "fast", "auto").compiled_twice
    monkeypatch.setattr("lit_condense.engine.execution_plan.DOUBLE_BACKWARD_COMPILES", False)
    older = plan_for(CIFAR, "fast", "auto")
    assert older.compiled
    assert not older.compiled_twice


@pytest.mark.parametrize(
    ("images", "mode", "largest_map", "chunk"),
    [
        (256, "fast", 128 * 32 * 32, 64),  # 16 MiB of bfloat16
        (256, "exact", 128 * 32 * 32, 32),
        (256, "exact", 32 * 32 * 32, 64),  # more gains nothing
        (100, "exact", 32 * 32 * 32, 50),  # equal chunks, or the last one would need a region of its own
        (256, "exact", 128 * 64 * 64, 16),  # fewer would leave cores idle
        (97, "fast", 128 * 32 * 32, 64),  # a prime number: 33 are left over
        (15, "fast", 128 * 32 * 32, None),
        (64, "fast", 128 * 32 * 32, 64),
    ],
)
def test_real_images_go_in_chunks_whose_maps_fit_the_cache(images, mode, largest_map, chunk):
    work = changed(CIFAR, real_images=images, largest_map=largest_map)
    assert plan_for(work, mode, "auto").real_chunk == chunk


def test_batches_whose_images_depend_on_one_another_are_not_cut():
    assert plan_for(changed(CIFAR, independent=False), "fast", "auto").real_chunk is None
    image = torch.zeros(3, 32, 32)
    assert images_are_independent(convnet(), image)
    assert not images_are_independent(convnet(norm="batch"), image)
    assert not images_are_independent(nn.Sequential(convnet(), nn.Dropout(0.1)), image)


class Centred(nn.Module):
    """Uses the batch, under no name that says so, and counts what it sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += len(x)
        return x - x.mean(0)


def test_a_trial_finds_layers_that_use_the_batch_and_leaves_them_as_they_were():
    network = nn.Sequential(Centred(), convnet())
    state = torch.get_rng_state()
    assert not images_are_independent(network, torch.zeros(3, 32, 32))
    assert network[0].seen == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_the_arithmetic_of_the_published_network_is_the_known_one():
    # 3.54 + 37.75 + 9.44 + 0.02 million multiply-adds
    gflop, largest_map = per_image(convnet(), torch.zeros(3, 3, 32, 32))
    assert gflop == pytest.approx(0.1015, rel=1e-3)
    assert largest_map == 128 * 32 * 32


def test_looking_at_a_network_leaves_it_as_it_was():
    network = convnet(norm="batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    per_image(network, torch.randn(2, 3, 32, 32))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_plan_is_said_in_words():
    batch = torch.zeros(256, 3, 32, 32)
    exact = Engine("exact").start(convnet(), batch)
    assert exact.description == "real side and training: float32, compiled; synthetic side: float32, compiled"
    light = Engine().start(convnet(width=4), batch[:8])
    eager = "real side and training: float32, eager; synthetic side: float32, eager, class by class"
    assert light.description == eager
    one_by_one = Engine(compile="never", classes_per_block=1).start(convnet(), batch)
    assert (
        one_by_one.description
        == "real side and training: float32, eager; synthetic side: float32, eager, class by class"
    )


def test_training_batches_go_in_the_same_chunks_unless_images_depend_on_each_other():
    plan = plan_for(CIFAR, "fast", "auto")
    assert plan.training_chunk == plan.real_chunk is not None
    dependent = plan_for(changed(CIFAR, independent=False), "fast", "auto", real_chunk=32)
    assert (dependent.real_chunk, dependent.training_chunk) == (32, None)


@pytest.mark.parametrize(("images", "chunks"), [(12, 3), (8, 2), (4, 1), (10, 1), (3, 1)])
def test_a_step_in_chunks_is_that_of_the_batch(images, chunks):
    network = build_network(tiny_convnet(), 1, (8, 8), 5, RandomKey(0)).double()
    seen = []
    network.register_forward_hook(lambda layer, given, output: seen.append(len(output)))
    batch = torch.randn(images, 1, 8, 8, dtype=torch.float64), torch.arange(images) % 5
    whole, cut = (FirstOrderLoss(Forward(network, "exact"), False, chunk=chunk) for chunk in (None, 4))
    logits, gradients = whole.for_a_step(*batch)
    seen.clear()
    found = cut.for_a_step(*batch)
    assert len(seen) == chunks
    torch.testing.assert_close(found[0], logits)
    for one, other in zip(found[1], gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
