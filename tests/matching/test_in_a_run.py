"""Matching losses as callbacks of a run: when they are asked, and how they add up."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.functional import distances
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import GradientMatching
from tests.helpers import DOUBLE, DistanceLoss, Recorder, fitted


def seen_progress(loss):
    """The progress numbers a loss was asked for, each once, in order."""
    return list(dict.fromkeys(loss.asked))


def test_a_loss_sees_update_network_and_match_numbers():
    loss = DistanceLoss(distances.row_cosine)
    fitted(loss, inner=TrainOnSynthetic(updates=3, epochs=1), max_steps=9)
    assert seen_progress(loss) == [(u, u // 3, u % 3) for u in range(9)]


def test_the_published_loops_decide_about_the_match_numbers():
    loss = DistanceLoss(distances.row_cosine)
    # ipc 2 is not published: as many updates as images
    fitted(loss, inner=TrainOnSynthetic(epochs=0), ipc=2, max_steps=4)
    assert seen_progress(loss) == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]


def step_of(*losses, **settings):
    """The change of the images by one update of plain SGD with rate 1, in double precision."""
    recorder = Recorder()
    sgd = partial(torch.optim.SGD, lr=1.0)
    module = fitted(*losses, recorder, max_steps=2, optimizer=sgd, trainer=DOUBLE, **settings)
    return recorder.images[1] - recorder.images[0], module.trainer.callback_metrics


def test_the_norm_of_the_image_gradient_is_logged_as_it_was_before_the_step():
    change, logged = step_of(GradientMatching(weight=3.0))
    first = fitted(GradientMatching(weight=3.0), max_steps=1, trainer=DOUBLE).trainer.callback_metrics
    assert float(first["set/grad_norm"]) == pytest.approx(float(change.norm()), rel=1e-6)
    assert float(logged["set/grad_norm"]) != float(first["set/grad_norm"])  # of the second update


def test_a_second_loss_adds_with_its_weight_in_either_order():
    angle, size = GradientMatching(name="angle", weight=2.0), GradientMatching("l1", name="size", weight=0.25)
    only_angle, only_size = (step_of(loss)[0] for loss in (angle, size))
    both, metrics = step_of(angle, size)
    turned, turned_metrics = step_of(size, angle)
    torch.testing.assert_close(both, only_angle + only_size, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(turned, both, rtol=1e-12, atol=1e-14)
    for found in (metrics, turned_metrics):
        total = 2 * found["loss/angle"] + 0.25 * found["loss/size"]
        torch.testing.assert_close(found["loss/total"].double(), total.double(), rtol=1e-6, atol=0)


def test_the_weight_is_a_factor_on_the_gradient():
    plain, heavy = (step_of(GradientMatching(weight=w))[0] for w in (1.0, 5.0))
    torch.testing.assert_close(heavy, 5 * plain, rtol=1e-10, atol=1e-13)


def never(real, synthetic):
    raise AssertionError("a loss of weight 0 was computed")


def test_a_loss_of_weight_zero_is_skipped():
    alone = step_of(GradientMatching())[0]
    beside, _ = step_of(GradientMatching(), DistanceLoss(never, weight=0.0, name="off"))
    assert torch.equal(alone, beside)


def test_a_loss_may_be_switched_off_for_part_of_a_run():
    def only_first(progress):
        return float(progress.match_index == 0)

    recorder = Recorder()
    loss = DistanceLoss(distances.row_cosine, weights=only_first)
    with pytest.warns(UserWarning, match="no matching loss is on in updates 1 to 1"):
        fitted(loss, recorder, optimizer=partial(torch.optim.SGD, lr=0.1))
    changed = [not torch.equal(a, b) for a, b in zip(recorder.images, recorder.images[1:], strict=False)]
    # nothing else is configured, so the updates without it leave the images alone
    assert changed == [True, False, True, False]


def test_a_run_without_a_matching_loss_is_refused():
    with pytest.raises(SettingsError, match="at least one matching loss"):
        fitted(Recorder())
