"""The reference loops: DC, IDC, MTT, TESLA and an evaluation as published programs do them, the yardstick of speed-ups.

Eager float32, one class at a time in Python, a backward pass that also forms the weight gradients nobody reads, one
network after the other. Written from the definitions (Zhao et al., ICLR 2021; Kim et al., ICML 2022; Cazenavette et
al., CVPR 2022; Cui et al., ICML 2023); they share no code with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Segment:
    """What an update of trajectory matching starts from: a part of an expert's training, and the set."""

    network: nn.Module
    start: dict[str, Tensor]
    target: dict[str, Tensor]
    """Weights of the expert by name, and those that it reached later."""
    images: Tensor
    labels: Tensor
    step_size: Tensor
    batches: Sequence[Tensor]
    """For each step which images it sees."""
    augment: Callable[[Tensor, int], Tensor]
    """Of the images of a step, whose number names the draw."""

    def loss(self, weights: Sequence[Tensor], seen: Tensor, step: int) -> Tensor:
        logits = torch.func.functional_call(self.network, dict(zip(self.start, weights, strict=True)), (seen,))
        return F.cross_entropy(logits, self.labels[self.batches[step]])

    def squared_distance(self, weights: Sequence[Tensor]) -> Tensor:
        pairs = zip(weights, self.target.values(), strict=True)
        return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()


@dataclass(frozen=True)
class Matched:
    """The loss of such an update, and its gradients in the images and in the step size."""

    value: float
    images: Tensor
    step_size: Tensor


def match_mtt(segment: Segment) -> Matched:
    """MTT: a graph of all steps, and one derivative of it."""
    images, step_size = (x.detach().clone().requires_grad_() for x in (segment.images, segment.step_size))
    weights = [w.detach().clone().requires_grad_() for w in segment.start.values()]
    for step, chosen in enumerate(segment.batches):
        loss = segment.loss(weights, segment.augment(images[chosen], step), step)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [w - step_size * g for w, g in zip(weights, gradients, strict=True)]
    value = segment.squared_distance(weights) / segment.squared_distance(list(segment.start.values()))
    in_images, in_step_size = torch.autograd.grad(value, [images, step_size])
    return Matched(value.item(), in_images, in_step_size)


def match_tesla(segment: Segment) -> Matched:
    """TESLA: the steps without a graph between them, then the derivative of each at the weights that it started from.

    ``(2 / D) d/dx <v, g>`` with ``v = a (target - start) + a^2 G``, a the step size and G the sum of the gradients g;
    the published program loses the factor 2.
    """
    a, start, target = segment.step_size, list(segment.start.values()), list(segment.target.values())
    weights, total, kept = start, [torch.zeros_like(w) for w in start], []
    for step, chosen in enumerate(segment.batches):
        leaf = segment.images[chosen].detach().requires_grad_()
        seen = segment.augment(leaf, step)
        here = [w.detach().requires_grad_() for w in weights]
        gradients = torch.autograd.grad(segment.loss(here, seen.detach(), step), here)
        kept.append((chosen, leaf, seen, here))
        total = [t + g for t, g in zip(total, gradients, strict=True)]
        weights = [w - a * g for w, g in zip(here, gradients, strict=True)]
    weights = [w.detach() for w in weights]
    whole = segment.squared_distance(start)
    v = [a * (t - s) + a * a * g for s, t, g in zip(start, target, total, strict=True)]
    in_images = torch.zeros_like(segment.images)
    for step, (chosen, leaf, seen, here) in enumerate(kept):
        gradients = torch.autograd.grad(segment.loss(here, seen, step), here, create_graph=True)
        product = torch.stack([(x * g).sum() for x, g in zip(v, gradients, strict=True)]).sum()
        in_images[chosen] += 2 / whole * torch.autograd.grad(product, leaf)[0]
    left = [(w - t) * g for w, t, g in zip(weights, target, total, strict=True)]
    in_step_size = -2 / whole * torch.stack([x.sum() for x in left]).sum()
    return Matched((segment.squared_distance(weights) / whole).item(), in_images, in_step_size)


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
