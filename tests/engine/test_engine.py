from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from lit_condense.engine import Block, Engine
from lit_condense.errors import SettingsError
from lit_condense.functional import distances
from lit_condense.matching import GradientMatching, Progress
from lit_condense.matching.gradient import DISTANCES
from lit_condense.networks import build_network
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey
from tests.helpers import DistanceLoss, tiny_convnet
from tests.methods.helpers import matched
from tests.oracles import dc as oracle

NORMS = ("instance", "batch", "layer", "group", "none")
REAL_COUNTS = (6, 6, 6, 4, 6)
"""Class 3 is smaller than the real batch of 6."""
IPC = (2, 2, 3, 2, 2)
LABELS = torch.repeat_interleave(torch.arange(5), torch.tensor(IPC))
NOW = Progress(7, 1, 2)
PRECISION = {"rtol": 1e-10, "atol": 1e-14}


def images_of(count, seed):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL = [images_of(count, 10 + c) for c, count in enumerate(REAL_COUNTS)]
STORED = images_of(len(LABELS), 1)


@functools.cache
def network_of(norm):
    """A network with values nowhere at their start."""
    network = build_network(tiny_convnet(norm), 2, (8, 8), 5, RandomKey(2)).double()
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    oracle.freeze_batch_norm(network, torch.cat(REAL), keep=0.5)
    return network


