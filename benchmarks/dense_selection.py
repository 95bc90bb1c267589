"""Selections written out directly: gradients and pairs held in full, every gain computed anew in every round.

Float32, one class, from the definitions alone; the yardstick of the shipped selections, with which they share no code.

Letters: n candidates, d features, K classes, D = K (d + 1) entries of a last-layer gradient, k images to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.selection.methods.adacore import DEFAULT_DAMPING
from lit_condense.selection.methods.cal import NEIGHBOURS
from lit_condense.selection.methods.glister import DEFAULT_STEP
from lit_condense.selection.methods.grad_match import DEFAULT_REGULARIZATION
from lit_condense.selection.methods.lcmat import DEFAULT_COORDINATES, DEFAULT_RHO

GLISTER_STEP = 0.1 * DEFAULT_STEP / 128
"""In units of learning rate over batch size of the proxy model's training."""


@dataclass(frozen=True)
class Shown:
    """What a method is shown of one class."""

    features: Tensor
    """``(n, d)``."""
    logits: Tensor
    """``(n, K)``."""
    labels: Tensor
    """``(n,)``."""
    count: int
    """k."""
    first: int
    """The image that k-centre starts from."""


@dataclass(frozen=True)
class Dense:
    """A method and the most large float32 matrices of each shape that it holds at once."""

    choose: Callable[[Shown], list[int]]
    gradients: int
    """Of shape ``(n, D)``, copies that PyTorch makes included."""
    pairs: int
    """Of shape ``(n, n)``."""

    def gib(self, n: int, entries: int) -> float:
        """Return what those matrices take at most; not all exist at the same moment."""
        return 4 * n * (self.gradients * entries + self.pairs * n) / 2**30


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Return ``[a, vec(a b^T)]`` of every sample, ``(n, D)``."""
    return torch.cat([left, (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1)], dim=1)


def gradients(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    return outer(logits.softmax(1) - F.one_hot(labels, logits.shape[1]), features)


def best_of(scores: Tensor, chosen: list[int]) -> int:
    scores[chosen] = -torch.inf
    return int(scores.argmax())


def covering(similarity: Tensor, count: int) -> list[int]:
    """Maximise ``sum_i max_{j in S} s_ij``."""
    covered = torch.zeros(len(similarity))
    chosen: list[int] = []
    for _ in range(count):
        gains = (similarity - covered).clamp(min=0).sum(1)
        chosen.append(best_of(gains, chosen))
        covered = torch.maximum(covered, similarity[chosen[-1]])
    return chosen


def near_all(distances: Tensor, count: int) -> list[int]:
    return covering(distances.max() - distances, count)


def k_center(shown: Shown) -> list[int]:
    distances = torch.cdist(shown.features, shown.features)
    chosen = [shown.first]
    while len(chosen) < shown.count:
        chosen.append(best_of(distances[:, chosen].amin(1), chosen))
    return chosen


def herding(shown: Shown) -> list[int]:
    mean = shown.features.mean(0)
    chosen: list[int] = []
    for size in range(1, shown.count + 1):
        wanted = size * mean - shown.features[chosen].sum(0)
        chosen.append(best_of(-(shown.features - wanted).norm(dim=1), chosen))
    return chosen


def cal(shown: Shown) -> list[int]:
    distances = torch.cdist(shown.features, shown.features).fill_diagonal_(torch.inf)
    near = distances.topk(min(NEIGHBOURS, len(distances) - 1), largest=False).indices
    log_p = shown.logits.log_softmax(1)
    p = log_p.exp()
    divergence = (p * log_p).sum(1, keepdim=True) - p @ log_p.T
    divergence = (divergence + divergence.T) / 2
    chosen: list[int] = divergence.gather(1, near).mean(1).topk(shown.count).indices.tolist()
    return chosen


def craig(shown: Shown) -> list[int]:
    g = gradients(shown.features, shown.logits, shown.labels)
    return near_all(torch.cdist(g, g), shown.count)


def adacore(shown: Shown) -> list[int]:
    """On ``g / h``, damped as the shipped one documents it."""
    p, own = shown.logits.softmax(1), F.one_hot(shown.labels, shown.logits.shape[1]).bool()
    left = torch.where(own, -1 / p.clamp(min=DEFAULT_DAMPING), 1 / (1 - p).clamp(min=DEFAULT_DAMPING))
    squares = shown.features.square()
    quotient = outer(left, shown.features / (squares + DEFAULT_DAMPING * squares.mean()))
    quotient -= quotient.mean(0)  # what all have in common would leave float32 few digits of the distances
    return near_all(torch.cdist(quotient, quotient), shown.count)


def lcmat(shown: Shown) -> list[int]:
    p = shown.logits.softmax(1)
    hessian = outer(p * (1 - p), shown.features.square())
    count = min(DEFAULT_COORDINATES, hessian.shape[1])
    widest = hessian[:, hessian.var(0, unbiased=False).topk(count).indices]
    del hessian
    g = gradients(shown.features, shown.logits, shown.labels)
    return near_all(torch.cdist(g, g) + DEFAULT_RHO / 2 * torch.cdist(widest, widest, p=1), shown.count)


def cosine_kernel(shown: Shown) -> Tensor:
    unit = F.normalize(gradients(shown.features, shown.logits, shown.labels), eps=0)
    return ((1 + unit @ unit.T) / 2).fill_diagonal_(1)


def facility_location(shown: Shown) -> list[int]:
    return covering(cosine_kernel(shown), shown.count)


def graph_cut(shown: Shown) -> list[int]:
    kernel = cosine_kernel(shown)
    chosen: list[int] = []
    for _ in range(shown.count):
        chosen.append(best_of(kernel.sum(1) - 2 * kernel[:, chosen].sum(1), chosen))
    return chosen


def log_determinant(shown: Shown) -> list[int]:
    kernel = cosine_kernel(shown)
    chosen: list[int] = []
    for _ in range(shown.count):
        to_chosen = kernel[:, chosen].double()  # the inverse of similar images loses what float32 has
        explained = torch.linalg.solve(to_chosen[chosen], to_chosen.T) if chosen else to_chosen.T
        chosen.append(best_of(kernel.diagonal() - (to_chosen * explained.T).sum(1), chosen))
    return chosen


def grad_match(shown: Shown) -> list[int]:
    g = gradients(shown.features, shown.logits, shown.labels)
    target = residual = g.mean(0)
    chosen: list[int] = []
    for _ in range(shown.count):
        chosen.append(best_of(g @ residual, chosen))
        picked = g[chosen]
        system = picked @ picked.T + DEFAULT_REGULARIZATION * torch.eye(len(chosen))
        residual = target - torch.linalg.solve(system, picked @ target) @ picked
    return chosen


def glister(shown: Shown) -> list[int]:
    features, logits, labels = shown.features, shown.logits, shown.labels
    g = gradients(features, logits, labels)
    validation = g.mean(0)
    chosen: list[int] = []
    for _ in range(shown.count):
        chosen.append(best_of(g @ validation, chosen))
        step = g[chosen].mean(0)
        bias, weight = step[: logits.shape[1]], step[logits.shape[1] :].view(logits.shape[1], -1)
        moved = logits - GLISTER_STEP * (bias + features @ weight.T)
        validation = gradients(features, moved, labels).mean(0)
    return chosen


DENSE: dict[str, Dense] = {
    "k_center_greedy": Dense(k_center, 0, 2),
    "herding": Dense(herding, 0, 0),
    "cal": Dense(cal, 0, 4),
    "craig": Dense(craig, 3, 4),
    "adacore": Dense(adacore, 3, 4),
    "lcmat_s": Dense(lcmat, 3, 4),
    "facility_location": Dense(facility_location, 2, 3),
    "graph_cut": Dense(graph_cut, 2, 2),
    "log_determinant": Dense(log_determinant, 2, 2),
    "grad_match": Dense(grad_match, 2, 0),
    "glister": Dense(glister, 3, 0),
}
