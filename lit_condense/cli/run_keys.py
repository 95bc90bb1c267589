"""What the command line adds to Lightning's own: one run folder, and keys for checkpoints, dashboard and report.

So ``trainer.callbacks`` holds the matching losses and what a user adds, and a second config that names losses loses
nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from lit_condense.callbacks import Dashboard, FinalReport
from lit_condense.cli.shipped import row_of, run_name
from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.experts.experts import RUNS as EXPERTS
from lit_condense.runs.checkpointing import is_dry, local_path
from lit_condense.runs.folder import ROOT, RunFolder
from lit_condense.runs.trainer import Intervals

CALLBACKS: dict[str, type[Callback]] = {"checkpoint": ModelCheckpoint, "dashboard": Dashboard, "report": FinalReport}
"""Keys on the command line; one of these classes in ``trainer.callbacks`` takes the place of its key's."""
DEFAULTS = {
    "checkpoint.monitor": "step",  # by step, never by accuracy
    "checkpoint.mode": "max",
    "checkpoint.save_top_k": 2,
    "checkpoint.save_last": True,
    "checkpoint.enable_version_counter": False,
}
TRIGGERS = ("every_n_train_steps", "train_time_interval", "every_n_epochs")
PROXY_CACHE = str(ROOT / "proxy_models")


class Replacing(Callback):
    """Lets the results that stood in a run's folder go when the run has begun, not before.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remove them after the first update, before the first checkpoint."""
        if trainer.is_global_zero:
            self._folder.clear()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove them where there was nothing to train, before the set is written."""
        if trainer.is_global_zero and not is_dry(trainer):
            self._folder.clear()


def add(parser: LightningArgumentParser) -> None:
    """Add the keys to the parser of a command."""
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="Folder of the run: log, checkpoints, set, card, picture, config (default: runs/<config>/version_<k>).",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="Let a new run replace results that stand there.")
    parser.add_argument(
        "--proxy_cache",
        type=str | None,
        default=PROXY_CACHE,
        help="Folder of trained proxy models, which runs of selections share; null: none.",
    )
    for key, kind in CALLBACKS.items():
        parser.add_lightning_class_args(kind, key)
    parser.set_defaults(DEFAULTS)


def folder_of(config: Namespace) -> RunFolder:
    """Return the folder of a run: as told, the one it goes on in, or a new version of its configs' name."""
    if config.out is not None and not config.out.strip():
        raise SettingsError("Expected --out to be a folder, got no letter. Leave it out for a new folder below runs.")
    there, last = _checkpoint(config), config.get("ckpt_path") == "last"
    if config.out is not None:
        home = RunFolder.of_checkpoint(there.resolve()) if there else None
        same = home is not None and home.path == Path(config.out).resolve()
        return RunFolder(Path(config.out), goes_on=last or same)
    name = _name(config)
    if not _class_of(config.model).leaves_a_set:  # what is there is gone on with
        return RunFolder(EXPERTS / _experts_name(config), goes_on=True)
    if last and (newest := RunFolder.newest(name)) is not None:
        rank_zero_info(f"The last checkpoint is that of {newest.path}.")
        return newest
    return RunFolder.new_version(name)


def folder_to_look_at(config: Namespace) -> RunFolder:
    """Return the folder of a command that trains nothing: that of the checkpoint it looks at, if that is a run's."""
    there = _checkpoint(config)
    home = RunFolder.of_checkpoint(there) if there and config.out is None else None
    return home or folder_of(config)


def guard_other_folders(config: Namespace, folder: RunFolder) -> None:
    """Tell a new run's folder of those that the run is told to put checkpoints or its set into, beside its own."""
    reports, checkpoints = [config.report.folder], [config.checkpoint.dirpath]
    for callback in listed(config.trainer.callbacks):
        kind = _class_of(callback) if isinstance(callback, Namespace) and "class_path" in callback else object
        if issubclass(kind, FinalReport):
            reports.append(callback.get("init_args.folder"))
        elif issubclass(kind, ModelCheckpoint):
            checkpoints.append(callback.get("init_args.dirpath"))
    there = _checkpoint(config)
    home = there.resolve().parent if there else None
    places = [Path(path) for path in checkpoints if path is not None]
    if config.get("ckpt_path") != "last" and home not in [path.resolve() for path in places]:  # else it goes on there
        folder.other_reports = [Path(path) for path in reports if path is not None]
        folder.other_checkpoints = places


def _checkpoint(config: Namespace) -> Path | None:
    """Return the checkpoint that is named by its path, if it is on this machine."""
    given = config.get("ckpt_path")
    return None if given in (None, "last") else local_path(given)


