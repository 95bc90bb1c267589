"""Trajectory matching in a run: draws, losses and gradients against the definition, and what else it decides."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SyntheticSet, load_condensed
from lit_condense.augmentation import NoAugmentation, OneOf
from lit_condense.errors import CheckpointError, NonFiniteError, SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.experts import Experts
from lit_condense.init import RandomReal, RecognisedReal
from lit_condense.inner import FreshNetwork
from lit_condense.matching import GradientMatching, Progress, TrajectoryMatching
from lit_condense.matching.trajectory import student_batches
from lit_condense.networks import build_network
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share
from lit_condense.synthetic import Learnables
from lit_condense.synthetic.whole_set import match_whole
from tests.cli_helpers import cli
from tests.helpers import DOUBLE, Recorder, TinyData, fitted, quiet_trainer, resumed, tiny_convnet
from tests.oracles import trajectory as oracle
from tests.recording.helpers import recorded

SEED, EXPERTS, EPOCHS = 3, 3, 6
LEARNED = partial(Learnables, inner_lr=0.1, inner_lr_rate=1e-4)
SOFT = partial(Learnables, label_lr=0.1, inner_lr=0.1, inner_lr_rate=1e-4)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    recorded(folder, experts=EXPERTS, epochs=EPOCHS)
    return str(folder)


def matching(experts, **settings):
    return TrajectoryMatching(**{"max_start_epoch": 3, "experts": experts, "steps": 3, "batch_size": 4, **settings})


def run(loss, *more, **settings):
    defaults = {
        "inner": FreshNetwork(),
        "init": RandomReal(),
        "learnables": LEARNED(),
        "optimizer": partial(torch.optim.SGD, lr=0.5, momentum=0.5),
    }
    return fitted(loss, *more, **{**defaults, **settings})


class AsDefined:
    """The first update of a run, put together from the sheet: draws by their keys, the rest by the oracle."""

    def __init__(self, experts, images, loss, augmentation, soft=None, step_size=0.1):
        self.experts, self.loss, self.augmentation = Experts(experts), loss, augmentation
        self.images, self.soft, self.step_size = images.double().requires_grad_(), soft, step_size
        self.net = build_network(tiny_convnet(), 1, (8, 8), 5, RandomKey(9)).double()
        self.labels = torch.arange(5).repeat_interleave(2)

    def named(self, flat):
        sizes = {name: p.shape for name, p in self.net.named_parameters()}
        parts = torch.split(flat.double(), [shape.numel() for shape in sizes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(sizes.items(), parts, strict=True)}

    def segment(self, number, definition):
        key = RandomKey(SEED, ("whole", 0, 0, "TrajectoryMatching", "segment", number))
        turn, place = divmod(number, EXPERTS)
        order = torch.randperm(
            EXPERTS, generator=RandomKey(SEED, ("whole", "run", "TrajectoryMatching", "experts", turn)).generator()
        )
        start = int(torch.randint(0, 3, (), generator=key.fold("epoch").generator()))
        expert = int(order[place])
        begin, end = (self.named(self.experts.at(expert, epoch)) for epoch in (start, start + 2))
        batches, left, shuffles = [], [], 0
        for step in range(self.loss.steps):
            if not left:
                permutation = torch.randperm(len(self.labels), generator=key.fold("order", shuffles).generator())
                left, shuffles = oracle.chunks(permutation.tolist(), 4), shuffles + 1
            chosen = torch.tensor(left.pop(0))
            draw = self.augmentation.draw(key.fold("augment", step), (8, 8), samples=len(chosen))
            targets = (self.labels if self.soft is None else self.soft.softmax(1))[chosen]
            batches.append((self.augmentation.apply(self.images[chosen], draw), targets))

        def forward(weights, x):
            return torch.func.functional_call(self.net, weights, (x,))

        leaves = [self.images, *([] if self.soft is None else [self.soft])]
        return definition(forward, begin, end, batches, self.step_size, leaves)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("augmentation", [NoAugmentation(), OneOf()], ids=["plain", "augmented"])
@pytest.mark.parametrize(
    ("settings", "definition"),
    [
        ({"unroll": "full"}, oracle.full),
        ({"unroll": "full", "checkpointing": True}, oracle.full),
        ({"unroll": "constant_memory"}, oracle.constant_memory),
        ({"segments_per_update": 4}, oracle.full),
    ],
    ids=["full", "checkpointed", "constant memory", "segments"],
)
def test_the_first_update_is_that_of_the_definition(experts, settings, definition, augmentation, soft):
    images, loss = Recorder(), matching(experts, **settings)
    bag = SOFT() if soft else LEARNED()
    sgd = partial(torch.optim.SGD, lr=1.0)
    module = run(loss, images, max_steps=1, trainer=DOUBLE, augmentation=augmentation, learnables=bag, optimizer=sgd)
    found = {name: leaf.grad for name, leaf in module.synthetic_data.leaves().items()}
    logits = None
    if soft:
        fresh = run(matching(experts), max_steps=1, learnables=SOFT(), trainer={"fast_dev_run": 1, **DOUBLE})
        own, rest = torch.tensor([0.9, 0.1 / 4], dtype=torch.float32).log()
        logits = ((own - rest) * torch.nn.functional.one_hot(fresh.labels, 5)).double().requires_grad_()
    step_size = float(torch.tensor(0.1))
    defined = AsDefined(experts, images.images[0], loss, augmentation, logits, step_size)
    count = settings.get("segments_per_update", 1)
    parts = [defined.segment(number, definition) for number in range(count)]
    value = sum(part[0] for part in parts) / count
    assert float(module.trainer.callback_metrics["loss/TrajectoryMatching"]) == pytest.approx(value, rel=1e-6)
    precision = {"rtol": 1e-5, "atol": 1e-9}  # rates and the first logits are made in float32
    torch.testing.assert_close(found["images"], sum(part[1][0] for part in parts) / count, **precision)
    assert float(found["inner_lr"]) == pytest.approx(sum(part[2] for part in parts) / count, rel=1e-5)
    if soft:
        torch.testing.assert_close(found["label_logits"], sum(part[1][1] for part in parts) / count, **precision)


def test_it_learns(experts):
    module = run(
        matching(experts, batch_size=None), max_steps=40, optimizer=partial(torch.optim.SGD, lr=5.0, momentum=0.5)
    )
    logged = run(matching(experts, batch_size=None), max_steps=1)
    before = float(logged.trainer.callback_metrics["loss/TrajectoryMatching"])
    assert float(module.trainer.callback_metrics["loss/TrajectoryMatching"]) < before


def test_images_without_a_gradient_leave_the_loss_at_one(experts):
    """A step size of next to nothing: the student stays where it starts."""
    module = run(matching(experts), max_steps=1, learnables=Learnables(inner_lr=1e-30))
    assert float(module.trainer.callback_metrics["loss/TrajectoryMatching"]) == 1


# ------------------------------------------------------------------------------------------------ draws


@pytest.mark.parametrize(("images", "size"), [(5, 2), (6, 2), (4, 9), (7, 7), (1, 1)])
def test_batches_are_taken_from_the_end_of_a_shuffle(images, size):
    key = RandomKey(0, ("test",))
    found = list(student_batches(images, size, 9, key))
    wanted = []
    for shuffle in range(9):
        permutation = torch.randperm(images, generator=key.fold("order", shuffle).generator())
        wanted += oracle.chunks(permutation.tolist(), size)
    assert [batch.tolist() for batch in found] == [list(chunk) for chunk in wanted[:9]]
    rest = images % size
    assert len(found[0]) == (rest or min(size, images))


def test_every_expert_takes_part_before_one_does_so_again(experts):
    loss, seen = matching(experts, segments_per_update=2), []
    draw = loss._draw
    loss._draw = lambda *args: (lambda segment: (seen.append(segment), segment)[1])(draw(*args))
    run(loss, max_steps=6)
    drawn = seen[2:]  # the trial before the run draws too
    for turn in range(4):
        assert sorted(one.expert for one in drawn[3 * turn : 3 * turn + 3]) == [0, 1, 2]
    assert len({tuple(one.expert for one in drawn[3 * t : 3 * t + 3]) for t in range(4)}) > 1
    assert {one.epochs[0] for one in drawn} == {0, 1, 2}
    assert all(one.epochs[1] == one.epochs[0] + 2 for one in drawn)


@pytest.mark.parametrize("update", [0, 99, 100, 500, 999, 1000, 5000])
def test_the_range_of_start_epochs_grows(update):
    grows = TrajectoryMatching(20, initial_max_start_epoch=10, expansion_updates=1000, min_start_epoch=3)
    assert grows.start_epochs(update) == range(3, oracle.upper_start_epoch(update, 10, 20, 1000))
    assert TrajectoryMatching(20).start_epochs(update) == range(20)


# ------------------------------------------------------------------------------------------------ the threshold


def test_an_update_above_the_threshold_changes_nothing(experts):
    """Images, soft labels, step size, and momentum: where all are held back, a run leaves the set as it starts."""
    recorder = Recorder()
    module = run(matching(experts, threshold=1e-9), recorder, learnables=SOFT(), average=0.5)
    assert module.held_back == 4
    assert module.trainer.global_step == 4
    assert torch.equal(module.synthetic_data.averaged_images, recorder.images[0])
    assert all(torch.equal(recorder.images[0], images) for images in recorder.images)
    assert float(module.synthetic_data.inner_lr) == pytest.approx(0.1)
    assert module.trainer.optimizers[0].state_dict()["state"] == {}
    assert float(module.trainer.callback_metrics["held_back_updates"]) == 4


def test_momentum_is_as_if_an_update_that_is_held_back_had_not_been(experts):
    """With the loss of each update known, a threshold between them: those below are taken as they are."""

    def losses_of(threshold):
        values, buffers = [], []

        class Watch(Recorder):
            def on_train_batch_end(self, trainer, pl_module, *args):
                super().on_train_batch_end(trainer, pl_module, *args)
                values.append(float(trainer.callback_metrics["loss/TrajectoryMatching"]))
                state = trainer.optimizers[0].state_dict()["state"]
                buffers.append(state[0]["momentum_buffer"].clone() if state else None)

        watch = Watch()
        return run(matching(experts, threshold=threshold), watch, max_steps=6), values, buffers, watch.images

    _, values, _, _ = losses_of(None)
    limit = sorted(values)[2]
    module, values, buffers, images = losses_of(limit)
    taken = [value <= limit for value in values]
    assert 0 < module.held_back == taken.count(False) < 6
    for update, was_taken in enumerate(taken):
        assert torch.equal(images[update], images[update + 1]) != was_taken
        if not was_taken and update:
            before, now = buffers[update - 1], buffers[update]
            assert (before is None and now is None) or torch.equal(before, now)


# ------------------------------------------------------------------------------------------------ in a run


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_broken_run_goes_on(experts, tmp_path, stop):
    straight, on = resumed(
        tmp_path,
        stop,
        4,
        lambda: matching(experts, threshold=1.5, initial_max_start_epoch=1, expansion_updates=3),
        learnables=SOFT,
        inner=FreshNetwork,
        init=RandomReal,
        average=lambda: 0.5,
    )
    for name, tensor in straight.synthetic_data.held().items():
        assert torch.equal(tensor, on.synthetic_data.held()[name]), name
    assert straight.held_back == on.held_back


def test_other_experts_are_another_run_and_another_folder_is_not(experts, tmp_path):
    """What goes on is told by how the experts were made and how many there are, not by where they lie."""
    shutil.copytree(experts, tmp_path / "moved")
    kept = ModelCheckpoint(tmp_path, filename="broken", every_n_train_steps=2)
    on = {"trainer": {"enable_checkpointing": True}}
    run(matching(experts), kept, max_steps=2, **on)
    run(matching(str(tmp_path / "moved")), ModelCheckpoint(tmp_path / "on"), path=tmp_path / "broken.ckpt", **on)
    recorded(tmp_path / "others", experts=EXPERTS, epochs=EPOCHS, seed=4)
    with pytest.raises(CheckpointError, match="made_with_sha256"):
        run(matching(str(tmp_path / "others")), ModelCheckpoint(tmp_path / "on"), path=tmp_path / "broken.ckpt", **on)


def test_processes_share_the_segments(experts):
    module = run(matching(experts), max_steps=1, learnables=SOFT())
    loss = matching(experts, segments_per_update=5)
    loss.check_data(TinyData(), tiny_convnet())
    gatherer, network, now = module._gatherer(0), module.inner_network.network, Progress(0, 0, 0)
    parts = [match_whole(gatherer, network, Share(r, 3), [(loss, 2.0)], now) for r in range(3)]
    values, gradients = match_whole(gatherer, network, Share(), [(loss, 2.0)], now)
    torch.testing.assert_close(sum(v[loss.tag] for v, _ in parts), values[loss.tag])
    for name, gradient in gradients.items():
        torch.testing.assert_close(sum(g[name] for _, g in parts), gradient)
    alone = match_whole(gatherer, network, Share(6, 7), [(loss, 2.0)], now)
    assert float(alone[0][loss.tag]) == 0
    assert alone[1] == {}


def test_it_stands_beside_other_losses_and_on_other_storage(experts):
    exact = {"max_steps": 1, "trainer": DOUBLE, "optimizer": partial(torch.optim.SGD, lr=1.0)}
    apart = [run(loss, **exact).images.grad for loss in (matching(experts), GradientMatching(weight=0.1))]
    both = run(matching(experts), GradientMatching(weight=0.1), **exact)
    torch.testing.assert_close(both.images.grad, sum(apart), rtol=1e-9, atol=1e-12)
    packed = run(matching(experts, batch_size=None), parametrization=MultiFormation(2), ipc=1)
    assert len(packed.training_set().labels) == 20
    assert bool(packed.images.grad.any())


@pytest.mark.parametrize(
    "more",
    [
        ["--trainer.callbacks+=GradientMatching", "--trainer.callbacks.weight", "0.1"],
        ["--model.init_args.parametrization", "MultiFormation"],
    ],
    ids=["beside gradient matching", "multi-formation"],
)
def test_from_yaml_it_stands_beside_others(more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [
        "--data.train_limit_per_class",
        "12",
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_progress_bar",
        "false",
    ]
    cli("fit", "--config", "experts/digits", *small, "--model.experts", "2", "--model.epochs", "6")
    quick = ["--model.evaluation.epochs", "2", "--model.evaluation.repeats", "1", "--trainer.limit_val_batches", "0"]
    gently = ["--model.optimizer.lr", "0.1", "--model.learnables.inner_lr_rate", "1e-9"]  # for what is added
    cli(
        "fit",
        "--config",
        "mtt/digits_ipc1",
        *small,
        *quick,
        "--trainer.max_steps",
        "3",
        *gently,
        "--out",
        "matched",
        *more,
    )
    card = load_condensed("matched").card
    assert card["update"] == 3
    assert "TrajectoryMatching" in card["method"]["matching"]
    assert len(card["method"]["matching"]) == (2 if "GradientMatching" in more[0] else 1)


def test_what_is_learned_is_exported_and_evaluated(experts, tmp_path):
    kept = ModelCheckpoint(tmp_path, save_last=True)
    module = run(
        matching(experts),
        kept,
        learnables=SOFT(label_momentum=0.9),
        average=0.9,
        evaluation=Evaluation("mtt", epochs=2, repeats=2),
        trainer={"enable_checkpointing": True},
    )
    groups = module.trainer.optimizers[0].state_dict()["param_groups"]
    assert [(group["lr"], group["momentum"]) for group in groups] == [(0.5, 0.5), (0.1, 0.9), (1e-4, 0.5)]
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.step_size() == pytest.approx(float(module.synthetic_data.inner_lr))
    report = loaded.evaluate(TinyData())
    learned = float(module.synthetic_data.inner_lr)
    plain = report.as_plain()
    assert plain["condensed"][0]["recipe"]["lr"] == plain["averaged"]["recipe"]["lr"] == pytest.approx(learned)
    assert plain["start"]["recipe"]["lr"] == pytest.approx(0.1)
    assert plain["baselines"]["random"]["recipe"]["lr"] == 0.01
    loaded.save(tmp_path / "set", report)
    back = load_condensed(tmp_path / "set")
    assert back.inner_lr == pytest.approx(learned)
    torch.testing.assert_close(back.averaged, module.averaged_pixels())
    assert not torch.equal(back.averaged, back.images)
    assert "average of its images" in str(report)


def test_the_average_is_that_of_the_definition(experts):
    recorder = Recorder()
    module = run(matching(experts), recorder, average=0.8)
    wanted = oracle.exponential_average(recorder.images[0].double(), [i.double() for i in recorder.images[1:]], 0.8)
    torch.testing.assert_close(module.synthetic_data.averaged_images.double(), wanted[-1], rtol=1e-5, atol=1e-6)


def test_a_set_is_evaluated_without_its_experts_and_its_start_has_its_labels(experts, tmp_path):
    shutil.copytree(experts, tmp_path / "moved")
    data, init = TinyData(sizes=(9, 9, 9, 9, 9)), RecognisedReal(str(tmp_path / "moved"))
    recorded(tmp_path / "moved2", data=data, experts=EXPERTS, epochs=40)
    kept = ModelCheckpoint(tmp_path, save_last=True)
    settings = {"learnables": SOFT(), "init": RecognisedReal(str(tmp_path / "moved2")), "data": data, "ipc": 1}
    module = run(matching(str(tmp_path / "moved2")), kept, trainer={"enable_checkpointing": True}, **settings)
    start = module.start_set()
    torch.testing.assert_close(start.soft_labels.sum(1), torch.ones(5))
    assert not torch.equal(start.soft_labels, module.training_set().soft_labels)
    shutil.rmtree(tmp_path / "moved2")
    again = SyntheticSet(
        ipc=1,
        network=tiny_convnet(),
        inner=FreshNetwork(),
        learnables=SOFT(),
        init=init,
        evaluation=Evaluation(epochs=3, quick_repeats=2, repeats=2),
        seed=3,
    )
    quiet_trainer(limit_val_batches=None).validate(again, data, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert torch.equal(again.images, module.images)


def test_a_checkpoint_of_other_leaves_is_one_sentence(experts, tmp_path):
    kept = ModelCheckpoint(tmp_path, save_last=True)
    run(matching(experts), kept, average=0.9, trainer={"enable_checkpointing": True})
    plain = SyntheticSet(ipc=2, network=tiny_convnet(), seed=3)
    with pytest.raises(CheckpointError, match=r"averaged_images and inner_lr.*got one of images alone.*model\.average"):
        quiet_trainer(limit_val_batches=None).validate(plain, TinyData(), ckpt_path=tmp_path / "last.ckpt")


def test_a_momentum_of_labels_needs_an_optimizer_that_has_one(experts):
    with pytest.raises(SettingsError, match=r"momentum for Learnables\.label_momentum, got Adam"):
        run(matching(experts), learnables=SOFT(label_momentum=0.9), optimizer=partial(torch.optim.Adam, lr=0.1))


def test_experts_recognise_what_they_start_from(tmp_path):
    data = TinyData(sizes=(9, 9, 9, 9, 9))
    recorded(tmp_path, data=data, experts=EXPERTS, epochs=40)
    experts, init = str(tmp_path), RecognisedReal(str(tmp_path))
    arguments = (Pixels(), data.real, [2] * 5, tiny_convnet(), RandomKey(0, ("init",)))
    panel = Experts(experts)
    net = build_network(tiny_convnet(), 1, (8, 8), 5, RandomKey(1)).eval()
    images, logits = init.start(*arguments), init.label_logits(*arguments)
    total, right_of = torch.zeros(10, 5), torch.zeros(10, 1)
    for expert in range(EXPERTS):
        sizes = [p.numel() for p in net.parameters()]
        for p, part in zip(net.parameters(), torch.split(panel.at(expert, 40), sizes), strict=True):
            p.data.copy_(part.view(p.shape))
        with torch.no_grad():
            said = net(images)
        right = (said.argmax(1) == torch.arange(5).repeat_interleave(2)).unsqueeze(1)
        total, right_of = total + said * right, right_of + right
    assert float(right_of.min()) >= 1
    torch.testing.assert_close(logits, total / right_of, rtol=1e-4, atol=1e-5)
    assert len(images.flatten(1).unique(dim=0)) == 10


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_start_epoch": 0}, "max_start_epoch to be a whole number from 1"),
        ({"steps": 0}, "steps to be"),
        ({"batch_size": 1.5}, "batch_size to be"),
        ({"unroll": "half"}, "unroll to be 'full' or 'constant_memory'"),
        ({"threshold": 0}, "threshold to be above 0"),
        ({"min_start_epoch": 3}, "min_start_epoch below"),
        ({"initial_max_start_epoch": 2}, "initial_max_start_epoch and expansion_updates together"),
        ({"initial_max_start_epoch": 5, "expansion_updates": 9}, "not above max_start_epoch"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(SettingsError, match=words):
        matching("there", **settings)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"network": tiny_convnet(width=8)}, CheckpointError, "network.init_args.width: 4 then, 8 now"),
        ({"data": TinyData(sizes=(9, 7, 9, 4, 8))}, CheckpointError, "data.sha256"),
        ({"data": TinyData(image_size=(16, 16))}, CheckpointError, "data.image_shape"),
        ({"data": TinyData(normalization="zca")}, CheckpointError, "normalization.eps"),
        ({"learnables": None}, SettingsError, "model.learnables.inner_lr"),
    ],
)
def test_experts_of_something_else_are_refused(experts, changed, error, words):
    with pytest.raises(error) as caught:
        run(matching(experts), **changed)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_epochs_no_experts_and_a_truncated_file_are_refused(experts, tmp_path):
    with pytest.raises(SettingsError, match=r"Expected experts of 8 epochs .* have 6\. Lower max_start_epoch"):
        run(matching(experts, max_start_epoch=7))
    with pytest.raises(SettingsError, match=r"Expected recorded experts in .*nowhere, found none"):
        run(matching(str(tmp_path / "nowhere")))
    recorded(tmp_path, experts=2)
    path = tmp_path / "expert_0001.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"recorded expert at .*expert_0001"):
        run(matching(str(tmp_path), max_start_epoch=2))


@pytest.mark.parametrize("way", ["too large", "below nothing"])
def test_a_step_size_that_explodes_ends_the_run_with_the_last_good_set(experts, way):
    """Either the student diverges, or the step size crosses 0; both name what moves it."""
    bag = LEARNED(inner_lr=1e4) if way == "too large" else LEARNED(inner_lr_rate=1e6)
    recorder = Recorder()
    with pytest.raises(NonFiniteError, match="inner_lr_rate") as caught:
        run(matching(experts, steps=8), recorder, learnables=bag, max_steps=30)
    assert ("step size of" in str(caught.value)) or ("step size stood at" in str(caught.value))
    assert all(bool(images.isfinite().all()) for images in recorder.images)
