from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_condense.errors import DataError, SettingsError
from lit_condense.functional import geometry
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from lit_condense.selection import (
    CAL,
    EL2N,
    DeepFool,
    Entropy,
    Forgetting,
    GraNd,
    LeastConfidence,
    Margin,
)
from lit_condense.selection.methods import uncertainty
from lit_condense.settings import settings_of
from tests.selection.test_geometric_selections import (
    KEY,
    assert_chooses_as_many_as_asked,
    assert_order_of_candidates_makes_no_difference,
    candidates_of,
    chosen_images,
    linear_network,
    literal_divergence,
    normal,
    real_images,
    with_duplicates,
)

METHODS = [
    LeastConfidence(),
    Entropy(),
    Margin(),
    GraNd(networks=2),
    EL2N(networks=2),
    Forgetting(),
    CAL(neighbours=3),
    DeepFool(chunk=4),
    *(cls(variant="deepcore") for cls in (LeastConfidence, Entropy, Margin, Forgetting, CAL)),
]


@pytest.fixture(params=METHODS, ids=lambda m: f"{type(m).__name__}-{getattr(m, 'variant', '')}")
def method(request):
    return request.param


def largest_first(scores):
    """Positions by score; of equals the first."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])


# ------------------------------------------------------------------ what every method promises


def test_exactly_as_many_different_candidates_as_asked_for(method):
    assert_chooses_as_many_as_asked(method, candidates_of(networks=2))


def test_the_order_of_the_candidates_makes_no_difference(method):
    assert_order_of_candidates_makes_no_difference(method, candidates_of(networks=2))
    assert_order_of_candidates_makes_no_difference(method, with_duplicates(candidates_of(networks=2)))


def test_nothing_is_drawn(method):
    found = [chosen_images(method, candidates_of(networks=2), 4, RandomKey(seed)) for seed in range(3)]
    assert found[0] == found[1] == found[2]


def test_the_choice_is_by_priority_and_of_equals_the_first_image(method):
    candidates = with_duplicates(candidates_of(networks=2))
    wanted = largest_first(method.priorities(candidates).tolist())
    assert chosen_images(method, candidates, 7) == wanted[:7]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "method", [m for m in METHODS if not isinstance(m, Forgetting | DeepFool)], ids=lambda m: type(m).__name__
)
def test_scores_that_are_not_finite_are_refused(method, bad):
    logits = normal(8, 3)
    logits[[2, 5], 1] = bad
    with pytest.raises(DataError, match=rf"^{type(method).__name__} needs finite .* 2 of 8 candidates .*learning rate"):
        method.choose(candidates_of(logits=logits, networks=2), 3, KEY)


# ------------------------------------------------------------------ uncertainty


LITERAL = {
    LeastConfidence: lambda p: 1 - max(p),
    Entropy: lambda p: -sum(x * math.log(x) for x in p),
    Margin: lambda p: sorted(p)[-2] - sorted(p)[-1],
}
PUBLISHED_CERTAINTY = {
    LeastConfidence: lambda f, p: max(f),
    Entropy: lambda f, p: sum(x * math.log(x + 1e-6) for x in p),
    Margin: lambda f, p: sorted(p)[-1] - sorted(p)[-2],
}


def literal_softmax(logits):
    return [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in logits.tolist()]


@pytest.mark.parametrize("cls", LITERAL)
def test_uncertainty_is_the_formula_and_the_most_uncertain_are_kept(cls, monkeypatch):
    monkeypatch.setattr(uncertainty, "ROWS", 5)  # 12 candidates: two full blocks and a smaller one
    logits = 3 * normal(12, 4)
    wanted = [LITERAL[cls](p) for p in literal_softmax(logits)]
    candidates = candidates_of(logits=logits)
    torch.testing.assert_close(cls().priorities(candidates).tolist(), wanted)
    assert chosen_images(cls(), candidates, 12) == largest_first(wanted)


@pytest.mark.parametrize("cls", LITERAL)
def test_confident_predictions_are_still_told_apart(cls):
    # in float32 all their probabilities are 1
    logits = torch.tensor([[x, 0.0, 0.0] for x in (30, 20, 28, 24, 22, 26)])
    assert chosen_images(cls(), candidates_of(logits=logits), 6) == [1, 4, 3, 5, 2, 0]


@pytest.mark.parametrize("cls", LITERAL)
def test_deepcores_uncertainty_keeps_the_least_certain_of_one_class_and_the_most_certain_of_several(cls):
    logits = 3 * normal(12, 4)
    certainty = [PUBLISHED_CERTAINTY[cls](f, p) for f, p in zip(logits.tolist(), literal_softmax(logits), strict=True)]
    one_class = candidates_of(logits=logits, labels=torch.full((12,), 2))
    assert (-cls("deepcore").priorities(one_class)).tolist() == pytest.approx(certainty, rel=1e-9)
    assert chosen_images(cls("deepcore"), one_class, 5) == largest_first([-c for c in certainty])[:5]
    assert chosen_images(cls("deepcore"), candidates_of(logits=logits), 5) == largest_first(certainty)[:5]


def test_a_large_logit_is_not_confidence():
    # the first is the more certain one, the second has the larger logit
    candidates = candidates_of(logits=torch.tensor([[4.0, 0, 0], [9, 8, 8]]), labels=torch.zeros(2, dtype=torch.int64))
    assert chosen_images(LeastConfidence(), candidates, 1) == [1]
    assert chosen_images(LeastConfidence("deepcore"), candidates, 1) == [0]


# ------------------------------------------------------------------ gradients and errors


def literal_gradient_norm(z, logits, label):
    """Autograd through a last layer that maps z to the logits."""
    weight = torch.outer(logits, z) / z.square().sum()
    layer = [weight.requires_grad_(), torch.zeros_like(logits).requires_grad_()]
    loss = F.cross_entropy(F.linear(z[None], *layer), label[None])
    return float(torch.cat([g.flatten() for g in torch.autograd.grad(loss, layer)]).norm())


def test_grand_is_the_mean_norm_of_last_layer_gradients():
    candidates = candidates_of(n=9, networks=3)
    wanted = [0.0] * 9
    for view in candidates.views:
        for i, label in enumerate(candidates.labels):
            wanted[i] += literal_gradient_norm(view.features[i].double(), view.logits[i].double(), label) / 3
    torch.testing.assert_close(GraNd(3).priorities(candidates).tolist(), wanted, rtol=1e-6, atol=0)
    assert chosen_images(GraNd(3), candidates, 9) == largest_first(wanted)


def test_el2n_is_the_mean_length_of_the_error():
    candidates = candidates_of(n=9, networks=3)
    wanted = [0.0] * 9
    for view in candidates.views:
        for i, p in enumerate(literal_softmax(view.logits)):
            error = [x - (k == int(candidates.labels[i])) for k, x in enumerate(p)]
            wanted[i] += math.sqrt(sum(e * e for e in error)) / 3
    torch.testing.assert_close(EL2N(3).priorities(candidates).tolist(), wanted)
    assert chosen_images(EL2N(3), candidates, 9) == largest_first(wanted)


@pytest.mark.parametrize("cls", [GraNd, EL2N])
def test_as_many_networks_as_set_are_averaged(cls):
    assert cls().networks == 10
    two = cls(2).priorities(candidates_of(networks=2))
    assert torch.equal(cls(2).priorities(candidates_of(networks=3)), two)
    assert not torch.allclose(cls(1).priorities(candidates_of(networks=2)), two)
    with pytest.raises(DataError, match=rf"^{cls.__name__} averages over 3 proxy models, but got 2"):
        cls(3).choose(candidates_of(networks=2), 1, KEY)


# ------------------------------------------------------------------ forgetting


def test_forgetting_keeps_the_most_forgotten_and_first_those_never_right():
    candidates = candidates_of(forgetting=torch.tensor([3, -1, 0, 7, -1, 3, 1]))
    assert Forgetting.tracks_forgetting
    assert chosen_images(Forgetting(), candidates, 7) == [1, 4, 3, 0, 5, 6, 2]
    assert chosen_images(Forgetting("deepcore"), candidates, 7) == [3, 0, 5, 6, 1, 2, 4]


def test_where_none_was_ever_right_all_count_the_same():
    candidates = candidates_of(forgetting=torch.full((4,), -1))
    for variant in ("definition", "deepcore"):
        assert Forgetting(variant).priorities(candidates).tolist() == [0] * 4


def test_forgetting_without_counts_is_refused():
    candidates = candidates_of()
    object.__setattr__(candidates, "forgetting", None)
    with pytest.raises(DataError, match="Forgetting needs the forgetting counts"):
        Forgetting().choose(candidates, 1, KEY)


# ------------------------------------------------------------------ CAL


def literal_cal(features, logits, neighbours):
    z, p = features.double(), literal_softmax(logits)
    scores = []
    for i in range(len(z)):
        others = sorted((j for j in range(len(z)) if j != i), key=lambda j: float((z[i] - z[j]).norm()))[:neighbours]
        scores.append(sum(literal_divergence(p[i], p[j]) for j in others) / len(others))
    return scores


@pytest.mark.parametrize("neighbours", [1, 4, 10, 30])
@pytest.mark.parametrize("block", [1, 40, 2**23])
def test_cal_is_the_mean_divergence_from_the_nearest_neighbours(neighbours, block, monkeypatch):
    monkeypatch.setattr(geometry, "BLOCK_ENTRIES", block)
    features, logits = 5 + normal(12, 3, seed=1), 2 * normal(12, 4, seed=2)
    candidates, wanted = candidates_of(features, logits), literal_cal(features, logits, neighbours)
    assert CAL(neighbours).priorities(candidates).tolist() == pytest.approx(wanted, rel=1e-4)
    assert chosen_images(CAL(neighbours), candidates, 12) == largest_first(wanted)
    assert chosen_images(CAL(neighbours, "deepcore"), candidates, 12) == largest_first([-s for s in wanted])


def test_a_duplicate_is_a_neighbour_and_the_image_itself_is_not():
    # pairs of equal features: each one's only neighbour is its twin
    features = torch.tensor([[0.0, 0], [5, 5], [0, 0], [5, 5]])
    logits = torch.tensor([[1.0, 0], [0, 0], [0, 0], [9, 0]])
    assert CAL().neighbours == 10
    assert chosen_images(CAL(1), candidates_of(features, logits), 4) == [1, 3, 0, 2]
    assert float(CAL(1).priorities(candidates_of(features, logits)).min()) > 0


def test_of_equally_near_neighbours_the_first_counts():
    features = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    logits = torch.tensor([[0.0, 0], [3, 0], [5, 0], [7, 0], [9, 0]])
    wanted = literal_divergence(*literal_softmax(logits[:2]))
    assert float(CAL(1).priorities(candidates_of(features, logits))[0]) == pytest.approx(wanted, rel=1e-5)


def test_cal_stays_finite_where_probabilities_round_to_zero():
    logits = torch.tensor([[500.0, 0, 0], [500, 0, 0], [0, 500, 0], [0, 0, 500]])
    candidates = candidates_of(torch.tensor([[0.0], [1], [2], [9]]), logits)
    assert CAL(1).priorities(candidates).tolist() == pytest.approx([0, 0, 500, 500])


# ------------------------------------------------------------------ DeepFool


@pytest.mark.parametrize("classes", [2, 3])
def test_deepfool_gives_the_squared_distance_to_the_nearest_boundary_of_a_linear_model(classes):
    network, real = linear_network(classes), real_images(classes)
    weight, bias = (p.detach().double() for p in network[1].parameters())
    wanted = []
    for x in real.at(torch.arange(12)).double().flatten(1):
        f = weight @ x + bias
        own = int(f.argmax())
        others = [k for k in range(classes) if k != own]
        wanted.append(min(float((f[own] - f[k]) ** 2 / (weight[own] - weight[k]).square().sum()) for k in others))
    candidates = candidates_of(n=12, network=network, real=real)
    assert (-DeepFool().priorities(candidates)).tolist() == pytest.approx(wanted, rel=1e-4)
    assert chosen_images(DeepFool(), candidates, 12) == largest_first([-w for w in wanted])


def literal_deepfool(network, image, iterations):
    """One image, one class at a time, as the definition reads."""
    x, total = image[None].clone(), torch.zeros_like(image)[None]
    own = int(network(x).argmax())
    for _ in range(iterations):
        x.requires_grad_()
        f = network(x)[0]
        gradients = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in f]
        w = {k: gradients[k] - gradients[own] for k in range(len(f)) if k != own}
        gap = {k: abs(float((f[k] - f[own]).detach())) for k in w}
        nearest = min(w, key=lambda k: gap[k] / float(w[k].norm()))
        step = gap[nearest] / w[nearest].square().sum() * w[nearest]
        total, x = total + step, (x + step).detach()
        if int(network(x).argmax()) != own:
            break
    return float(total.square().sum())


def convnet():
    with RandomKey(4).isolated():
        return ConvNet(1, 8, 3, width=6, depth=2, activation="swish").double().eval()


@pytest.mark.parametrize("iterations", [1, 2, 50])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_deepfool_of_a_chunk_is_deepfool_of_every_image(iterations, chunk):
    network, real = convnet(), real_images(size=8)
    candidates = candidates_of(n=8, network=network, real=real)
    wanted = [literal_deepfool(network, x, iterations) for x in real.at(candidates.indices).double()]
    assert (-DeepFool(iterations, chunk).priorities(candidates)).tolist() == pytest.approx(wanted, rel=1e-6)
    assert chosen_images(DeepFool(iterations, chunk), candidates, 8) == largest_first([-w for w in wanted])


def test_deepfool_counts_to_where_the_label_changes():
    """Of a curved model the first step is not enough: the steps go on, and their sum reaches another class."""
    network, real = convnet(), real_images(size=8)
    candidates = candidates_of(n=8, network=network, real=real)
    assert not torch.allclose(DeepFool(1).priorities(candidates), DeepFool(50).priorities(candidates), rtol=1e-3)


def test_deepfool_stops_on_a_boundary_where_steps_get_too_small_to_move_the_image():
    calls = []

    class Counting(nn.Module):
        def forward(self, images):
            calls.append(len(images))
            return torch.stack([images.flatten(1).sum(1), torch.zeros(len(images))], dim=1)  # a tie is still class 0

    real = real_images(2)
    candidates = candidates_of(n=12, network=Counting(), real=real)
    found = -DeepFool(chunk=12).priorities(candidates)
    wanted = real.at(candidates.indices).flatten(1).sum(1).square() / 4
    torch.testing.assert_close(found.float(), wanted, rtol=1e-3, atol=1e-9)
    assert len(calls) < 20


def test_deepfool_works_in_inference_mode_and_leaves_the_network_alone():
    network = convnet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    candidates = candidates_of(n=6, network=network, real=real_images(size=8))
    wanted = chosen_images(DeepFool(), candidates, 4)
    with torch.inference_mode():
        assert chosen_images(DeepFool(), candidates, 4) == wanted
    with torch.no_grad():
        assert chosen_images(DeepFool(), candidates, 4) == wanted
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_deepfool_refuses_a_network_that_does_not_look_at_the_images():
    network = linear_network()
    nn.init.zeros_(network[1].weight)
    with pytest.raises(DataError, match=r"^DeepFool needs finite scores, but those of 6 of 6 candidates"):
        DeepFool().choose(candidates_of(n=6, network=network), 2, KEY)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("cls", "settings", "named"),
    [
        (GraNd, {"networks": 0}, "GraNd.networks to be 1 or more"),
        (EL2N, {"networks": 0}, "EL2N.networks to be 1 or more"),
        (CAL, {"neighbours": 0}, "CAL.neighbours to be 1 or more"),
        (DeepFool, {"iterations": 0}, "DeepFool.iterations to be 1 or more"),
        (DeepFool, {"chunk": 0}, "DeepFool.chunk to be 1 or more"),
        *(
            (cls, {"variant": "paper"}, f"{cls.__name__}.variant to be 'definition' or 'deepcore', got 'paper'")
            for cls in (LeastConfidence, Entropy, Margin, Forgetting, CAL)
        ),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(cls, settings, named):
    with pytest.raises(SettingsError, match=named):
        cls(**settings)


def test_settings_can_be_read_back_and_the_published_ones_are_the_defaults():
    assert settings_of(CAL())["init_args"] == {"neighbours": 10, "variant": "definition"}
    assert settings_of(DeepFool())["init_args"]["iterations"] == 50
    for cls in (LeastConfidence, Entropy, Margin, Forgetting):
        assert settings_of(cls("deepcore"))["init_args"] == {"variant": "deepcore"}
        assert cls().variant == "definition"


def test_logs_name_the_methods():
    tags = [m.tag for m in METHODS[:8]]
    assert tags == ["least_confidence", "entropy", "margin", "grand", "el2n", "forgetting", "cal", "deepfool"]
