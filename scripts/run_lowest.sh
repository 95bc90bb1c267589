#!/usr/bin/env bash
# The default tests with the lowest version of every dependency, as pyproject.toml gives them, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

environment="$(mktemp -d)"
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
. "$environment/bin/activate"
python scripts/lowest_versions.py > "$environment/lowest.txt"
cat "$environment/lowest.txt"
pip install --quiet -c "$environment/lowest.txt" -e '.[test]'
pytest -W default "$@"  # old releases warn of themselves
