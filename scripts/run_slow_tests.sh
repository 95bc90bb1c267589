#!/usr/bin/env bash
# The longer proofs that the default pytest run leaves out (compiled arithmetic against float64).
set -euo pipefail
cd "$(dirname "$0")/.."
pytest -m slow tests "$@"
