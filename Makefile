# What people do here, and what CI runs. `make` lists it.
.DEFAULT_GOAL := help
.PHONY: help test slow lint docs bench ci wheel lowest

help:  ## list the tasks
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

test:  ## the default tests
	pytest

slow:  ## the longer proofs
	bash scripts/run_slow_tests.sh

lint:  ## style, types, layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports

docs:  ## rebuild configs, tables and the notebook from what programs wrote
	python scripts/make_configs.py
	python scripts/build_readme.py
	python scripts/build_notebook.py

bench:  ## an update beside the reference loop, on this machine
	python -m benchmarks.update --method dc --ipc 1

wheel:  ## build wheel and sdist, and run the quickstart from the wheel outside the checkout
	bash scripts/try_wheel.sh

lowest:  ## the default tests with the lowest supported versions
	bash scripts/run_lowest.sh

ci:  ## what the server does
	bash .ci/run
