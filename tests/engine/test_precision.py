"""What the engine's faster arithmetic costs in digits; compiling makes these slow."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lit_condense.engine import Block, Engine
from lit_condense.engine.compilation import DOUBLE_BACKWARD_COMPILES
from lit_condense.matching import (
    CurvatureMatching,
    FeatureMatching,
    GradientMatching,
    Progress,
)
from lit_condense.networks import ConvNet, build_network
from lit_condense.rng import RandomKey
from tests.helpers import TinyData

pytestmark = pytest.mark.slow

IMAGES, SYNTHETIC = 64, 4
LOSSES = {
    "dc": [GradientMatching()],
    "idc": [GradientMatching("squared_l2", layers="convolutions")],
    "egm": [GradientMatching("row_cosine_norm")],
    "dm": [FeatureMatching()],
    "lcmat": [GradientMatching(), CurvatureMatching(rho=1.0)],
}
NEEDS = frozenset({"gradients", "features", "logits"})


@functools.cache
def computed(mode, compile, dtype, losses="dc", activation="relu", norm="instance"):
    """Return real gradients by parameter, the image gradient and the losses of ConvNet-3, width 32, at 32x32."""
    store = TinyData((IMAGES,) * 3, channels=3, image_size=(32, 32)).real
    real = store.at(store.indices_of(1)).to(dtype)
    stored = torch.randn(SYNTHETIC, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    factory = functools.partial(ConvNet, width=32, activation=activation, norm=norm)
    network = build_network(factory, 3, (32, 32), 10, RandomKey(3)).to(dtype)
    labels = torch.full((1, IMAGES), 1)
    block = Block(real[None], labels, stored, lambda images: images[None], labels[:, :SYNTHETIC])
    engine = Engine(mode, compile).start(network, real, NEEDS, SYNTHETIC)
    vectors = {}
    if losses == "egm":  # the part of a class-mean loss that reaches one class
        vectors = {name: torch.full_like(p, 0.1) for name, p in network.named_parameters()}
    found = engine.real_side(block, NEEDS)
    result = engine.run(block, LOSSES[losses], Progress(0, 0, 0), found, vectors)
    asked = compile == "always"
    assert engine.first_order.compiled == asked
    assert engine.image_gradient.compiled == (asked and DOUBLE_BACKWARD_COMPILES)
    gradients = {name: gradient[0].double() for name, gradient in found.gradients.items()}
    return gradients, result.gradient.double(), {tag: float(value) for tag, value in result.losses.items()}


def literal(*case):
    return computed("exact", "never", torch.float64, *case)


def learnable(gradients):
    """Leave out the convolutions' biases, which an instance norm right after them makes irrelevant."""
    return [name for name, gradient in gradients.items() if gradient.norm() > 1e-10]


def cosine(a, b):
    return cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_bfloat16_real_gradients_point_where_the_exact_ones_do():
    # measured: 0.9996 and more in every layer; 0.9948 in the first layer on pure noise
    gradients = computed("fast", "always", torch.float32)[0]
    wanted = literal()[0]
    cosines = {name: cosine(gradients[name], wanted[name]) for name in learnable(wanted)}
    assert len(cosines) == 11
    assert min(cosines.values()) >= 0.995, cosines


@pytest.mark.parametrize("losses", LOSSES)
def test_bfloat16_image_gradients_point_where_the_exact_ones_do(losses):
    _, of_images, values = computed("fast", "always", torch.float32, losses)
    _, wanted, wanted_values = literal(losses)
    assert cosine(of_images, wanted) >= 0.97
    for tag, value in values.items():
        assert value == pytest.approx(wanted_values[tag], rel=0.05), tag


def test_bfloat16_is_really_used_in_the_fast_mode():
    gradients, of_images, _ = computed("fast", "always", torch.float32)
    wanted, wanted_of_images, _ = literal()
    assert max(relative(gradients[n], wanted[n]) for n in learnable(wanted)) > 1e-3
    assert relative(of_images, wanted_of_images) > 1e-3


@pytest.mark.parametrize("compile", ["always", "never"])
@pytest.mark.parametrize("losses", LOSSES)
def test_exact_float32_agrees_with_float64(losses, compile):
    """With ReLU, single activations within rounding of 0 decide: see the next test."""
    gradients, of_images, values = computed("exact", compile, torch.float32, losses)
    wanted, wanted_of_images, wanted_values = literal(losses)
    for name, gradient in wanted.items():
        scale = gradient.norm() if name in learnable(wanted) else 1.0
        assert (gradients[name] - gradient).norm() / scale < 2e-3, name
    assert relative(of_images, wanted_of_images) < 2e-3
    for tag, value in values.items():
        assert value == pytest.approx(wanted_values[tag], rel=1e-4), tag


@pytest.mark.parametrize("losses", LOSSES)
def test_compiling_loses_no_digits_where_no_activation_has_a_kink(losses):
    """Neither kernel of a compiled update is to blame for what ReLU loses: without a kink it is as exact as eager."""
    gradients, of_images, _ = computed("exact", "always", torch.float32, losses, "swish")
    wanted, wanted_of_images, _ = literal(losses, "swish")
    assert max(relative(gradients[name], wanted[name]) for name in learnable(wanted)) < 1e-5
    assert relative(of_images, wanted_of_images) < 2e-5


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
def test_every_norm_goes_through_a_compiled_region(norm):
    _, of_images, _ = computed("exact", "always", torch.float32, "dc", "swish", norm)
    assert relative(of_images, literal("dc", "swish", norm)[1]) < 1e-4


def test_two_runs_of_the_compiled_engine_give_the_same_bytes():
    first = computed("fast", "always", torch.float32)
    again = computed.__wrapped__("fast", "always", torch.float32)
    assert torch.equal(first[1], again[1])
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])
