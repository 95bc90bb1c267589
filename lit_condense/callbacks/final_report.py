"""The end of a run: evaluate the set beside its baselines, write it, and print one short table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_condense.errors import ExportError, NonFiniteError
from lit_condense.evaluated_set import EvaluatedSet
from lit_condense.evaluation import Score
from lit_condense.evaluation.baselines import all_real, real_subset
from lit_condense.evaluation.published import WHOLE_DATA_SET
from lit_condense.export import CondensedSet, load_condensed, save_condensed, write_grid
from lit_condense.export.card import condensed_from
from lit_condense.export.files import check_writable


class FinalReport(Callback):
    """Evaluate, export and summarise the set when condensing or selecting ends.

    Writes ``condensed.safetensors``, ``card.json`` and ``grid.png``, and prints a table to standard output. When a run
    stops at a non-finite value, the last good set is written, with the reason in its card and without an evaluation.

    Args:
        folder: Where to write; by default the trainer's log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._log_dir: str | None = None
        self._seconds = 0.0
        self._started: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an output folder that cannot be written to, before any work."""
        self._log_dir = trainer.log_dir  # a collective call: every rank makes it, here and nowhere else
        if stage in ("fit", "predict") and trainer.is_global_zero:
            check_writable(self._folder(trainer))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a run without training steps: what it does, it does before the loop."""
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; preparations before the loop do not count."""
        self._started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._seconds, self._started = self._spent(), None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: evaluating is not condensing."""
        self._seconds, self._started = self._spent(), None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the seconds spent condensing so far beside the accuracy."""
        if trainer.state.fn == "fit":
            pl_module.log("time/condensing", self._seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._started = time.perf_counter()

    def _spent(self) -> float:
        return self._seconds + (0.0 if self._started is None else time.perf_counter() - self._started)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent so far, so that a resumed run counts all of them."""
        return {"seconds": self._spent()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seconds of the runs before."""
        self._seconds = state_dict["seconds"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate on every rank; write and print on the first."""
        assert isinstance(pl_module, EvaluatedSet)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if pl_module.unfinished:
            rank_zero_warn(f"There is no report: {pl_module.unfinished}")
            return
        self._seconds, self._started = self._spent(), None
        report = Report.of(pl_module)
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(report.metrics(), trainer.global_step)
        record = {"evaluation": report.as_plain(), "seconds": {pl_module.words[1]: round(self._seconds, 1)}}
        paths = self._write(trainer, pl_module, record)
        if self._log_dir is not None:
            paths.append(Path(self._log_dir))
        print(report.table(pl_module, self._seconds, paths))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the set without evaluating it; where it stands already, its card with the evaluation is kept."""
        assert isinstance(pl_module, EvaluatedSet)
        if trainer.is_global_zero and not _stands_in(self._folder(trainer), condensed_from(pl_module, {})):
            self._write(trainer, pl_module, {"evaluation": None})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the last good set where a run stops at a non-finite value."""
        if not isinstance(exception, NonFiniteError) or not isinstance(pl_module, EvaluatedSet):
            return
        if trainer.is_global_zero and not pl_module.unfinished:
            self._write(trainer, pl_module, {"evaluation": None, "stopped": str(exception)})

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder or self._log_dir or trainer.default_root_dir)

    def _write(self, trainer: Trainer, module: EvaluatedSet, record: dict[str, Any]) -> list[Path]:
        condensed = condensed_from(module, record)
        folder = self._folder(trainer)
        paths = list(save_condensed(folder, condensed).values())
        return [*paths, write_grid(folder / "grid.png", condensed.images, condensed.labels)]


