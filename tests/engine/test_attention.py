"""Networks with attention: their gradients are differentiated again, under every execution plan of a CPU."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_condense.engine import Block, Engine
from lit_condense.errors import SettingsError
from lit_condense.evaluation import several
from lit_condense.evaluation.stacked import can_be_stacked
from lit_condense.functional.gradients import class_gradients
from lit_condense.inner import FreshNetwork
from lit_condense.matching import ClassMeanGradientMatching, FeatureMatching, GradientMatching, Progress
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, fitted
from tests.oracles import dc
from tests.oracles.attention import Transformer, Written

KINDS = ("function", "attention", "layer")
DATA = TinyData((6, 6, 6))
IMAGES = torch.randn(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LABELS = torch.arange(3)


def network_of(kind):
    return build_network(partial(Transformer, kind=kind), 1, (8, 8), 3, RandomKey(7))


def computed(network, dtype, classes_per_block, compile="never"):
    """The image gradient of three classes, and the loss."""
    real = DATA.real.at(torch.stack([DATA.real.indices_of(c) for c in range(3)])).to(dtype)
    engine = Engine("exact", compile, classes_per_block=classes_per_block).start(
        network, real[0], frozenset({"gradients"}), 2
    )
    gradients, total = [], 0.0
    for classes in torch.split(LABELS, classes_per_block):
        stored = IMAGES[classes].to(dtype).flatten(0, 1).requires_grad_()
        shape = (len(classes), 2, 1, 8, 8)
        block = Block(
            real[classes],
            classes[:, None].expand(-1, 6),
            stored,
            lambda x, s=shape: x.view(s),
            classes[:, None].expand(-1, 2),
        )
        found = engine.run(block, [GradientMatching()], Progress(0, 0, 0))
        gradients.append(found.gradient)
        total += float(found.losses["GradientMatching"])
    return torch.cat(gradients), total, engine


def oracle(network):
    real = DATA.real.at(torch.stack([DATA.real.indices_of(c) for c in range(3)])).double()
    written = Written(copy.deepcopy(network).double())
    stored = IMAGES.flatten(0, 1).clone().requires_grad_()
    names = [name for name, _ in network.named_parameters()]
    assert [name.removeprefix("own.") for name, _ in written.named_parameters()] == names
    losses = dc.class_losses(written, list(stored.view(3, 2, 1, 8, 8)), list(real), dc.row_cosine)
    total = dc.sum_of(losses)
    return torch.autograd.grad(total, stored)[0], float(total.detach())


@pytest.mark.parametrize("per_block", [1, 3], ids=["one by one", "together"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_image_gradient_is_that_of_attention_written_out(kind, per_block):
    network = network_of(kind).double()
    wanted, value = oracle(network)
    found, total, _ = computed(network, torch.float64, per_block)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    assert total == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_it_is_near_float64(kind):
    network = network_of(kind)
    wanted, _ = oracle(network)
    found, _, _ = computed(network, torch.float32, 1)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_plan_has_both_derivatives_too(kind):
    torch.compiler.reset()
    network = network_of(kind)
    wanted, _ = oracle(network)
    found, _, engine = computed(network, torch.float32, 1, "always")
    assert engine.image_gradient.compiled
    assert engine.first_order.compiled
    assert float((found - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_class_gradients_can_be_differentiated(kind):
    network, images = network_of(kind).double(), IMAGES.clone().requires_grad_()
    gradients = class_gradients(network, images, LABELS[:, None].expand(3, 2), create_graph=True)
    total = torch.stack([g.square().sum() for g in gradients.values()]).sum()
    written, leaf = Written(copy.deepcopy(network)), IMAGES.clone().requires_grad_()
    wanted = dc.sum_of(
        g.square().sum() for c in range(3) for g in dc.network_gradient(written, leaf[c], c, create_graph=True)
    )
    torch.testing.assert_close(
        torch.autograd.grad(total, images)[0], torch.autograd.grad(wanted, leaf)[0], rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "losses",
    [[GradientMatching()], [GradientMatching(name="a"), ClassMeanGradientMatching(name="b")], [FeatureMatching()]],
    ids=["gradients", "means", "features"],
)
def test_a_run_with_attention_learns(kind, losses):
    inner = {"inner": FreshNetwork()} if isinstance(losses[0], FeatureMatching) else {}
    module = fitted(*losses, network=partial(Transformer, kind=kind), **inner)
    assert module.images.isfinite().all()
    assert module.trainer.global_step == 4


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_networks_with_attention_are_stacked_without_a_slow_way(kind, recwarn):
    networks = [network_of(kind), build_network(partial(Transformer, kind=kind), 1, (8, 8), 3, RandomKey(8))]
    assert can_be_stacked(networks, IMAGES[0].float())
    assert not [w for w in recwarn if "batching rule" in str(w.message)]
    assert several.strategy_for("cpu", 1e-6, 10, 10, 2) == "stacked"


class Once(torch.autograd.Function):
    """A square that can be differentiated once only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class Squaring(nn.Module):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.first = nn.Linear(in_channels * image_size[0] * image_size[1], 6)
        self.last = nn.Linear(6, num_classes)

    def forward(self, images):
        return self.last(Once.apply(self.first(images.flatten(1))))


class Fused(nn.Module):
    """Calls a kernel that has no second derivative by its name, so that no other can take its place."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.patches = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.last = nn.Linear(4, num_classes)

    def forward(self, images):
        maps = self.patches(images)
        rows = maps.mean(3).transpose(1, 2).unsqueeze(1).contiguous()
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, rows, rows)[0]
        return self.last(fused.squeeze(1).mean(1))


@pytest.mark.parametrize("network", [Squaring, Fused])
def test_a_missing_second_derivative_is_named_before_the_run(network):
    with pytest.raises(SettingsError, match=rf"{network.__name__} has no second derivative.*FeatureMatching"):
        fitted(GradientMatching(), network=network)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("network", [Squaring, Fused])
def test_matching_features_needs_the_first_derivative_alone(network):
    slow = partial(torch.optim.SGD, lr=1e-3)
    module = fitted(FeatureMatching(), network=network, inner=FreshNetwork(), optimizer=slow)
    assert module.trainer.global_step == 4


def test_a_network_that_is_cut_off_from_the_images_is_named():
    with pytest.raises(SettingsError, match="Detached cuts the way from what is matched back to the images"):
        fitted(GradientMatching(), network=Detached)


class Detached(Squaring):
    def forward(self, images):
        return self.last(F.relu(self.first(images.detach().flatten(1))))
