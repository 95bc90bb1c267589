"""What TensorBoard shows of a run beside its scalars: the images, their values, the settings."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from lit_condense.errors import check_least
from lit_condense.export.figure import image_pages
from lit_condense.sets.evaluated_set import EvaluatedSet
from lit_condense.settings import flat


class Dashboard(Callback):
    """Show the set's images, their histogram and range, and the settings in TensorBoard.

    Tags: ``synthetic/grid`` (the first page of ``grid.png``), ``synthetic/pixels`` (stored values),
    ``set/pixel_min``, ``_max``, ``_mean``, ``_std`` (in [0, 1] space), and the hparams tab. For a selected set the
    first two are ``selected/grid`` and ``selected/pixels``.

    Args:
        every_n_updates: Image updates between two pictures; by default a twentieth of the run, or 1,000 where its
            length is not set.
    """

    def __init__(self, every_n_updates: int | None = None) -> None:
        check_least("Dashboard", 1, every_n_updates=every_n_updates)
        self.every_n_updates = every_n_updates
        self._described = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the run starts from, and its settings."""
        assert isinstance(pl_module, EvaluatedSet)  # setup of the module checked the trainer
        self._describe(trainer, pl_module)
        if trainer.global_step == 0:
            self._show(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a set that took no training steps."""
        assert isinstance(pl_module, EvaluatedSet)
        if trainer.global_step == 0 and not self._described:
            self._describe(trainer, pl_module)
            self._show(trainer, pl_module)

    def _describe(self, trainer: Trainer, module: EvaluatedSet) -> None:
        self._described = True
        for logger in _tensorboards(trainer):
            settings = {name: _simple(value) for name, value in flat(module.settings())}
            # The public helper only declares the metric; writing a value for it would fake a point in its curve.
            for summary in hparams(settings, {"final/acc": 0.0}):  # type: ignore[no-untyped-call]
                logger.experiment._get_file_writer().add_summary(summary)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the images every so many updates and at the end."""
        assert isinstance(pl_module, EvaluatedSet)
        every = self.every_n_updates or (max(1, trainer.max_steps // 20) if trainer.max_steps > 0 else 1000)
        if trainer.global_step % every == 0 or trainer.global_step == trainer.max_steps:
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, module: EvaluatedSet) -> None:
        if module.unfinished:
            return
        pixels, labels = module.pixels(), module.training_set().labels
        step, name = trainer.global_step, module.words[2]
        for logger in _tensorboards(trainer):
            board = logger.experiment
            board.add_image(f"{name}/grid", image_pages(pixels, labels, module.data.class_names)[0], step)
            board.add_histogram(f"{name}/pixels", module.raw(), step)
        numbers = {"min": pixels.min(), "max": pixels.max(), "mean": pixels.mean(), "std": pixels.std()}
        for any_logger in trainer.loggers:
            any_logger.log_metrics({f"set/pixel_{name}": float(value) for name, value in numbers.items()}, step)


def _tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """Return the TensorBoard loggers of the process that logs."""
    return (
        [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.is_global_zero
        else []
    )


def _simple(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
