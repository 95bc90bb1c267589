#!/usr/bin/env bash
# Make the cards behind the README's results table: condense on real data and copy card and grid into results/.
# Needs data/MNIST and data/cifar10 (image folders). Hours on two cores. An interrupted row goes on where it was:
# call again with its name and --ckpt_path last. Usage: scripts/run_results.sh [NAME [lit-condense options]]
set -euo pipefail
cd "$(dirname "$0")/.."

row() {  # NAME, then options of lit-condense
  local name="$1"; shift
  lit-condense fit --config "configs/dc/$name.yaml" "$@"
  mkdir -p "results/dc_$name"
  cp "runs/dc/$name/card.json" "runs/dc/$name/grid.png" "results/dc_$name/"
}

options() {  # what a row needs beyond its config
  case "$1" in
    cifar10_ipc1)  # 200 of the published 1,000 updates; data as an image folder
      echo --data lit_condense.data.ImageFolder --data.root data/cifar10 --data.normalization dc \
        --trainer.max_steps 200 --trainer.val_check_interval 100 ;;
  esac
}

for name in ${1:-digits_ipc1 digits_ipc10 cifar10_ipc1 mnist_ipc1}; do
  # shellcheck disable=SC2046
  row "$name" $(options "$name") "${@:2}"
done
python scripts/build_readme.py
