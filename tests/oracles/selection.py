"""Gradient-based selections from their definitions, on explicit ``n x D`` matrices in float64; nothing is shared."""

from __future__ import annotations

import itertools

import torch


def gradients(features, logits, labels):
    """One row ``[e, vec(e z^T)]`` a sample."""
    rows = []
    for z, o, y in zip(features.double(), logits.double(), labels.tolist(), strict=True):
        e = o.softmax(0)
        e[y] -= 1
        rows.append(torch.cat([e, torch.outer(e, z).flatten()]))
    return torch.stack(rows)


def hessian_diagonals(features, logits):
    """One row ``[p (1 - p), vec(p (1 - p) (z z)^T)]`` a sample."""
    rows = []
    for z, o in zip(features.double(), logits.double(), strict=True):
        p = o.softmax(0)
        q = p * (1 - p)
        rows.append(torch.cat([q, torch.outer(q, z * z).flatten()]))
    return torch.stack(rows)


def distances(rows, norm=2):
    return torch.stack([torch.stack([(a - b).norm(p=norm) for b in rows]) for a in rows])


def widest(rows, count):
    return sorted(range(rows.shape[1]), key=lambda k: -float(rows[:, k].var(unbiased=False)))[:count]


def cosine_kernel(rows):
    unit = [row / row.norm() if row.norm() > 0 else row for row in rows]
    return torch.stack([torch.stack([0.5 + 0.5 * (a @ b) for b in unit]) for a in unit])


def facility_location(similarity):
    """``sum_i max(0, max_j s_ij)``."""
    return lambda chosen: float(similarity[:, chosen].amax(1).clamp(min=0).sum()) if chosen else 0.0


def graph_cut(similarity, coverage):
    def value(chosen):
        within = sum(float(similarity[a, b]) for a in chosen for b in chosen if a != b)
        return coverage * float(similarity[:, chosen].sum()) - within

    return value


def log_determinant(kernel):
    return lambda chosen: float(torch.logdet(kernel[chosen][:, chosen])) if chosen else 0.0


def uncovered(distance):
    """``-sum_i min_j D_ij``: its greedy maximiser starts from nothing, so the empty set counts as the largest D."""
    return lambda chosen: (
        -float((distance[:, chosen].amin(1) if chosen else distance.amax().expand(len(distance))).sum())
    )


def greedy(value, n, count):
    """Add what raises the value most; the lowest index among equals."""
    chosen = []
    for _ in range(count):
        chosen.append(max((j for j in range(n) if j not in chosen), key=lambda j: (value([*chosen, j]), -j)))
    return chosen


def shortfall(value, n, chosen):
    """How much more than the chosen candidate another one would have raised the value, at most.

    0 up to rounding for a right choice: two candidates that cover each other and nothing else are equally good.
    """
    worst = 0.0
    for number, index in enumerate(chosen):
        before = list(chosen[:number])
        reached = [value([*before, j]) for j in range(n) if j not in before]
        worst = max(worst, max(reached) - value([*before, index]))
    return worst


def best_value(value, n, count):
    return max(value(list(subset)) for subset in itertools.combinations(range(n), count))


def most_redundant(kernel, count):
    """DeepCore's log-determinant: index 0, then the largest ``s_jA pinv(S_A) s_Aj``."""
    chosen = [0]
    while len(chosen) < count:
        inverse = torch.linalg.pinv(kernel[chosen][:, chosen])
        free = [j for j in range(len(kernel)) if j not in chosen]
        chosen.append(max(free, key=lambda j: float(kernel[j, chosen] @ inverse @ kernel[chosen, j])))
    return chosen


def cluster_sizes(distance, chosen):
    sizes = [0] * len(chosen)
    for i in range(len(distance)):
        sizes[min(range(len(chosen)), key=lambda c: float(distance[i, chosen[c]]))] += 1
    return sizes


def program_scale(n, batch=128):
    """One over the size of each sample's batch, for a loader that walks through n samples in order."""
    return torch.tensor([1 / min(batch, n - i // batch * batch) for i in range(n)], dtype=torch.float64)


def program_quotient_distances(features, logits, labels):
    """LCMat's AdaCore: ``g * (1 / h)`` in float32, distances by the squares, and 0 for what is not a number."""
    g, h = gradients(features, logits, labels).float(), hessian_diagonals(features, logits).float()
    q = g * h.reciprocal()
    squares = q.square().sum(1)
    found = (squares[:, None] + squares[None] - 2 * q @ q.T).sqrt()
    return torch.where(found.isnan(), 0, found).double()


def matching_pursuit(rows, target, count, regularization, plain_start=False):
    chosen, residual = [], target
    while len(chosen) < count:
        free = [j for j in range(len(rows)) if j not in chosen]
        chosen.append(max(free, key=lambda j: float(rows[j] @ residual)))
        a = rows[chosen]
        held = 0.0 if plain_start and len(chosen) == 1 else regularization
        system = a @ a.T + held * torch.eye(len(chosen), dtype=rows.dtype)
        residual = target - a.T @ torch.linalg.solve(system, a @ target)
    return chosen


def non_negative_least_squares(system, products):
    """The best of all supports."""
    best, lowest = torch.zeros_like(products), 0.0
    for size in range(1, len(products) + 1):
        for support in itertools.combinations(range(len(products)), size):
            index = list(support)
            x = torch.zeros_like(products)
            x[index] = torch.linalg.solve(system[index][:, index], products[index])
            cost = float(x @ system @ x - 2 * x @ products)
            if (x >= 0).all() and cost < lowest:
                best, lowest = x, cost
    return best


def glister(features, weight, bias, labels, count, lr, update=True, among=None, scale=None):
    """Steps of an explicit last layer along the mean gradient of the chosen; validation gradients by autograd.

    The choice is ``among`` some of the samples and given by positions there; ``scale`` multiplies each one's loss.
    """
    features, weight, bias = features.double(), weight.double(), bias.double()
    scale = torch.ones(len(labels)).double() if scale is None else scale
    rows = gradients(features, features @ weight.T + bias, labels) * scale[:, None]
    rows = rows if among is None else rows[among]
    chosen = []
    while len(chosen) < count:
        step = rows[chosen].mean(0) if chosen and update else torch.zeros_like(rows[0])
        layer = (torch.cat([bias, weight.flatten()]) - lr * step).requires_grad_()
        moved = features @ layer[len(bias) :].view(weight.shape).T + layer[: len(bias)]
        loss = (scale * torch.nn.functional.cross_entropy(moved, labels, reduction="none")).mean()
        (validation,) = torch.autograd.grad(loss, layer)
        free = [j for j in range(len(rows)) if j not in chosen]
        chosen.append(max(free, key=lambda j: float(rows[j] @ validation)))
    return chosen
