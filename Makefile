# Everything sets itself up: a virtual environment in .venv, pinned versions, an editable install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONSTRAINTS ?= constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage test-all check docs bench bench-beside bench-accuracy format clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "thawlab needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

setup: $(READY) ## Install into .venv (the other targets do it themselves)

demo: $(READY) ## Learn 100 real digits, with ImageNet's weights and from scratch: four minutes
	$(BIN)/thawlab demo

# sys.monitoring (Python 3.12) makes measuring nearly free; coverage.py does not choose it itself before 3.14.
CORE = $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')

# As many processes as there are cores, up to four, each with one thread: tests are small.
JOBS ?= $(shell $(BIN)/python -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))')

TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test: check ## Run the checks and the tests that take minutes in all
	$(TEST)

coverage: check ## The same, and see that they run enough of the lines; which they miss: .venv/bin/coverage report
	COVERAGE_CORE=$(CORE) $(TEST) --cov --cov-report=

test-all: check ## Run all tests, the slow ones and the notebooks too
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev,notebook]'
	$(BIN)/python -m pytest -m 'slow or not slow'

check: $(READY) ## Format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

DOCS := $(VENV)/.docs
$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[docs]'
	@touch $@

docs: $(DOCS) ## Build the documentation's site into build/site; a warning or a dead link is an error
	$(BIN)/python tools/pages.py build/pages
	$(BIN)/zensical build --strict --clean

# The peers live in a virtual environment of their own; TensorFlow's wheels want their own versions of much.
PEERS := benchmarks/.venv/.ready
$(PEERS):
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy safetensors
	@touch $@

FASTAI := benchmarks/.venv-fastai/.ready
$(FASTAI):
	$(PYTHON) -m venv benchmarks/.venv-fastai
	benchmarks/.venv-fastai/bin/python -m pip install --quiet --disable-pip-version-check fastai==2.8.12 timm safetensors ultralytics==8.4.190
	@touch $@

BENCHED = benchmarks/results/$(shell date +%F)$(if $(QUICK),-quick)
bench: $(READY) $(PEERS) ## Compare with other programs: make bench CIFAR10=FOLDER (hours; QUICK=1: minutes; ONLY=work,work)
	$(BIN)/python benchmarks/run.py --cifar10 "$(CIFAR10)" --keras-python benchmarks/.venv/bin/python $(if $(QUICK),--quick) \
	  $(if $(REPETITIONS),--repetitions $(REPETITIONS)) --only "$(ONLY)" --out $(BENCHED).json

bench-beside: $(READY) $(PEERS) ## Train beside other work, we and other programs: make bench-beside CIFAR10=FOLDER
	$(BIN)/python benchmarks/beside.py --cifar10 "$(CIFAR10)" --keras-python benchmarks/.venv/bin/python \
	  --repetitions $(or $(REPETITIONS),3) --out $(BENCHED)-beside.json

bench-accuracy: $(READY) $(FASTAI) $(PEERS) ## Time to an accuracy beside other programs: make bench-accuracy CIFAR10=FOLDER BACKBONE=FOLDER
	$(BIN)/python benchmarks/time_to_accuracy.py --cifar10 "$(CIFAR10)" --backbone "$(BACKBONE)" \
	  --fastai-python benchmarks/.venv-fastai/bin/python --ultralytics-python benchmarks/.venv-fastai/bin/python $(if $(findstring mobilenetv2_100,$(BACKBONE)),--keras-python benchmarks/.venv/bin/python) \
	  --repetitions $(or $(REPETITIONS),3) --out $(BENCHED)-accuracy.json

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment and tools' caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
