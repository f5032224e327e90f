# Everything sets itself up: a virtual environment in .venv, pinned versions, an editable install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check bench format clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "thawlab needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(READY) ## Install into .venv (the other targets do it themselves)

demo: $(READY) ## Train on real digits, two phases beside from scratch: a few minutes
	$(BIN)/thawlab demo

test: check ## Run the checks and the tests that take minutes in all
	$(BIN)/python -m pytest

test-all: check ## Run all tests, the slow ones too
	$(BIN)/python -m pytest -m 'slow or not slow'

check: $(READY) ## Format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The peers live in a virtual environment of their own; TensorFlow's wheels want their own versions of much.
PEERS := benchmarks/.venv/.ready
$(PEERS):
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy
	@touch $@

bench: $(READY) $(PEERS) ## Compare with other programs: make bench CIFAR10=FOLDER (hours; ONLY=work,work and REPETITIONS=1 for less)
	$(BIN)/python benchmarks/run.py --cifar10 "$(CIFAR10)" --keras-python benchmarks/.venv/bin/python \
	  --repetitions $(or $(REPETITIONS),3) --only "$(ONLY)" --out benchmarks/results/$$(date +%F).json

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment and tools' caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
