"""The reference loops: DC, IDC and an evaluation as published programs do them, the yardstick of every speed-up.

Eager float32, one class at a time in Python, a backward pass that also forms the weight gradients nobody reads, one
network after the other. Written from the definitions (Zhao et al., ICLR 2021; Kim et al., ICML 2022); they share no
code with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


def row_cosine(real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...]) -> Tensor:
    total = torch.zeros((), device=real[0].device)
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
    loss = torch.zeros((), device=images.device)
    for c, real in enumerate(real_batches):
        real_loss = F.cross_entropy(network(real), torch.full((len(real),), c, device=images.device))
        real_gradient = tuple(g.detach().clone() for g in torch.autograd.grad(real_loss, parameters))
        labels = torch.full((ipc,), c, device=images.device)
        synthetic_loss = F.cross_entropy(network(images[c * ipc : (c + 1) * ipc]), labels)
        synthetic_gradient = torch.autograd.grad(synthetic_loss, parameters, create_graph=True)
        loss = loss + row_cosine(real_gradient, synthetic_gradient)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def match_idc(
    network: nn.Module,
    images: Tensor,
    optimizer: torch.optim.Optimizer,
    real_batches: list[Tensor],
    ipc: int,
    decode: Callable[[Tensor], Tensor],
    augment: Callable[[Tensor, int], Tensor],
) -> float:
    """One image update of IDC: a step a class on the squared distance of the gradients of convolutions.

    Args:
        network: The inner network.
        images: ``(classes * ipc, C, H, W)``, class-major.
        optimizer: Of the images.
        real_batches: The normalised real images of each class.
        ipc: Stored images of each class.
        decode: From stored to normalised images.
        augment: One draw for a whole batch, named by the class.
    """
    parameters = list(network.parameters())
    total = 0.0
    for c, real in enumerate(real_batches):
        decoded = decode(images[c * ipc : (c + 1) * ipc])
        both = augment(torch.cat([real, decoded]), c)
        real_loss = F.cross_entropy(network(both[: len(real)]), torch.full((len(real),), c, device=images.device))
        real_gradient = tuple(g.detach().clone() for g in torch.autograd.grad(real_loss, parameters))
        labels = torch.full((len(decoded),), c, device=images.device)
        synthetic_loss = F.cross_entropy(network(both[len(real) :]), labels)
        synthetic_gradient = torch.autograd.grad(synthetic_loss, parameters, create_graph=True)
        pairs = zip(real_gradient, synthetic_gradient, strict=True)
        loss = torch.stack([(a - b).square().sum() for a, b in pairs if a.ndim == 4]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach().item()
    return total


def train_on_real(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> None:
    """Train the network on augmented, mixed real batches with soft labels."""
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()


def train(network: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Train the network on the synthetic set: shuffled batches of at most 256."""
    images = images.detach().clone()
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(labels), device=labels.device), 256):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()


def evaluate(
    network: nn.Module, images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor, epochs: int
) -> float:
    """Train one network by protocol ``dc`` without augmentation and return its accuracy on the test images."""
    criterion, lr = nn.CrossEntropyLoss(), 0.01
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=0.0005)
    training = DataLoader(TensorDataset(images, labels), batch_size=256, shuffle=True, num_workers=0)
    testing = DataLoader(TensorDataset(test_images, test_labels), batch_size=256, shuffle=False, num_workers=0)
    for epoch in range(epochs + 1):
        _pass(network, training, criterion, optimizer)
        if epoch == epochs // 2 + 1:
            lr *= 0.1
            optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=0.0005)
    network.eval()
    return _pass(network, testing, criterion, None)


def _pass(
    network: nn.Module,
    loader: DataLoader[tuple[Tensor, ...]],
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer | None,
) -> float:
    """One pass over a loader; counts loss and accuracy of every batch, as the published program does."""
    seen, right, total = 0, 0, 0.0
    device = next(network.parameters()).device
    for batch in loader:
        images, labels = (part.to(device) for part in batch)
        logits = network(images)
        loss = criterion(logits, labels)
        total += loss.detach().item() * len(labels)
        right += int((logits.detach().cpu().numpy().argmax(1) == labels.cpu().numpy()).sum())
        seen += len(labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return right / seen
