"""On a GPU, every kind of run gives what it gives on a CPU, and its gradients what float64 gives."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lit_condense.data import Digits
from lit_condense.engine import Block, Engine
from lit_condense.engine.execution_plan import StudentPlan
from lit_condense.engine.unrolling import Unroller
from lit_condense.evaluation import Evaluation, Evaluator, SmallSet
from lit_condense.experts import Experts
from lit_condense.matching import CurvatureMatching, FeatureMatching, GradientMatching, Progress, Student
from lit_condense.matching.trajectory import normalised_distance, squared_distance
from lit_condense.networks import ConvNet, build_network
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share
from tests.distributed.cases import CASES, run
from tests.helpers import TinyData, fitted
from tests.oracles import dc
from tests.oracles.attention import Transformer, Written
from tests.recording.helpers import recorded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OTHERWISE = ("fast", "dropout", "stopped", "evaluated")
"""Cases that may differ: bfloat16, draws of the device itself, a run that ends in an error, whole trainings."""
IMPURE = ("skipped", "skipped for its slope")
"""Cases with a loss that looks at the update's number on the sly, which a recording would not see."""

LOSSES = {
    "dc": [GradientMatching()],
    "idc": [GradientMatching("squared_l2", layers="convolutions")],
    "dm": [FeatureMatching()],
    "lcmat": [GradientMatching(), CurvatureMatching(rho=1.0)],
}
NEEDS = frozenset({"gradients", "features", "logits"})


@pytest.mark.parametrize("name", [name for name in CASES if name not in OTHERWISE])
def test_a_run_on_a_gpu_gives_the_set_of_a_cpu(name, monkeypatch):
    if name in IMPURE:
        monkeypatch.setattr("lit_condense.engine.execution_plan.RECORDED", frozenset())
    here, there = run(name), run(name, accelerator="gpu")
    assert there["images"].is_cuda
    scale = float(here["gradients"].abs().max())
    torch.testing.assert_close(there["gradients"].cpu() / scale, here["gradients"] / scale, rtol=0, atol=2e-4)
    torch.testing.assert_close(there["images"].cpu(), here["images"], rtol=0, atol=2e-4)
    assert there["logged"] == pytest.approx(here["logged"], rel=1e-3, nan_ok=True)


