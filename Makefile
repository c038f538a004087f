# Every target sets up what it needs first: `make demo` alone works in a fresh clone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH  := .venv-bench
PEERS  := $(BENCH)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix fuzz audit bench docs examples clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the pinned versions of everything

# Debian's python3 may come without ensurepip: then the pip at hand puts one into the environment.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a few minutes, once."
	@$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --without-pip --clear $(VENV) && \
	    $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY) ## compare losses and optimizers on a real table, in about a minute
	$(BIN)/steepest compare examples/flight_delays.csv --target arr_delay --metric mae --hidden 32 --epochs 20 --out demo

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -n 2

check: $(READY) ## lint, format and types; writes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_architecture.py

fix: $(READY) ## mend what ruff can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

FUZZ_SEC ?= 60
FUZZED = csv tsv gzipped parquet column model_manifest model_weights plan question sums journal finished earlier verdict words

# atheris has wheels for some systems only, so it is no part of the environment that everybody gets.
fuzz: $(READY) ## search for inputs that no reader takes well, FUZZ_SEC=60 seconds for each
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@set -e; for reader in $(or $(READER),$(FUZZED)); do \
	    $(BIN)/python -m tests.fuzz.fuzz $$reader -max_total_time=$(FUZZ_SEC); done

audit: $(READY) ## look the pinned versions up in the databases of vulnerabilities; needs the network
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(BIN)/python -m pip_audit --skip-editable

# An environment of its own, for the peers bring much along; half an hour or more, on an idle machine.
bench: $(PEERS) ## measure against the peers, and put the figures into docs/performance.md
	@set -e; for suite in losses optimizers training compare; do \
	    $(BENCH)/bin/steepest bench $$suite --json benchmarks/results/$$suite.json; done
	$(BENCH)/bin/python benchmarks/write_table.py

$(PEERS): pyproject.toml constraints.txt benchmarks/requirements.txt
	@echo "Setting up $(BENCH): a few minutes, once."
	@$(PYTHON) -m venv $(BENCH) || { $(PYTHON) -m venv --without-pip --clear $(BENCH) && \
	    $(PYTHON) -m pip --python $(BENCH)/bin/python install --quiet pip; }
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . \
	    -r benchmarks/requirements.txt
	@touch $(PEERS)

docs: $(READY) ## write docs/_build/html: the guides, and a page for each loss and optimizer
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

examples: $(READY) ## make more real tables, and print the commands to compare on them
	$(BIN)/python examples/make_tables.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r examples/requirements.txt
	$(BIN)/python examples/real_tables.py

clean: ## remove what the targets made, .venv included
	rm -rf $(VENV) $(BENCH) build dist demo examples/tables docs/_build docs/_generated .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
	find src tests examples -name __pycache__ -prune -exec rm -rf {} +
