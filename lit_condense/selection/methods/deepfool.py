"""Distances to the decision boundary, by DeepFool.

Letters: n candidates, b images at once, K classes; f the logits, k0 the class predicted for the image as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_condense.data.batching import batches
from lit_condense.errors import check_least
from lit_condense.selection.base import Candidates
from lit_condense.selection.scored import ScoreSelection

ITERATIONS = 50
"""Moosavi-Dezfooli et al., CVPR 2016."""


class DeepFool(ScoreSelection):
    """Nearest to a decision boundary: smallest squared norm of the perturbation that changes the predicted class.

    The perturbation is a sum of steps to the nearest of the linearised boundaries, ``|f_k - f_k0| / |w_k|`` away with
    ``w_k = grad f_k - grad f_k0``; without overshoot, in the normalised pixels that the network sees.
    Sources: Ducoffe and Precioso, *Adversarial Active Learning for Deep Networks*, 2018; Moosavi-Dezfooli et al.,
    *DeepFool*, CVPR 2016, algorithm 2.

    Args:
        iterations: Most steps for an image; one that has not changed its class by then counts with what it has.
        chunk: Images that go through the network at once. A step takes K backward passes, one after the other.
    """

    tag = "deepfool"

    def __init__(self, iterations: int = ITERATIONS, chunk: int = 100) -> None:
        check_least("DeepFool", 1, iterations=iterations, chunk=chunk)
        self.iterations = iterations
        self.chunk = chunk

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the squared norms, negated."""
        network = candidates.view.network
        # a selection may run inside Lightning's inference mode
        with torch.inference_mode(False), torch.enable_grad():
            parts = batches(candidates.indices, self.chunk)
            return -torch.cat([_squared_norms(network, candidates.real.at(part), self.iterations) for part in parts])


def _squared_norms(network: nn.Module, images: Tensor, iterations: int) -> Tensor:
    """Return the squared norm of the perturbation of each image, ``(b,)`` float64."""
    current = images.to(next(network.parameters(), images).dtype)
    predicted = _predict(network, current)
    total = torch.zeros_like(current)
    running = torch.arange(len(current), device=current.device)
    for _ in range(iterations):
        before, classes = current[running], predicted[running]
        step = _step(network, before, classes)
        after = before + step
        total[running] += step
        current[running] = after
        # on the boundary a step can be too small to move the image: then nothing would change any more
        moved = (after != before).flatten(1).any(1)
        running = running[moved & (_predict(network, after) == classes)]
        if not len(running):
            break
    return total.flatten(1).double().square().sum(1)


def _predict(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(images)
    return logits.argmax(1)


def _step(network: nn.Module, images: Tensor, predicted: Tensor) -> Tensor:
    """Return each image's step to its nearest linearised boundary, like ``images``; infinite where there is none."""
    images = images.detach().requires_grad_()
    logits = network(images)
    gaps = logits.gather(1, predicted.unsqueeze(1)) - logits
    nearest = torch.full_like(gaps[:, 0], torch.inf)
    step = torch.full_like(images, torch.inf)
    for k in range(gaps.shape[1]):
        # one class at a time: only the best step so far is kept, not K gradients
        (gradient,) = torch.autograd.grad(gaps[:, k].sum(), images, retain_graph=True)
        norm = gradient.flatten(1).norm(dim=1)
        distance = (gaps[:, k].detach().abs() / norm).masked_fill(predicted == k, torch.inf)
        nearer = distance < nearest
        nearest = torch.where(nearer, distance, nearest)
        shape = (-1, *(1,) * (images.ndim - 1))
        to_boundary = gradient / norm.view(shape) * -distance.view(shape)
        step = torch.where(nearer.view(shape), to_boundary, step)
    return step.detach()
