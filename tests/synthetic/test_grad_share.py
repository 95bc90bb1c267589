from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import Callback

from lit_condense.errors import SettingsError
from lit_condense.functional.distances import row_cosine, squared_l2
from lit_condense.matching import ClassMeanGradientMatching, CurvatureMatching, GradientMatching
from lit_condense.synthetic.grad_share import GradShares
from tests.distributed.cases import Dropping
from tests.helpers import DistanceLoss, Recorder, fitted


class FirstStep(Callback):
    """Keeps the image gradient of the first update and the shares that it logged."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not hasattr(self, "gradient"):
            self.gradient = pl_module.images.grad.clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if "grad_share" in name}
        self.shares = getattr(self, "shares", found)


def first_step(*losses, **settings):
    watch = FirstStep()
    fitted(*losses, watch, max_steps=1, **settings)
    return watch


def pair():
    return DistanceLoss(row_cosine, weight=3.0, name="one"), DistanceLoss(squared_l2, weight=0.5, name="two")


def test_a_share_is_the_norm_of_a_losses_own_gradient_over_that_of_the_sum():
    both = first_step(*pair())
    alone = [first_step(loss).gradient for loss in pair()]
    torch.testing.assert_close(alone[0] + alone[1], both.gradient)
    for tag, gradient in zip(("one", "two"), alone, strict=True):
        expected = float(gradient.norm() / both.gradient.norm())
        assert both.shares[f"set/grad_share/{tag}"] == pytest.approx(expected, rel=1e-5)


def test_shares_of_losses_of_all_scopes_are_those_of_the_losses_alone():
    def losses():
        return GradientMatching(), ClassMeanGradientMatching(weight=2.0), CurvatureMatching(rho=0.5)

    together = first_step(*losses())
    for loss in losses():
        expected = float(first_step(loss).gradient.norm() / together.gradient.norm())
        assert together.shares[f"set/grad_share/{loss.tag}"] == pytest.approx(expected, rel=1e-4)


def test_one_loss_has_nothing_to_share():
    assert first_step(GradientMatching()).shares == {}
    off = DistanceLoss(squared_l2, weight=0.0, name="off")
    assert first_step(GradientMatching(), off).shares == {}


@pytest.mark.parametrize("network", [{}, {"network": Dropping}], ids=["convnet", "layers that draw"])
def test_looking_changes_nothing(network):
    def images(every):
        recorder = Recorder()
        losses = GradientMatching(), ClassMeanGradientMatching()
        fitted(*losses, recorder, max_steps=4, grad_share_every=every, **network)
        return torch.stack(recorder.images)

    assert torch.equal(images(None), images(1))


def test_it_looks_every_so_many_updates():
    shares = GradShares(3)
    assert [update for update in range(8) if shares.due(update, ["a", "b"])] == [0, 3, 6]
    assert not GradShares(None).due(0, ["a", "b"])
    with pytest.raises(SettingsError, match="grad_share_every"):
        GradShares(0)


def test_a_loss_that_does_nothing_is_warned_of_once():
    inert = DistanceLoss(squared_l2, weight=1e-7, name="inert")
    with pytest.warns(UserWarning, match=r"inert makes 0\.0.*Raise its weight") as found:
        fitted(GradientMatching(), inert, max_steps=6, grad_share_every=1)
    assert len([w for w in found if "inert makes" in str(w.message)]) == 1


def test_a_share_that_recovers_is_not_warned_of():
    shares, values = GradShares(1), iter([0.001, 0.001, 0.5, 0.001, 0.001])
    whole = torch.tensor([1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            value = next(values)
            found = shares.look(whole, ["a", "b"], lambda tag, v=value: whole * (v if tag == "a" else 1), lambda t: t)
            assert float(found["a"]) == pytest.approx(value)
