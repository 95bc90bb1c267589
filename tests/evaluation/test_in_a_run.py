"""Validation and test of a set by the Trainer."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lit_condense.evaluation import Evaluation
from lit_condense.networks import MLP
from tests.helpers import TinyData, fitted, quiet_trainer, tiny_convnet


def test_validation_and_test_report_mean_and_sample_spread_of_fresh_networks():
    module = fitted()
    for name, run, repeats in (("val", "validate", 3), ("test", "test", 4)):
        module.evaluation = Evaluation(epochs=3, quick_repeats=3, repeats=4)
        trainer = quiet_trainer(limit_val_batches=None)
        metrics = getattr(trainer, run)(module, datamodule=TinyData(), verbose=False)[0]
        single = [module.evaluator().accuracy(module.network, i, module.training_set())[0] for i in range(repeats)]
        accuracies = torch.tensor(single, dtype=torch.float64)
        assert accuracies.std() > 0
        assert metrics[f"{name}/acc"] == pytest.approx(accuracies.mean().item(), abs=1e-6)
        assert metrics[f"{name}/acc_std"] == pytest.approx(accuracies.std(unbiased=True).item(), abs=1e-6)


def test_several_architectures_are_tested_each_on_its_own():
    module = fitted(evaluation=Evaluation(networks=[tiny_convnet(), partial(MLP, width=5)], repeats=2, epochs=3))
    metrics = quiet_trainer().test(module, datamodule=TinyData(), verbose=False)[0]
    for factory, name in ((tiny_convnet(), "ConvNet(depth=2,width=4)"), (partial(MLP, width=5), "MLP(width=5)")):
        single = [module.evaluator().accuracy(factory, i, module.training_set())[0] for i in range(2)]
        assert metrics[f"test/acc/{name}"] == pytest.approx(sum(single) / 2, abs=1e-6)
    assert metrics["test/acc"] == metrics["test/acc/ConvNet(depth=2,width=4)"]
