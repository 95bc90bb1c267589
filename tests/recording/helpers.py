"""Tiny experts, recorded through Lightning."""

from __future__ import annotations

from functools import partial

import torch

from lit_condense.recording import ExpertTrajectories
from tests.helpers import TinyData, quiet_trainer, tiny_convnet

SGD = partial(torch.optim.SGD, lr=0.05)


def recorded(folder, max_steps=-1, data=None, trainer=None, **settings):
    """Record experts of TinyData into a folder, or go on with them; return the module."""
    defaults = {"network": tiny_convnet(), "experts": 3, "epochs": 4, "batch_size": 16, "optimizer": SGD, "seed": 3}
    module = ExpertTrajectories(**{**defaults, **settings})
    running = quiet_trainer(max_steps=max_steps, default_root_dir=str(folder), max_epochs=-1, **(trainer or {}))
    running.fit(module, datamodule=data or TinyData())
    return module


def contents(folder):
    """The bytes of every expert's file by its name, and what else lies in the folder."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}
    return files, sorted(path.name for path in folder.iterdir() if path.name not in files)