def frozen(network):
    """Let batch norm use its running statistics, as it does while matching."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return network


@functools.cache
def literal(norm, *names, weights=None, space="normalized"):
    terms = [(w, oracle.DISTANCES[name]) for w, name in zip(weights or [1.0] * len(names), names, strict=True)]
    return oracle.image_gradient(frozen(network_of(norm)), STORED, LABELS, REAL, terms, view_of(space))


def view_of(space):
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ([0.4, 0.6], [0.3, 0.2]))
    return (lambda images: images) if space == "normalized" else (lambda images: (images - mean) / std)


def update(network, losses, per_block, storage=None, progress=NOW, engine=None):
    return matched(frozen(network), losses, per_block, IPC, REAL_COUNTS, storage, progress=progress, engine=engine)


@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", oracle.DISTANCES)
def test_losses_and_image_gradient_are_the_literal_ones(name, norm, per_block):
    loss = DistanceLoss(getattr(distances, name), name=name)
    values, gradient = update(network_of(norm), [loss], per_block)
    wanted_values, wanted_gradient = literal(norm, name)
    assert values[name] == pytest.approx(wanted_values[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)
    assert wanted_gradient.abs().max() > 1e-6


@pytest.mark.parametrize("name", DISTANCES)
def test_gradient_matching_is_the_distance_it_names(name):
    values, gradient = update(network_of("instance"), [GradientMatching(name)], 2)
    wanted_values, wanted_gradient = literal("instance", name)
    assert values["GradientMatching"] == pytest.approx(wanted_values[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("per_block", [1, 5])
def test_two_losses_add_with_their_weights_in_either_order(per_block, turned):
    losses = [GradientMatching("row_cosine", weight=2.0, name="angle"), GradientMatching("l1", weight=0.5, name="size")]
    values, gradient = update(network_of("instance"), losses[::-1] if turned else losses, per_block)
    wanted_values, wanted_gradient = literal("instance", "row_cosine", "l1", weights=(2.0, 0.5))
    # values are reported without their weights
    assert values == {
        name: pytest.approx(v, rel=1e-10) for name, v in zip(("angle", "size"), wanted_values, strict=True)
    }
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


def test_the_weight_is_asked_at_the_progress_of_the_update():
    loss = DistanceLoss(distances.row_cosine, weights=lambda progress: 1.0 + progress.match_index)
    _, gradient = update(network_of("instance"), [loss], 1, progress=Progress(12, 3, 2))
    torch.testing.assert_close(gradient, 3 * literal("instance", "row_cosine")[1], **PRECISION)
    assert set(loss.asked) == {(12, 3, 2)}


@pytest.mark.parametrize("per_block", [1, 3])
def test_images_stored_in_pixel_space_are_differentiated_through_their_normalisation(per_block):
    values, gradient = update(network_of("layer"), [GradientMatching()], per_block, Pixels(space="pixel"))
    wanted_values, wanted_gradient = literal("layer", "row_cosine", space="pixel")
    assert values["GradientMatching"] == pytest.approx(wanted_values[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("chunk", [1, 4, 5, 6, 100])
def test_chunks_of_the_real_images_do_not_change_the_gradient(chunk, norm):
    engine = Engine("exact", "never", classes_per_block=3, real_chunk=chunk)
    values, gradient = update(network_of(norm), [GradientMatching()], 3, engine=engine)
    wanted_values, wanted_gradient = literal(norm, "row_cosine")
    assert values["GradientMatching"] == pytest.approx(wanted_values[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


def test_chunks_keep_features_logits_and_labels_in_order():
    network = network_of("instance")
    block = Block(torch.stack(REAL[:2]), torch.tensor([[0], [1]]).expand(2, 6), STORED, lambda s: s, torch.zeros(2, 1))
    needs = frozenset({"gradients", "features", "logits"})
    sides = [
        Engine("exact", compile="never", real_chunk=chunk).start(network, REAL[0], needs).real_side(block, needs)
        for chunk in (None, 4)
    ]
    assert torch.equal(sides[0].labels, sides[1].labels)
    for whole, cut in zip(sides[0].tensors(), sides[1].tensors(), strict=True):
        torch.testing.assert_close(cut, whole, **PRECISION)


@pytest.mark.parametrize("chunk", [None, 1, 4, 12, 100])
def test_chunks_keep_the_features_of_all_images_in_order(chunk):
    network, images = network_of("instance"), torch.cat(REAL[:2])
    needs = frozenset({"gradients", "features"})
    running = Engine("exact", compile="never", real_chunk=chunk).start(network, REAL[0], needs)
    torch.testing.assert_close(running.features(images), network.features(images).detach(), **PRECISION)


def test_a_chunk_of_no_images_is_refused():
    with pytest.raises(SettingsError, match="real_chunk to be 1 or more, got 0"):
        Engine(real_chunk=0)


def test_fast_without_compiling_is_the_same_arithmetic():
    # bfloat16 is only used where it pays, and never on float64
    _, exact = update(network_of("instance"), [GradientMatching()], 1)
    _, fast = update(
        network_of("instance"), [GradientMatching()], 1, engine=Engine("fast", "never", classes_per_block=1)
    )
    assert torch.equal(exact, fast)


def test_the_network_is_left_as_it_was():
    network = network_of("batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    update(network, [GradientMatching()], 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_starting_gives_every_part_of_the_network_its_own_mode_back():
    network = build_network(tiny_convnet("batch"), 2, (8, 8), 5, RandomKey(2)).double()
    frozen(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Engine("exact", compile="never").start(network, REAL[0])
    assert [m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d)] == [False, False]
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_frozen_layers_of_the_network_do_not_take_part():
    network = build_network(tiny_convnet(), 2, (8, 8), 5, RandomKey(2)).double()
    network.classifier.requires_grad_(False)
    _, gradient = update(network, [GradientMatching()], 1)
    learned = [i for i, (name, _) in enumerate(network.named_parameters()) if "classifier" not in name]

    def distance(real, synthetic):
        return oracle.row_cosine([real[i] for i in learned], [synthetic[i] for i in learned])

    network.requires_grad_(True)
    _, wanted = oracle.image_gradient(network, STORED, LABELS, REAL, [(1.0, distance)])
    torch.testing.assert_close(gradient, wanted, **PRECISION)


class Idle(nn.Module):
    """A network that holds a parameter it never uses."""

    def __init__(self):
        super().__init__()
        self.used = network_of("instance")
        self.idle = nn.Parameter(torch.ones(3, 3, dtype=torch.float64))

    def forward(self, images):
        return self.used(images)


@pytest.mark.parametrize("name", ["l1", "row_cosine"])
def test_an_unused_parameter_has_gradient_zero_and_changes_nothing(name):
    values, gradient = update(Idle(), [GradientMatching(name)], 2)
    wanted_values, wanted_gradient = literal("instance", name)
    # row_cosine counts 1 - cos = 1 for each of the 3 rows of each of the 5 classes, a constant
    extra = 15 if name == "row_cosine" else 0
    assert values["GradientMatching"] == pytest.approx(wanted_values[0] + extra, rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


@pytest.mark.parametrize(("norm", "passes"), [("instance", [4, 4, 4]), ("batch", [12])])
def test_training_batches_go_in_chunks_too_unless_images_depend_on_each_other(norm, passes):
    network = build_network(tiny_convnet(norm), 1, (8, 8), 5, RandomKey(0)).double()
    batch = torch.randn(12, 1, 8, 8, dtype=torch.float64)
    running = Engine("exact", "never", real_chunk=4).start(network, batch)
    seen = []
    network.register_forward_hook(lambda layer, given, output: seen.append(len(output)))
    running.first_order.for_a_step(batch, torch.arange(12) % 5)
    assert seen == passes
