#!/usr/bin/env bash
# Build sdist and wheel, and run the quickstart from the wheel outside the checkout: what is not packed is missed here.
set -euo pipefail
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/source"   # without what earlier builds left
cp -r pyproject.toml setup.cfg README.md LICENSE CHANGELOG.md CITATION.cff lit_condense configs "$work/source"
pip install --quiet 'build>=1.2'
python -m build --outdir "$work/dist" "$work/source" > "$work/build.log" || { cat "$work/build.log"; exit 1; }
pip install --quiet --no-deps --target "$work/installed" "$work"/dist/*.whl
python -m tarfile -l "$work"/dist/*.tar.gz | grep '/LICENSE' > /dev/null
python -m zipfile -l "$work"/dist/*.whl | grep 'licenses/LICENSE' > /dev/null
mkdir "$work/elsewhere" && cd "$work/elsewhere"
export PYTHONPATH="$work/installed" OMP_WAIT_POLICY=passive
python -c "import lit_condense; assert lit_condense.__file__.startswith('$work'), lit_condense.__file__"
python -m lit_condense configs dream cifar10_ipc10 | grep 'dream/cifar10_ipc10' > /dev/null
python -m lit_condense fit --config quickstart "$@"
test -s runs/quickstart/version_0/condensed.safetensors
