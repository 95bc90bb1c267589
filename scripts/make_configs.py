"""Write the YAML of every published DC row (and the digits) into configs/dc.

One self-contained file a row: a second --config replaces lists, so nothing is shared between files. Run it after
changing the template below; tests check that the files on disk are what it writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

# Accuracies: shared evaluation protocol dc, ConvNet-3; DC authors' readme, spreads from arXiv 2107.13034, Table 1.
PUBLISHED = {
    "mnist": {1: "91.7 +- 0.5", 10: "97.4 +- 0.2", 50: "98.8 +- 0.1"},
    "fashionmnist": {1: "70.5 +- 0.6", 10: "82.3 +- 0.4", 50: "83.6 +- 0.4"},
    "svhn": {1: "31.2 +- 1.4", 10: "76.1 +- 0.6", 50: "82.3 +- 0.3"},
    "cifar10": {1: "28.3 +- 0.5", 10: "44.9 +- 0.5", 50: "53.9 +- 0.5"},
    "cifar100": {1: "12.8 +- 0.3", 10: "25.2 +- 0.3"},
}
UPDATES = {1: 1, 10: 10, 50: 50}
CLASSES = {
    "digits": "Digits",
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


@dataclass(frozen=True)
class Row:
    """What differs between two files."""

    dataset: str
    ipc: int

    @property
    def networks(self) -> int:
        return {1: 300, 10: 20}[self.ipc] if self.dataset == "digits" else 1000

    @property
    def text(self) -> str:
        name, updates = f"{self.dataset}_ipc{self.ipc}", UPDATES[self.ipc]
        steps = self.networks * updates
        digits = self.dataset == "digits"
        network = "{width: 32, depth: 2}" if digits else "{width: 128, depth: 3}"
        expected = "none published" if digits else f"{PUBLISHED[self.dataset][self.ipc]} % (ConvNet-3, protocol dc)"
        data = "{}" if digits else "{root: data, download: false, normalization: dc}"
        return f"""\
# DC on {CLASSES[self.dataset]}, {self.ipc} image(s) per class: gradient matching (Zhao et al., ICLR 2021, Table 1).
# Published accuracy: {expected}. {self.networks} networks x {updates} update(s) = {steps} image updates.
# Written by scripts/make_configs.py.
seed_everything: 0
trainer:
  accelerator: auto
  devices: 1
  max_steps: {steps}
  val_check_interval: {steps // 2}   # image updates between two quick evaluations
  check_val_every_n_epoch: null
  log_every_n_steps: 10
  num_sanity_val_steps: 0
  enable_model_summary: false
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {{save_dir: runs/dc, name: {name}, version: "", default_hp_metric: false}}
  callbacks:
    - class_path: lit_condense.matching.GradientMatching
      init_args: {{distance: row_cosine}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        dirpath: runs/dc/{name}/checkpoints
        every_n_train_steps: {max(1, min(50, steps // 4))}
        monitor: step   # by step, never by accuracy
        mode: max
        save_top_k: 2
        save_last: true
        enable_version_counter: false
    - class_path: lit_condense.callbacks.Dashboard
      init_args: {{every_n_updates: {max(1, steps // 20)}}}
    - class_path: lit_condense.callbacks.FinalReport
      init_args: {{folder: runs/dc/{name}}}
model:
  class_path: lit_condense.SyntheticSet
  init_args:
    ipc: {self.ipc}
    network:
      class_path: lit_condense.networks.ConvNet
      init_args: {network}
    inner:
      class_path: lit_condense.inner.TrainOnSynthetic   # published loops for the images per class
      init_args: {{batch_size: 256, lr: 0.01}}
    sampling:
      class_path: lit_condense.sampling.RandomSampling
      init_args: {{batch_size: 256}}
    parametrization:
      class_path: lit_condense.parametrization.Pixels
      init_args: {{space: normalized, clamp: never}}
    init:
      class_path: lit_condense.parametrization.Noise
    optimizer:
      class_path: torch.optim.SGD
      init_args: {{lr: 0.1, momentum: 0.5}}
    engine:
      class_path: lit_condense.engine.Engine
      init_args: {{mode: fast, compile: auto, classes_per_block: 1}}
    evaluation:
      class_path: lit_condense.evaluation.Evaluation
      init_args: {{protocol: dc, repeats: 10, quick_repeats: 2, full_data_steps: 1000}}
data:
  class_path: lit_condense.data.{CLASSES[self.dataset]}
  init_args: {data}
ckpt_path: null
"""


def rows() -> list[Row]:
    published = [Row(dataset, ipc) for dataset, cells in PUBLISHED.items() for ipc in cells]
    return [Row("digits", 1), Row("digits", 10), *published]


def files() -> dict[Path, str]:
    return {CONFIGS / "dc" / f"{row.dataset}_ipc{row.ipc}.yaml": row.text for row in rows()}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(CONFIGS.parent))