def goes_on_by_itself(config: Namespace, command: str) -> bool:
    """Return whether a run needs no checkpoint to go on: it goes on with what is in its folder.

    Raises:
        CheckpointError: It is told to start from a checkpoint.
        SettingsError: It leaves no set, and one is to be evaluated or written.
    """
    kind, given = _class_of(config.model), config.get("ckpt_path")
    if kind.leaves_a_set:
        return False
    if command != "fit":
        raise SettingsError(f"Expected fit for {kind.__name__}, got {command}: it leaves no set.")
    if given not in (None, "last"):
        raise CheckpointError(
            f"Expected no checkpoint for {kind.__name__}, got {given}. Run the same command again with that --out: "
            "it goes on with what is recorded."
        )
    return True


def fill(config: Namespace, folder: RunFolder) -> None:
    """Write the run's folder, and intervals that are left open, into a parsed config."""
    config.out = str(folder.path)
    if config.checkpoint.dirpath is None:
        config.checkpoint.dirpath = str(folder.checkpoints)
    if config.report.folder is None:
        config.report.folder = config.out
    if config.report.row is None and config.get("config"):
        config.report.row = row_of(Path(config.config[0]))
    kind = _class_of(config.model)
    intervals: Intervals = kind.intervals(config.trainer.max_steps)
    if all(config.checkpoint[trigger] is None for trigger in TRIGGERS):
        config.checkpoint.every_n_train_steps = intervals.checkpoint
    if config.trainer.val_check_interval is None:
        config.trainer.val_check_interval = intervals.validation
    if not kind.leaves_a_set:  # nothing to evaluate, and what is done is in its own files
        config.trainer.enable_checkpointing, config.trainer.limit_val_batches = False, 0


def without_folder(config: Namespace) -> Namespace:
    """Return a config as it is saved: without the folder of its run, so that it makes a new one."""
    saved = config.clone()
    if saved.checkpoint.dirpath == str(RunFolder(Path(saved.out)).checkpoints):
        saved.checkpoint.dirpath = None
    if saved.report.folder == saved.out:
        saved.report.folder = None
    saved.out, saved.overwrite, saved.ckpt_path = None, False, None
    return saved


def listed(given: Any) -> list[Any]:
    """Return what may be given as one, several or none."""
    return list(given) if isinstance(given, list) else [given] if given else []


def keys_in_use(given: Sequence[Any], trainer: Namespace, model: Namespace) -> list[str]:
    """Return the keys whose callbacks a run gets, beside those that are given in ``trainer.callbacks``."""
    if not _class_of(model).leaves_a_set:
        return []
    keys = [key for key, kind in CALLBACKS.items() if not any(isinstance(callback, kind) for callback in given)]
    if trainer.enable_checkpointing is False or trainer.barebones:
        keys = [key for key in keys if key != "checkpoint"]
    return keys


def trainer_settings(trainer: Namespace, folder: RunFolder) -> dict[str, Any]:
    """Return what the trainer is given besides its own settings."""
    settings: dict[str, Any] = {}
    if trainer.default_root_dir is None:
        settings["default_root_dir"] = str(folder.path)
    if trainer.logger in (None, True) and not trainer.barebones:
        settings["logger"] = TensorBoardLogger(str(folder.path), name="", version="", default_hp_metric=False)
    return settings


def _name(config: Namespace) -> str:
    """Return the name of a run's folders: that of its configs, and of data and size where those leave them open."""
    data = _class_of(config.data)
    name = config.data.get("init_args.name") or getattr(data, "dataset_name", None)
    name = name if isinstance(name, str) else data.__name__.lower()
    ipc = config.model.get("init_args.ipc")
    configs = [Path(path) for path in config.get("config") or []]
    return run_name(configs, f"{name}_ipc{ipc}" if isinstance(ipc, int) else name)


def _experts_name(config: Namespace) -> str:
    """Return the name under which matching looks for experts: of their config, or of the data if that serves any."""
    configs = [Path(path) for path in config.get("config") or []]
    if configs and configs[0].stem.removeprefix("experts_").partition("_")[0] != "base":
        return configs[0].stem.removeprefix("experts_")
    given, known = config.data.get("init_args") or {}, getattr(_class_of(config.data), "dataset_name", None)
    if given.get("name") or isinstance(known, str):
        return str(given.get("name") or known)
    place = Path(given.get("root") or given.get("path") or "data").resolve()
    return place.stem if given.get("path") else place.name


def _class_of(node: Namespace) -> Any:
    module, _, name = node.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)
