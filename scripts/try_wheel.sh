#!/usr/bin/env bash
# Build sdist and wheel, and run the quickstart from the wheel outside the checkout: what is not packed is missed here.
set -euo pipefail
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
git archive --prefix=source/ HEAD | tar -x -C "$work"   # no build folder of earlier builds, no ignored file
pip install --quiet 'build>=1.2'
python -m build --outdir "$work/dist" "$work/source"
pip install --quiet --no-deps --target "$work/installed" "$work"/dist/*.whl
tar -tzf "$work"/dist/*.tar.gz | grep '/LICENSE$' > /dev/null
unzip -l "$work"/dist/*.whl | grep 'licenses/LICENSE$' > /dev/null
mkdir "$work/elsewhere" && cd "$work/elsewhere"
export PYTHONPATH="$work/installed" OMP_WAIT_POLICY=passive
python -c "import lit_condense; assert lit_condense.__file__.startswith('$work'), lit_condense.__file__"
python -m lit_condense fit --config "$work/source/configs/quickstart.yaml"
test -s runs/quickstart/condensed.safetensors
