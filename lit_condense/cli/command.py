"""The command line: ``lit-condense fit|validate|test|predict|configs``."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Imported so that short class names work in configs.
import lit_condense.augmentation
import lit_condense.init
import lit_condense.recording
import lit_condense.sampling
import lit_condense.sets.synthetic_set  # noqa: F401
from lit_condense._version import __version__
from lit_condense.callbacks import SaveOnSignal
from lit_condense.cli import evaluate, export, replaced_data, run_keys, shipped
from lit_condense.cli.nulls import null_options
from lit_condense.data import CondenseDataModule
from lit_condense.errors import CheckpointError, CondenseError, SettingsError
from lit_condense.runs import checkpointing, outputs, ownership
from lit_condense.runs.files import check_writable, write_atomically
from lit_condense.runs.folder import RunFolder
from lit_condense.runs.memory import keep_freed_memory
from lit_condense.runs.module import RunModule
from lit_condense.sets.evaluated_set import EvaluatedSet
from lit_condense.sets.selected_set import SelectedSet

UPSTREAM_NOISE = (
    # We save between updates on purpose: Lightning-AI/pytorch-lightning#20947
    "Using ModelCheckpoint with manual optimization",
    # Lightning 2.6.6 calls a torch function that newer torch deprecates
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # Runs go on in their own folder, which was looked at before
    r"Checkpoint directory .* exists and is not empty",
    # `predict` writes the set
    "predict returned None",
)

UPSTREAM_ADVICE = {
    # of a product; we write to TensorBoard
    "lightning.pytorch.utilities.rank_zero": "try installing [litlogger]",
    # of a checkpoint that is written; what is read is never unpickled
    "lightning.pytorch.trainer.connectors.checkpoint_connector": "`weights_only` was not set",
}
"""Logger -> what it says to nobody's use."""

# Without it, the message of every mistyped option stands below a page that lists all of them.
USAGE = {
    command: {"usage": f"lit-condense {command} --config FILE [--KEY VALUE ...]"}
    for command in ("fit", "validate", "test", "predict")
}

EPILOG = (
    "lit-condense configs [WORD ...] lists the configs that ship with it; --config takes their names. "
    "lit-condense evaluate SET scores any condensed set; lit-condense export SET writes one in another layout."
)


OWN_COMMANDS = {"configs": shipped.main, "evaluate": evaluate.main, "export": export.main}
"""Commands that are not Lightning's."""


