"""Tiny experts, recorded through Lightning."""

from __future__ import annotations

from functools import partial

import torch

from lit_condense.experts.description import describe
from lit_condense.experts.file import Layout
from lit_condense.networks import build_network
from lit_condense.recording import ExpertTrajectories
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, quiet_trainer, tiny_convnet

SGD = partial(torch.optim.SGD, lr=0.05)


def recorded(place, max_steps=-1, data=None, trainer=None, **settings):
    """Record experts of TinyData into a folder, or go on with them; return the module."""
    defaults = {"network": tiny_convnet(), "experts": 3, "epochs": 4, "batch_size": 16, "optimizer": SGD, "seed": 3}
    module = ExpertTrajectories(**{**defaults, **settings})
    running = quiet_trainer(max_steps=max_steps, default_root_dir=str(place), max_epochs=-1, **(trainer or {}))
    running.fit(module, datamodule=data or TinyData())
    return module


def contents(folder):
    """The bytes of every expert's file by its name, and what else lies in the folder."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}
    return files, sorted(path.name for path in folder.iterdir() if path.name not in files)


def written(folder, data, network=None, experts=2, epochs=4):
    """Write experts that were never trained: weights that drift, the same wherever they are made."""
    network = network or tiny_convnet()
    channels, *size = data.image_shape
    for expert in range(experts):
        key = RandomKey(5, ("expert", expert))
        net = build_network(network, channels, tuple(size), data.num_classes, key)
        weights = torch.cat([p.detach().flatten() for p in net.parameters()])
        layout = Layout(epochs, len(weights), "float32")
        rows = [weights + 0.02 * e * torch.randn(len(weights), generator=key.generator()) for e in range(epochs + 1)]
        content = layout.header({"expert": expert, "made_with": describe(data.real, network)})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"expert_{expert:04d}.safetensors").write_bytes(content + b"".join(map(layout.row, rows)))
    return str(folder)