class Report:
    """The scores of a set and of its baselines."""

    def __init__(self, condensed: list[Score], baselines: dict[str, Score], full: Score | None, published: str) -> None:
        self.condensed, self.baselines, self.full, self.published = condensed, baselines, full, published

    @classmethod
    def of(cls, module: EvaluatedSet) -> Report:
        """Evaluate the module's set and its baselines; ranks share out the networks."""
        settings, judge, share = module.evaluation, module.judge(), module.share
        current, first = module.training_set(), module.evaluation_networks[0]
        condensed = [
            judge.score(factory, lambda _: current, settings.repeats, share) for factory in module.evaluation_networks
        ]
        baselines = {
            selection.tag: judge.score(first, real_subset(module, selection), settings.repeats, share)
            for selection in settings.compared_with
        }
        full = None
        if settings.full_data_steps:
            full = judge.score(first, all_real(module), 1, share, max_steps=settings.full_data_steps)
        known = WHOLE_DATA_SET.get(module.data.dataset_name)
        return cls(condensed, baselines, full, f"{known.accuracy:.1%} ({known.source})" if known else "")

    def metrics(self) -> dict[str, float]:
        """Return the scalars for the loggers."""
        metrics = {"val/acc": self.condensed[0].mean, "val/acc_std": self.condensed[0].std}
        if len(self.condensed) > 1:
            metrics |= {f"val/acc/{score.network}": score.mean for score in self.condensed}
        for tag, score in self.baselines.items():
            metrics |= {f"baseline/{tag}_acc": score.mean, f"baseline/{tag}_acc_std": score.std}
        if self.full is not None:
            metrics["baseline/all_real_short_acc"] = self.full.mean
        return metrics

    def as_plain(self) -> dict[str, Any]:
        """Return everything as plain data for the card."""
        return {
            "condensed": [score.as_plain() for score in self.condensed],
            "baselines": {tag: score.as_plain() for tag, score in self.baselines.items()},
            "all_real_short": self.full and self.full.as_plain(),
            "published_whole_data_set": self.published or None,
        }

    def table(self, module: EvaluatedSet, seconds: float, paths: list[Path]) -> str:
        """Return the summary that ends a run."""
        kept, all_images = len(module.training_set().labels), len(module.data.real)
        first = self.condensed[0]
        rows = [(f"{module.words[0]}, {kept} images ({score.network})", score) for score in self.condensed]
        real = module.data.real
        counts = torch.bincount(module.training_set().labels, minlength=real.num_classes).tolist()
        drawn = sum(min(pair) for pair in zip(counts, real.class_sizes, strict=True))  # a small class is taken whole
        rows += [(f"{tag} real, {drawn} images, same recipe", score) for tag, score in self.baselines.items()]
        if self.full is not None:
            rows.append((f"all {all_images:,} real, 1 network, {self.full.recipe['steps']} steps", self.full))
        width = max(len(label) for label, _ in rows)
        lines = [
            "",
            f"Test accuracy on {module.data.dataset_name}: mean +- sample standard deviation over "
            f"{len(first.accuracies)} fresh networks,",
            f"protocol {module.evaluation.protocol}, last epoch.",
            *(f"  {label:<{width}}  {_percent(score)}" for label, score in rows),
        ]
        if self.published:
            lines.append(f"  {'published, whole data set':<{width}}  {self.published}")
        evaluating = sum(score.seconds for score in [*self.condensed, *self.baselines.values(), self.full] if score)
        lines += [
            f"Images kept: {kept} of {all_images:,} ({kept / all_images:.2%}). "
            f"Seconds: {seconds:.1f} {module.words[1]}, {evaluating:.1f} evaluating.",
            "Wrote:",
            *(f"  {path}" for path in paths),
        ]
        return "\n".join(lines)


def _stands_in(folder: Path, condensed: CondensedSet) -> bool:
    try:
        there = load_condensed(folder)
    except ExportError:
        return False
    return torch.equal(there.images, condensed.images) and torch.equal(there.labels, condensed.labels)


def _percent(score: Score) -> str:
    spread = f" +- {100 * score.std:.1f}" if len(score.accuracies) > 1 else ""
    return f"{100 * score.mean:.1f}{spread} %"
