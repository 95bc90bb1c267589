"""k-means and what DREAM picks by it, point by point (Liu et al., 2023); nothing shared with the package."""

from __future__ import annotations

import torch

from tests.oracles.dc import sum_of


def distance_squared(a, b):
    return float(((a - b) * (a - b)).sum())


def lloyd(points, start, passes=100, tolerance=1e-4):
    """Return the centres, and how often a cluster was empty; such a one takes the point farthest from its centre."""
    centres, empty = [points[i].clone() for i in start], 0
    for _ in range(passes):
        nearest = [min(range(len(centres)), key=lambda c, p=p: distance_squared(p, centres[c])) for p in points]
        far = sorted(range(len(points)), key=lambda i: -distance_squared(points[i], centres[nearest[i]]))
        moved = []
        for c in range(len(centres)):
            members = [p for p, owner in zip(points, nearest, strict=True) if owner == c]
            empty += not members
            moved.append(sum_of(members) / len(members) if members else points[far.pop(0)].clone())
        shift = sum(distance_squared(a, b) for a, b in zip(moved, centres, strict=True))
        centres = moved
        if shift <= tolerance:
            break
    return torch.stack(centres), empty


def nearest_distinct(points, centres, per_centre):
    chosen = []
    for centre in centres:
        for _ in range(per_centre):
            free = [i for i in range(len(points)) if i not in chosen]
            chosen.append(min(free, key=lambda i, c=centre: distance_squared(points[i], c)))
    return chosen


def excess(points, centres, chosen, per_centre=1):
    """How much farther than the nearest point that was left each choice is, at most.

    0 up to rounding for a right choice; the two points of a cluster are equally far from its centre, so which of them
    comes first is nobody's business.
    """
    worst = 0.0
    for number, index in enumerate(chosen):
        centre = centres[number // per_centre]
        left = [distance_squared(p, centre) for i, p in enumerate(points) if i not in chosen[:number]]
        worst = max(worst, distance_squared(points[index], centre) - min(left))
    return worst


def inertia(points, centres):
    return sum(min(distance_squared(p, c) for c in centres) for p in points)
