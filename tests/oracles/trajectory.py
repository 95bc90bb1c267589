"""Trajectory matching written out: one step, one parameter tensor at a time, float64, nothing shared with the package.

*Weights* are a dict from names to tensors; ``forward(weights, images)`` gives logits. A *batch* is a pair (images,
labels) that may carry a graph back to *leaves*: stored images, label logits. Labels are class indices or, where they
are floating point, probabilities. Sources: Cazenavette et al., CVPR 2022 (MTT); Du et al., CVPR 2023 (FTD); Cui et al.,
ICML 2023 (TESLA); Guo et al., ICLR 2024 (DATM); Zhuang et al., ICLR 2022 (GSAM).
"""

from __future__ import annotations

import torch

from tests.oracles.dc import cross_entropy, sum_of

# ------------------------------------------------------------------ the student


def soft_cross_entropy(logits, targets):
    """The mean over a batch of minus the log-probabilities, weighted by the target probabilities."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        for logit, probability in zip(row, target, strict=True):
            total = total - probability * (logit - row.logsumexp(0))
    return total / len(logits)


def batch_loss(logits, labels):
    return soft_cross_entropy(logits, labels) if labels.is_floating_point() else cross_entropy(logits, labels)


def weight_gradient(forward, weights, images, labels):
    """The gradient of a batch's loss in each weight, with its graph; 0 in a weight that the loss does not depend on."""
    loss = batch_loss(forward(weights, images), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
    return dict(zip(weights, gradients, strict=True))


def fresh(weights):
    """Copies that depend on nothing."""
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.items()}


def student(forward, start, batches, step_size):
    """Return the weights [th_0, .., th_N] of plain gradient descent, one step a batch; each with its graph."""
    path = [fresh(start)]
    for images, labels in batches:
        weights = path[-1]
        gradient = weight_gradient(forward, weights, images, labels)
        path.append({name: weights[name] - step_size * gradient[name] for name in weights})
    return path


def inner_product(a, b):
    """Over all parameters of two dicts."""
    assert a.keys() == b.keys()
    return sum_of((a[name] * b[name]).sum() for name in a)


def difference(a, b):
    assert a.keys() == b.keys()
    return {name: a[name] - b[name] for name in a}


def normalised_distance(reached, start, target):
    """The squared distance left to go, in units of the expert's own."""
    left, whole = difference(reached, target), difference(start, target)
    return inner_product(left, left) / inner_product(whole, whole)


# ------------------------------------------------------------------ its gradients: through all steps


def step_size_leaf(step_size):
    return torch.tensor(float(step_size), dtype=torch.float64, requires_grad=True)


def gradients_in(value, leaves):
    """Keep the graph for another call; a leaf that took no part has gradient 0."""
    return list(torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True))


def full(forward, start, target, batches, step_size, leaves):
    """MTT: return the loss, its gradients in the leaves and that in the step size."""
    alpha = step_size_leaf(step_size)
    loss = normalised_distance(student(forward, start, batches, alpha)[-1], start, target)
    *gradients, slope = gradients_in(loss, [*leaves, alpha])
    return float(loss.detach()), gradients, float(slope)


# ------------------------------------------------------------------ its gradients: step by step


def student_points(forward, start, batches, step_size):
    """The weights th_0, .., th_{N-1} at which the student takes its gradients, as constants."""
    return [fresh(weights) for weights in student(forward, start, batches, float(step_size))[:-1]]


def step_gradients(forward, points, batches):
    """g_0, .., g_{N-1}: the gradient of each batch at its point, with its graph back to the batch."""
    return [weight_gradient(forward, point, *batch) for point, batch in zip(points, batches, strict=True)]


def total_gradient(start, gradients):
    """G, the sum over steps."""
    total = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    for gradient in gradients:
        total = {name: total[name] + gradient[name] for name in total}
    return total


def frozen_loss(start, target, gradients, step_size):
    """The loss as a function of the gradients, and of the step size, as though they were free of each other."""
    total = total_gradient(start, gradients)
    return normalised_distance({name: start[name] - step_size * total[name] for name in start}, start, target)


