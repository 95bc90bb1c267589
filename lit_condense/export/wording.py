"""What a set is, in words: read off its tensors and its card, of which any part may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_condense.export.condensed_set import CondensedSet

BESIDE = {"soft_labels": "soft labels", "weights": "weights", "inner_lr": "a step size", "averaged": "averaged images"}


def in_three_lines(condensed: CondensedSet) -> str:
    """Return what the images are, how they were made, and how well networks do that are trained on them."""
    images, card = condensed.images, condensed.card
    classes, low, high = len(set(condensed.labels.tolist())), float(images.min()), float(images.max())
    beside = [words for name, words in BESIDE.items() if getattr(condensed, name) is not None]
    return (
        f"{len(images)} images {tuple(images.shape[1:])} of {_part(card, 'data').get('dataset', 'unknown data')}, "
        f"{classes} classes, pixels from {low:.2f} to {high:.2f}{''.join(f', {words}' for words in beside)}\n"
        f"made by {_made_by(card)}, {card.get('update', 'an unknown number of')} updates\n"
        f"test accuracy: {_score(card)}"
    )


def _part(card: dict[str, Any], name: str) -> dict[str, Any]:
    found = card.get(name)
    return found if isinstance(found, dict) else {}


def _made_by(card: dict[str, Any]) -> str:
    losses = _part(_part(card, "method"), "matching")
    return " + ".join(losses) or str(_part(card, "selected").get("by", "an unknown method"))


def _score(card: dict[str, Any]) -> str:
    scores = _part(card, "evaluation").get("condensed")
    if not scores:
        return "not measured"
    first = scores[0]
    return (
        f"{100 * first['accuracy_mean']:.1f} +- {100 * first['accuracy_std']:.1f} % ({first['networks']} x "
        f"{first['network']}, protocol {first['recipe'].get('protocol')})"
    )