class SaveFitConfig(SaveConfigCallback):
    """Saves the config of a fit only: evaluating a run must not overwrite the record of how it was made.

    It goes into the folder of the run. A file of that name that this program did not write, or that was edited since,
    is the user's and stays; the config then goes beside it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do nothing yet: the run may still be refused, and what stands there is the record of another."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config when a fit begins that is no dry run."""
        self._save_once(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save it where there was nothing to train."""
        self._save_once(trainer)

    def _save_once(self, trainer: Trainer) -> None:
        if self.already_saved or checkpointing.is_dry(trainer) or not trainer.is_global_zero:
            return
        self.already_saved = True
        folder = Path(self.config.out)
        path = ownership.free_config(folder / self.config_filename)
        if path.name != self.config_filename:
            rank_zero_warn(f"{folder / self.config_filename} is not lit_condense's: this run's config goes to {path}.")
        saved = run_keys.without_folder(self.config)
        write_atomically(path, ownership.marked_config(self.parser.dump(saved, skip_none=False)))


class CondenseCLI(LightningCLI):
    """LightningCLI with one folder for a run, atomic checkpoints, and checks of both before a run."""

    folder: RunFolder | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Do what the command line says; a run that comes to nothing leaves nothing behind."""
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            if self.folder is not None and getattr(getattr(self, "trainer", None), "global_step", 0) == 0:
                cache = self.config[self.subcommand].proxy_cache
                self.folder.discard(*([Path(cache)] if cache else []))
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys of a run's folder and of its own callbacks."""
        run_keys.add(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Find shipped configs by name and parse; refuse a seed that the global generators do not take."""
        if args is None or isinstance(args, list):
            words = shipped.with_paths(sys.argv[1:] if args is None else args)
            self.config = parser.parse_args([*words, *replaced_data.forgetting(words)])
        else:
            super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].seed_everything
        if seed is not None and not 0 <= seed < 2**32:
            raise SettingsError(f"Expected seed_everything to be a whole number from 0 to 4294967295, got {seed}.")

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and make it for a fit that is no dry run."""
        config = self.config[self.subcommand]
        self._check_options(config)
        fits = self.subcommand == "fit"
        if run_keys.goes_on_by_itself(config, str(self.subcommand)):
            config.ckpt_path = None
        self.folder = run_keys.folder_of(config) if fits else run_keys.folder_to_look_at(config)
        if not config.trainer.fast_dev_run and not getattr(rank_zero_only, "rank", 0):
            if fits:
                run_keys.guard_other_folders(config, self.folder)
                self.folder.claim(config.overwrite)
            else:
                self.folder.look()
        run_keys.fill(config, self.folder)

    @staticmethod
    def _check_options(config: Namespace) -> None:
        """Refuse a single value in place of all options of a class, which the parser lets pass."""
        kinds: dict[str, type] = {"trainer": Trainer, **run_keys.CALLBACKS}
        for key, kind in kinds.items():
            if not isinstance(config[key], Namespace):
                raise SettingsError(f"Expected {key} to be options of {kind.__name__} by name, got {config[key]!r}.")

    def instantiate_classes(self) -> None:
        """Make trainer, model and data; what a constructor refuses ends as its own message."""
        config = self.config[self.subcommand]
        nulls = [*null_options(config.trainer, "trainer", Trainer), *null_options(config.model, "model")]
        nulls += null_options(config.data, "data")
        if nulls:
            raise SettingsError(
                f"Expected a value for {', '.join(nulls)}, got null. Give one, or leave the option out."
            )
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, RuntimeError) as error:
            # jsonargparse wraps each refusal once for every level of the config
            cause: BaseException = error
            while cause.__cause__ is not None and not isinstance(cause, CondenseError):
                cause = cause.__cause__
            raise SettingsError(str(cause)) from error
        if isinstance(self.model, SelectedSet) and self.model.proxy.cache is None:
            self.model.proxy.cache = config.proxy_cache

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer; unless it is given another way to write checkpoints, it writes them atomically."""
        made = self.config_init[self.subcommand].trainer
        plugins = run_keys.listed(made.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(checkpointing.AtomicCheckpointIO())
        parser, options = self._parser(self.subcommand), self.config[self.subcommand].trainer
        parser.callback_keys = run_keys.keys_in_use(
            run_keys.listed(made.callbacks), options, self.config[self.subcommand].model
        )
        assert self.folder is not None  # before_instantiate_classes
        kwargs |= run_keys.trainer_settings(options, self.folder)
        trainer = super().instantiate_trainer(plugins=plugins, **kwargs)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.sort(key=lambda callback: not isinstance(callback, SaveFitConfig))  # before the final evaluation
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.folder.checkpoints)  # known before the run, so that `last` finds it
        callbacks.insert(0, run_keys.Replacing(self.folder))
        return trainer

    def _parse_ckpt_path(self) -> None:
        """Do nothing: hyper-parameters in a checkpoint would silently override the command line."""

    def before_fit(self) -> None:
        """Refuse what would fail later, or would take the place of files that are not this program's."""
        if not checkpointing.is_dry(self.trainer) and self.trainer.is_global_zero:
            for folder in self._output_folders():
                check_writable(folder)
        self._check_checkpoint()
        outputs.check_checkpoints(self.trainer)

    def before_validate(self) -> None:
        """Refuse what would fail later, and say where the set is only what a run starts from."""
        self._check_checkpoint()
        if isinstance(self.model, SelectedSet):
            self._insist_on_checkpoint("to be evaluated")
        elif self.config[self.subcommand].get("ckpt_path") is None:
            rank_zero_warn("No ckpt_path given: the images are those that a run starts from, not condensed ones.")

    before_test = before_validate

    def before_predict(self) -> None:
        """Refuse what would fail later, and to write a set that was never condensed over one that was."""
        self._check_checkpoint()
        self._insist_on_checkpoint("to be written")

    def _insist_on_checkpoint(self, purpose: str) -> None:
        if self.config[self.subcommand].get("ckpt_path") is None:
            raise CheckpointError(
                f"Expected ckpt_path, the checkpoint whose set is {purpose}, got none. Give the path of one, or last."
            )

    def _output_folders(self) -> list[Path]:
        folders = [callback.dirpath for callback in self._checkpoint_callbacks()]
        return [Path(folder) for folder in folders if folder is not None]

    def _checkpoint_callbacks(self) -> list[ModelCheckpoint]:
        return [c for c in self.trainer.callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]

    def _check_checkpoint(self) -> None:
        path = self.config[self.subcommand].get("ckpt_path")
        if path is None:
            return
        if path == "last":
            path = self._last_checkpoint()
        model = cast(EvaluatedSet, self.model)  # the parser takes no other
        checkpointing.check_readable(path, model.checkpoint_format, model.checkpoint_holds)

    def _last_checkpoint(self) -> Path:
        """Lightning starts at step 0 where `last` finds nothing; here that is an error."""
        callbacks = [c for c in self._checkpoint_callbacks() if c.dirpath is not None and c.save_last]
        wanted = [checkpointing.last_path(callback) for callback in callbacks]
        found = [path for path in wanted if path.exists()]
        if not found:
            raise CheckpointError(
                f"Expected a checkpoint to resume from at {', '.join(map(str, wanted)) or 'a ModelCheckpoint with '}"
                f"{'' if wanted else 'save_last: true'}, found none. Give that run's --out or its configs, or "
                "the path of a checkpoint; leave ckpt_path out to start a new run."
            )
        return max(found, key=lambda path: path.stat().st_mtime)


def run(args: ArgsType = None) -> CondenseCLI:
    """Parse ``args`` (by default the command line), do what they say, and return the finished command."""
    for message in UPSTREAM_NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in UPSTREAM_ADVICE:
        logging.getLogger(name).addFilter(_is_of_use)  # a filter is added once
    return CondenseCLI(
        RunModule,
        CondenseDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_callback=SaveFitConfig,
        trainer_defaults={
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "log_every_n_steps": 10,
            "devices": 1,  # more only where they are asked for
            "max_epochs": -1,  # an epoch is the whole run
            "check_val_every_n_epoch": None,  # but after so many steps
            "callbacks": [SaveOnSignal()],  # beside those of the config
        },
        # The module takes its own optimizer: --optimizer would hand it every parameter behind its back.
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "lit-condense", "version": __version__, "epilog": EPILOG, **USAGE},
        args=args,
    )