def test_a_pool_that_rests_in_main_memory_gives_the_same(monkeypatch):
    on_device = run("pool", accelerator="gpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    in_memory = run("pool", accelerator="gpu")
    torch.testing.assert_close(in_memory["images"], on_device["images"], rtol=0, atol=2e-6)


@functools.cache
def computed(device, dtype, losses, mode, record=True):
    """Return the image gradient and losses of ConvNet-3 of width 32, after other images went the same way."""
    store = TinyData((64,) * 3, channels=3, image_size=(32, 32)).real
    real = store.at(store.indices_of(1)).to(device, dtype)
    stored = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    network = build_network(functools.partial(ConvNet, width=32), 3, (32, 32), 10, RandomKey(3)).to(device, dtype)
    labels = torch.full((1, 64), 1, device=device)
    compile = "never" if device == "cpu" else "always"
    engine = Engine(mode, compile, record=record).start(network, real, NEEDS, len(stored))
    for images in (stored + 1, stored):
        block = Block(real[None], labels, images.requires_grad_(), lambda images: images[None], labels[:, :4])
        with engine.precision():
            found = engine.run(block, LOSSES[losses], Progress(0, 0, 0))
    assert engine.first_order.recorded == engine.image_gradient.recorded == (device == "cuda" and record)
    return found.gradient.double().cpu(), {tag: float(value) for tag, value in found.losses.items()}


@pytest.mark.parametrize("losses", LOSSES)
def test_compiled_and_recorded_gradients_agree_with_float64(losses):
    wanted, values = computed("cpu", torch.float64, losses, "exact")
    for mode, within, of_losses in (("exact", 2e-3, 1e-3), ("fast", 0.25, 0.05)):
        found, found_values = computed("cuda", torch.float32, losses, mode)
        assert float((found - wanted).norm() / wanted.norm()) < within, mode
        assert float(cosine_similarity(found.flatten(), wanted.flatten(), dim=0)) > 1 - within**2, mode
        assert found_values == pytest.approx(values, rel=of_losses)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_replayed_gradient_is_the_one_that_is_called(mode):
    replayed, values = computed("cuda", torch.float32, "lcmat", mode)
    called, called_values = computed("cuda", torch.float32, "lcmat", mode, record=False)
    torch.testing.assert_close(replayed, called, rtol=1e-4, atol=float(called.abs().max()) * 1e-4)
    assert values == pytest.approx(called_values, rel=1e-4)


@pytest.mark.parametrize(("mode", "compile"), [("exact", "never"), ("exact", "always"), ("fast", "always")])
@pytest.mark.parametrize("kind", ["function", "attention", "layer"])
def test_attention_has_both_derivatives_on_a_gpu(kind, mode, compile):
    store = TinyData((16,) * 3, channels=1, image_size=(16, 16)).real
    network = build_network(functools.partial(Transformer, kind=kind), 1, (16, 16), 3, RandomKey(3))
    real = store.at(store.indices_of(1))
    stored = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.ones(1, 16, dtype=torch.int64)

    written, leaf = Written(copy.deepcopy(network).double()), stored.double().requires_grad_()
    target = [gradient.detach() for gradient in dc.network_gradient(written, real.double(), 1)]
    value = dc.row_cosine(target, dc.network_gradient(written, leaf, 1, create_graph=True))
    wanted = torch.autograd.grad(value, leaf)[0]

    network, real = network.cuda(), real.cuda()
    engine = Engine(mode, compile).start(network, real, frozenset({"gradients"}), len(stored))
    for images in (stored + 1, stored):  # the second one is replayed
        leaf = images.cuda().requires_grad_()
        block = Block(real[None], labels.cuda(), leaf, lambda images: images[None], labels[:, :4].cuda())
        with engine.precision():
            found = engine.run(block, [GradientMatching()], Progress(0, 0, 0))
    within = 0.25 if mode == "fast" else 5e-3
    assert float((found.gradient.double().cpu() - wanted).norm() / wanted.norm()) < within
    assert float(found.losses["GradientMatching"]) == pytest.approx(float(value.detach()), rel=within)


def test_a_run_with_attention_learns_on_a_gpu():
    module = fitted(network=Transformer, trainer={"accelerator": "gpu"})
    assert module.images.is_cuda
    assert bool(module.images.isfinite().all())


def test_networks_are_judged_on_a_gpu_as_on_a_cpu():
    data = Digits()
    data.setup("test")
    chosen = torch.cat([data.real.random_of_class(c, 1, RandomKey(0, (c,))) for c in range(10)])

    def accuracies(device):
        real, test = data.real.to(device), data.test.to(device)
        judged = SmallSet(real.at(chosen), real.labels_at(chosen))
        judge = Evaluator(Evaluation(epochs=60), test, "digits", RandomKey(0), test.device)
        return judge.score(functools.partial(ConvNet, width=32, depth=2), lambda _: judged, 3, Share()).accuracies

    assert list(accuracies("cuda")) == pytest.approx(list(accuracies("cpu")), abs=0.03)


def test_experts_are_recorded_on_a_gpu_as_on_a_cpu(tmp_path):
    for device in ("cpu", "gpu"):
        recorded(tmp_path / device, trainer={"accelerator": device})
    here, there = (Experts(tmp_path / device) for device in ("cpu", "gpu"))
    for expert in range(len(here)):
        for epoch in range(here.epochs + 1):
            torch.testing.assert_close(there.at(expert, epoch), here.at(expert, epoch), rtol=0, atol=1e-3)


@pytest.mark.parametrize("unroll", ["full", "constant_memory"])
def test_students_compiled_for_a_gpu_have_the_gradients_of_float64(unroll):
    network = build_network(functools.partial(ConvNet, width=32), 3, (32, 32), 10, RandomKey(3))
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    start = {name: p.detach() for name, p in network.named_parameters()}
    labels = torch.arange(20) % 10

    def unrolled(device, dtype, plan):
        weights = {name: w.to(device, dtype) for name, w in start.items()}
        target = {name: w + 0.01 for name, w in weights.items()}
        value = functools.partial(normalised_distance, target=target, scale=squared_distance(weights, target))
        student = Student(weights, [torch.arange(20)] * 3, lambda x, _: x, value, RandomKey(0), unroll)
        moved = copy.deepcopy(network).to(device, dtype)
        step_size = torch.tensor(0.02, device=device, dtype=dtype)
        return Unroller(moved, plan)(student, images.to(device, dtype), labels.to(device), step_size).images

    exact = unrolled("cpu", torch.float64, None).flatten()
    for mode, least in (("exact", 0.9999), ("fast", 0.98)):
        found = unrolled("cuda", torch.float32, StudentPlan(mode, frozenset({20}))).cpu().double().flatten()
        assert float(cosine_similarity(found, exact, dim=0)) > least, mode