def constant_memory(forward, start, target, batches, step_size, leaves):
    """TESLA, exact for constant th_i: return the loss, its gradients in the leaves and that in the step size.

    One step at a time, (2 / D) d/dX [v . g_i(X; th_i)] with v = alpha (target - start) + alpha^2 G constant.
    """
    alpha = float(step_size)
    start, target = ({name: tensor.detach() for name, tensor in weights.items()} for weights in (start, target))
    points = student_points(forward, start, batches, alpha)
    constants = [{name: g.detach() for name, g in of.items()} for of in step_gradients(forward, points, batches)]
    total = total_gradient(start, constants)
    whole = difference(target, start)
    distance = inner_product(whole, whole)
    v = {name: alpha * whole[name] + alpha**2 * total[name] for name in whole}
    result = [torch.zeros_like(leaf) for leaf in leaves]
    for point, (images, labels) in zip(points, batches, strict=True):
        product = inner_product(v, weight_gradient(forward, point, images, labels))
        parts = gradients_in(product, leaves)
        result = [sum_so_far + 2 / distance * part for sum_so_far, part in zip(result, parts, strict=True)]
    left = {name: start[name] - alpha * total[name] - target[name] for name in start}
    slope = -2 / distance * inner_product(left, total)
    loss = inner_product(left, left) / distance
    return float(loss), result, float(slope)


def constant_memory_by_autograd(forward, start, target, batches, step_size, leaves):
    """The same quantities by autograd, on |th_0 - alpha sum_i g_i(X; constant th_i) - target|^2 / D as one function."""
    gradients = step_gradients(forward, student_points(forward, start, batches, step_size), batches)
    alpha = step_size_leaf(step_size)
    loss = frozen_loss(start, target, gradients, alpha)
    in_leaves = gradients_in(loss, leaves)
    frozen = [{name: tensor.detach() for name, tensor in gradient.items()} for gradient in gradients]
    (slope,) = gradients_in(frozen_loss(start, target, frozen, alpha), [alpha])
    return float(loss.detach()), in_leaves, float(slope)


# ------------------------------------------------------------------ flat experts


def norm(tensors):
    """The Euclidean norm over all entries of all tensors together."""
    return float(sum_of((tensor * tensor).sum() for tensor in tensors)) ** 0.5


def gsam_perturbation(parameters, gradient, rho):
    """The element-wise adaptive step uphill."""
    scaled = [w.abs() * g for w, g in zip(parameters, gradient, strict=True)]
    return [rho * w * w * g / (norm(scaled) + 1e-12) for w, g in zip(parameters, gradient, strict=True)]


def gsam_step(parameters, gradient_of, lr, rho, alpha):
    """Return the parameters after one step; ``gradient_of`` gives one batch's gradients at a list of them."""
    g = gradient_of(parameters)
    uphill = gsam_perturbation(parameters, g, rho)
    g_p = gradient_of([w + e for w, e in zip(parameters, uphill, strict=True)])
    length, length_p = norm(g), norm(g_p)
    cosine = float(sum_of((a * b).sum() for a, b in zip(g, g_p, strict=True))) / (length * length_p + 1e-12)
    result = []
    for w, a, b in zip(parameters, g, g_p, strict=True):
        perpendicular = a - cosine * length * b / (length_p + 1e-12)
        result.append(w - lr * (b - alpha * perpendicular))
    return result


# ------------------------------------------------------------------ bookkeeping


def upper_start_epoch(update, first, last, expansion):
    """DATM: the upper end, itself excluded, of the start epochs at an update; it grows from ``first`` to ``last``.

    ``expansion`` is the number of updates that this takes.
    """
    assert first <= last
    end = first
    while end < last and (end + 1 - first) * expansion <= (last - first) * update:
        end += 1
    return end


def chunks(permutation, size):
    """MTT's mini-batches of one pass, in order of use: cut from the front, used from the end, a shorter one first."""
    cut = []
    for index in permutation:
        if not cut or len(cut[-1]) == size:
            cut.append([])
        cut[-1].append(index)
    used = []
    while cut:
        used.append(cut.pop())
    return used


def exponential_average(start, images_after_each_update, decay):
    """FTD: return the averages before the first update and after each one; no bias correction."""
    averages = [start]
    for images in images_after_each_update:
        averages.append(decay * averages[-1] + (1 - decay) * images)
    return averages