def _is_of_use(record: logging.LogRecord) -> bool:
    return UPSTREAM_ADVICE[record.name] not in record.getMessage()


def main(args: ArgsType = None) -> None:
    """Entry point of ``lit-condense``: errors meant for the user end as one message and exit code 1.

    SIGTERM ends as 143 and Ctrl-C as 130, as the shell counts.
    """
    keep_freed_memory()
    _import_from_here()
    words = sys.argv[1:] if args is None else args
    try:
        if isinstance(words, list) and words[:1] and words[0] in OWN_COMMANDS:
            OWN_COMMANDS[words[0]](words[1:])
        else:
            run(args)
    except SIGTERMException:  # a SystemExit with code 0, as if the run were complete
        _stopped("SIGTERM", signal.SIGTERM)
    except KeyboardInterrupt:
        _stopped("Ctrl-C", signal.SIGINT)
    except SystemExit as stopped:
        if not isinstance(stopped.__context__, KeyboardInterrupt):  # Lightning ends it as any failure, with code 1
            raise
        _stopped("Ctrl-C", signal.SIGINT)
    except BrokenPipeError:  # whoever read the list has read enough, as in `configs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (CondenseError, MisconfigurationException, OSError) as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.exit(f"lit-condense: error: {error}{_advice(error)}")


def _stopped(by: str, signum: signal.Signals) -> None:
    if getattr(rank_zero_only, "rank", 0):  # Lightning kills the first process where another one seems to fail
        return
    print(f"lit-condense: stopped by {by}. Go on from the last checkpoint with --ckpt_path last.", file=sys.stderr)
    sys.exit(128 + signum)


def _import_from_here() -> None:
    """Let `class_path` name classes in the working folder, as `python -m` does; installed modules come first."""
    if not getattr(sys.flags, "safe_path", False) and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))


def _advice(error: Exception) -> str:
    """Return what to do about a full device, where the system's own message is all that came."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ". Make room for the files of the run, then go on with --ckpt_path last."
    return ""
