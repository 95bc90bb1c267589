"""``python -m tests.distributed.launched KIND STRATEGY FOLDER``: a fit in processes that Lightning starts itself.

Under ``ddp_spawn``, ``ddp_fork`` and ``ddp_notebook`` the process that calls ``fit`` trains nothing: it gets the result
back from a child. What it holds then is written to ``FOLDER/main.pt``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from lit_condense import SelectedSet
from lit_condense.callbacks import FinalReport
from lit_condense.data import Digits
from lit_condense.evaluation import Evaluation
from lit_condense.matching import GradientMatching
from lit_condense.selection import Herding, ProxyTraining
from tests.helpers import quiet_trainer, tiny_convnet
from tests.processes import LOOPBACK

EVALUATION = {"epochs": 1, "repeats": 2, "full_data_steps": 0}


def synthetic():
    from lit_condense import SyntheticSet

    evaluation = Evaluation(**EVALUATION)
    return SyntheticSet(ipc=[2, 1], network=tiny_convnet(), evaluation=evaluation, seed=3), [GradientMatching()], 3


def selected():
    proxy, evaluation = ProxyTraining(epochs=1, batch_size=16), Evaluation("coreset", **EVALUATION)
    settings = {"ipc": 2, "network": tiny_convnet(), "proxy": proxy, "evaluation": evaluation, "seed": 3}
    return SelectedSet(Herding(), **settings), [], -1


KINDS = {"synthetic": synthetic, "selected": selected}


def data():
    return Digits(classes=[0, 1], train_limit_per_class=12)


def fit(kind, folder, **trainer):
    """Fit a set of a kind and return it."""
    module, callbacks, max_steps = KINDS[kind]()
    report = FinalReport(str(folder))
    quiet_trainer(*callbacks, report, max_steps=max_steps, **trainer).fit(module, datamodule=data())
    return module


def kept(module):
    """What a set holds, as the process that called ``fit`` sees it."""
    return {"state": module.state_dict(), "counts": module.counts, "updates": module.updates_done}


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    kind, strategy, folder = sys.argv[1:]
    module = fit(kind, folder, strategy=strategy, devices=2)
    after = kept(module)
    (predicted,) = quiet_trainer().predict(module, datamodule=data())
    torch.save({**after, "predicted": predicted}, Path(folder) / "main.pt")
