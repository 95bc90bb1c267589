"""How well a set does, beside what it started from and its baselines: as table, scalars and part of its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_condense.evaluation import Score
from lit_condense.evaluation.baselines import Budget
from lit_condense.evaluation.comparing import Difference
from lit_condense.evaluation.published import of_whole_data_set
from lit_condense.sets.base import SmallTrainingSet

START = "start"
"""The set before its first update, among what a set is compared with."""


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated, in words and numbers for the table."""

    dataset: str
    images: int
    """Of the set, as networks are trained on it."""
    real_images: int
    protocol: str
    words: tuple[str, str, str]
    """See :attr:`SmallTrainingSet.words`."""


@dataclass(frozen=True)
class Report:
    """The scores of a set, of its start and of its baselines; printed, it is the table that ends a run."""

    evaluated: Evaluated
    condensed: list[Score]
    """One an architecture."""
    averaged: Score | None
    """Of the set with the average of its images, on the first architecture, by fresh networks; None without one."""
    start: Score | None
    """Of the set before its first update, on the first architecture; None for a selection, or where it is left out."""
    baselines: dict[str, Score]
    """Tag of the method -> score on the first architecture."""
    budget: Budget
    """What the baselines are made of."""
    full: Score | None
    published: str

    @classmethod
    def of(cls, module: SmallTrainingSet) -> Report:
        """Evaluate the module's set, its start and its baselines; ranks share out the networks."""
        settings, evaluator, share = module.evaluation, module.evaluator(), module.share
        current, first, repeats = module.training_set(), module.evaluation_networks[0], settings.repeats
        baselines, real = module.baselines, module.data.real
        condensed = [
            evaluator.score(factory, lambda _: current, repeats, share) for factory in module.evaluation_networks
        ]
        average = module.averaged_set()
        averaged = None if average is None else evaluator.score(first, lambda _: average, repeats, share)
        before = module.start_set() if settings.start else None
        start = None if before is None else evaluator.score(first, lambda _: before, repeats, share)
        scores = {
            selection.tag: evaluator.score(first, baselines.drawn(selection), repeats, share)
            for selection in settings.compared_with
        }
        full = None
        if settings.full_data_steps:
            full = evaluator.score(first, lambda _: real, 1, share, max_steps=settings.full_data_steps)
        known = of_whole_data_set(module.data.dataset_name)
        return cls(
            Evaluated(module.data.dataset_name, len(current.labels), len(real), settings.protocol, module.words),
            condensed,
            averaged,
            start,
            scores,
            baselines.budget,
            full,
            str(known or ""),
        )

    @property
    def learned(self) -> Difference | None:
        """What was learned on top of the start."""
        return None if self.start is None else Difference.of(self.condensed[0], self.start)

    @property
    def differences(self) -> dict[str, Difference]:
        """Start and baselines -> how much better the set is, on the first architecture."""
        references = self.baselines if self.start is None else {START: self.start, **self.baselines}
        return {name: Difference.of(self.condensed[0], score) for name, score in references.items()}

    @property
    def not_better_than(self) -> list[str]:
        """What the set does not beat by more than the standard error of the difference."""
        return [name for name, difference in self.differences.items() if not difference.is_gain]

    def metrics(self) -> dict[str, float]:
        """Return the scalars for the loggers."""
        metrics = {"final/acc": self.condensed[0].mean, "final/acc_std": self.condensed[0].std}
        if len(self.condensed) > 1:
            metrics |= {f"final/acc/{score.network}": score.mean for score in self.condensed}
        if self.averaged is not None:
            metrics |= {"final/averaged_acc": self.averaged.mean, "final/averaged_acc_std": self.averaged.std}
        if self.start is not None:
            metrics |= {"start/acc": self.start.mean, "start/acc_std": self.start.std}
        for tag, score in self.baselines.items():
            metrics |= {f"baseline/{tag}_acc": score.mean, f"baseline/{tag}_acc_std": score.std}
        if self.full is not None:
            metrics["baseline/all_real_short_acc"] = self.full.mean
        return metrics

    def as_plain(self) -> dict[str, Any]:
        """Return everything as plain data for the card."""
        started = {}
        if self.start is not None and self.learned is not None:
            started = {START: self.start.as_plain(), "learned": self.learned.as_plain()}
        stored = self.budget.as_plain()
        return {
            "condensed": [score.as_plain() for score in self.condensed],
            **({} if self.averaged is None else {"averaged": self.averaged.as_plain()}),
            **started,
            "baselines": {tag: {**score.as_plain(), **stored} for tag, score in self.baselines.items()},
            "all_real_short": self.full and self.full.as_plain(),
            "published_whole_data_set": self.published or None,
            "not_better_than": self.not_better_than,
        }

    def __str__(self) -> str:
        rows = self._rows()
        width = max(len(label) for label, _ in rows)
        lines = [
            f"Test accuracy on {self.evaluated.dataset}: mean +- sample standard deviation over "
            f"{len(self.condensed[0].accuracies)} fresh networks,",
            f"protocol {self.evaluated.protocol}, last epoch.",
            *(f"  {label:<{width}}  {_percent(score)}" for label, score in rows),
        ]
        if self.published:
            lines.append(f"  {'published, whole data set':<{width}}  {self.published}")
        if self.learned is not None:
            lines.append(f"Learned on top of its start: {self.learned}.")
        lines += [
            f"Not better than {_named(name)} by more than the standard error: {self.differences[name]}."
            for name in self.not_better_than
        ]
        return "\n".join(lines)

    def table(self, seconds: float, paths: Sequence[Path], published: str = "") -> str:
        """Return the summary that ends a run: seconds of condensing or selecting, and what was written.

        Args:
            seconds: Of condensing or selecting.
            paths: What was written.
            published: What a paper says of such a run, as a sentence.
        """
        scores = [*self.condensed, self.averaged, self.start, *self.baselines.values(), self.full]
        evaluating = sum(score.seconds for score in scores if score is not None)
        kept, all_images = self.evaluated.images, self.evaluated.real_images
        lines = [
            "",
            str(self),
            *([published] if published else []),
            f"Images kept: {kept} of {all_images:,} ({kept / all_images:.2%}). "
            f"Seconds: {seconds:.1f} {self.evaluated.words[1]}, {evaluating:.1f} evaluating.",
            "Wrote:",
            *(f"  {path}" for path in paths),
        ]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, Score]]:
        evaluated = self.evaluated
        rows = [
            (f"{evaluated.words[0]}, {evaluated.images} images ({score.network})", score) for score in self.condensed
        ]
        if self.averaged is not None:
            rows.append(("the same with the average of its images", self.averaged))
        if self.start is not None:
            rows.append(("start, before its first update, same recipe", self.start))
        rows += [(f"{tag} real, {self.budget}, same recipe", score) for tag, score in self.baselines.items()]
        if self.full is not None:
            steps = self.full.recipe["steps"]
            rows.append((f"all {evaluated.real_images:,} real, 1 network, {steps} steps", self.full))
        return rows


def _named(reference: str) -> str:
    return "its own start" if reference == START else f"{reference} real images"


def _percent(score: Score) -> str:
    spread = f" +- {100 * score.std:.1f}" if len(score.accuracies) > 1 else ""
    return f"{100 * score.mean:.1f}{spread} %"
