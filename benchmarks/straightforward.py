"""The straightforward loop: DC as its published program does it, the yardstick of every speed-up.

Eager float32, one class at a time in Python, the losses of all classes summed before one backward pass that also forms
the weight gradients nobody reads. Written from the definitions (Zhao et al., ICLR 2021); it shares no code with the
engine.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def row_cosine(real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...]) -> Tensor:
    total = torch.zeros(())
    for a, b in zip(real, synthetic, strict=True):
        if a.ndim < 2:
            continue
        a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def match(
    network: nn.Module,
    images: Tensor,
    optimizer: torch.optim.Optimizer,
    real_batches: list[Tensor],
    ipc: int,
) -> float:
    """One image update: ``real_batches[c]`` are the normalised real images of class ``c``."""
    parameters = list(network.parameters())
    loss = torch.zeros(())
    for c, real in enumerate(real_batches):
        real_loss = F.cross_entropy(network(real), torch.full((len(real),), c))
        real_gradient = tuple(g.detach().clone() for g in torch.autograd.grad(real_loss, parameters))
        labels = torch.full((ipc,), c)
        synthetic_loss = F.cross_entropy(network(images[c * ipc : (c + 1) * ipc]), labels)
        synthetic_gradient = torch.autograd.grad(synthetic_loss, parameters, create_graph=True)
        loss = loss + row_cosine(real_gradient, synthetic_gradient)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss)


def train(network: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Train the network on the synthetic set: shuffled batches of at most 256."""
    images = images.detach().clone()
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(labels)), 256):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
