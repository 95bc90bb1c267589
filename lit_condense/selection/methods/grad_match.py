"""GRAD-MATCH (Killamsetty et al., *Gradient Matching based Data Subset Selection*, ICML 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_condense.errors import SettingsError, check_choice
from lit_condense.functional.last_layer_geometry import OuterProducts, gradient_products
from lit_condense.selection.base import Candidates, Choice
from lit_condense.selection.candidates import Variant, require_finite
from lit_condense.selection.gradients import GradientSelection
from lit_condense.selection.program import program_scales

DEFAULT_REGULARIZATION = 1.0
"""DeepCore's lambda."""


class GradMatch(GradientSelection):
    """Images whose weighted last-layer gradients match the mean gradient, found by orthogonal matching pursuit.

    Minimises ``|sum_{i in S} w_i g_i - b|^2 + regularization * |w|^2`` over ``|S| <= k`` and ``w >= 0``, b the mean
    gradient of the candidates: adds the image with the largest inner product ``g_i . r`` with the residual r (signed,
    as weights are non-negative), solves for the weights of all chosen ones, and in the end again with ``w >= 0``.
    Always k images are kept: those that the last solution leaves out have weight 0. All have where b is 0.

    Args:
        regularization: lambda, above 0, in the square of a gradient's unit.
        variant: ``deepcore`` takes gradients of a loss that is averaged over a batch of 128, beside which the same
            regularization is 128^2 times as strong (and those of the last, smaller batch are larger); it leaves the
            regularization out of the residual after the first pick, and gives a single image the weight 1. (It also
            drops the images of weight 0; here they are kept, so that there are k.)
    """

    weighted = True

    def __init__(self, regularization: float = DEFAULT_REGULARIZATION, variant: Variant = "definition") -> None:
        if not (regularization > 0 and math.isfinite(regularization)):
            raise SettingsError(f"Expected GradMatch.regularization to be above 0, got {regularization}.")
        check_choice("GradMatch.variant", variant, Variant)
        self.regularization = regularization
        self.variant: Variant = variant

    def _choose(self, candidates: Candidates, count: int) -> Choice:
        published = self.variant == "deepcore"
        gradients = gradient_products(candidates.view.features, candidates.view.logits, candidates.labels)
        if published:
            gradients = gradients.scaled(program_scales(len(candidates)))
        mean = gradients.mean()
        scores = gradients.inner_products_with(mean)
        require_finite(scores.isfinite(), "scores", type(self).__name__)
        chosen = matching_pursuit(gradients, mean, count, self.regularization, plain_start=published)
        if published and count == 1:
            return Choice(chosen, torch.ones(1, dtype=torch.float32))
        kept = chosen.to(scores.device)
        system = gradients.inner_products(kept, kept)
        system.diagonal().add_(self.regularization)
        return Choice(chosen, non_negative_least_squares(system, scores[kept]).float())


def matching_pursuit(
    vectors: OuterProducts, target: Tensor, count: int, regularization: float, plain_start: bool = False
) -> Tensor:
    """Pick vectors one by one: always the one with the largest inner product with the residual of those before it.

    Args:
        vectors: n of them.
        target: ``(K, 1 + d)``.
        count: Vectors to pick, at most n.
        regularization: Added to the diagonal of the normal equations, above 0.
        plain_start: Leave it out of the residual after the first pick, as DeepCore's program does.

    Returns:
        ``(count,)`` different indices in the order they were picked, int64 on the CPU.
    """
    correlations = vectors.inner_products_with(target)
    wanted = correlations.clone()
    factor = torch.zeros(count, count, dtype=wanted.dtype, device=wanted.device)  # Cholesky, row by row
    forward = torch.zeros(count, 1, dtype=wanted.dtype, device=wanted.device)
    chosen: list[int] = []
    for size in range(count):
        correlations[chosen] = -torch.inf
        chosen.append(int(correlations.argmax()))
        if size + 1 == count:
            break
        rows = torch.tensor(chosen, device=wanted.device)
        products = vectors.inner_products(rows, rows[-1:])
        known = factor[:size, :size]
        row = torch.linalg.solve_triangular(known, products[:-1], upper=False)
        # exactly, no pivot is below the regularization
        pivot = (products[-1] + regularization - row.square().sum()).clamp(min=regularization).sqrt()
        factor[size, :size], factor[size, size] = row[:, 0], pivot[0]
        forward[size] = (wanted[rows[-1]] - (row * forward[:size]).sum()) / pivot
        held = factor[: size + 1, : size + 1]
        weights = torch.linalg.solve_triangular(held.T, forward[: size + 1], upper=True)[:, 0]
        if plain_start and size == 0 and float(products[0]) > 0:
            weights = wanted[rows] / products[0]
        correlations = vectors.inner_products_with(target - vectors.weighted_sum(weights, rows))
    return torch.tensor(chosen)


def non_negative_least_squares(system: Tensor, products: Tensor) -> Tensor:
    """Return the x >= 0 that minimises ``x^T system x - 2 x^T products``, as scipy finds it.

    Args:
        system: ``(k, k)``, symmetric and positive definite.
        products: ``(k,)``.

    Returns:
        ``(k,)`` float64 on the CPU.
    """
    from scipy.optimize import nnls  # imported late: slow, and nothing else needs it

    factor = torch.linalg.cholesky(system.double().cpu())
    wanted = torch.linalg.solve_triangular(factor, products.double().cpu().unsqueeze(1), upper=False)[:, 0]
    return torch.from_numpy(nnls(factor.T.numpy(), wanted.numpy())[0])
