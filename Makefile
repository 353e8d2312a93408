.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes, so two files run at a time, each with a broker of its own; what waits longest goes first.
# `make test PARALLEL=` runs everything one after another.
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-all check bench lock docs clean

help: ## Say what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything, hash-checked

$(STAMP): requirements.txt requirements-uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "millrace needs Python >= 3.11; name one with: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Start the one-machine stack, run the demo on real data, stop what was started
	$(BIN)/millrace demo $(ARGS)

check: setup ## Lint, types, architecture
	$(BIN)/ruff format --check millrace tests
	$(BIN)/ruff check millrace tests
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/architecture

# The architecture is among the checks.
test: check ## The whole suite, but for what takes minutes by itself
	$(BIN)/python -m pytest --ignore=tests/architecture -m "not slow" $(PARALLEL) $(ARGS)

test-all: check ## The whole suite, long outages and many kills included, with other examples each time
	$(BIN)/python -m pytest --ignore=tests/architecture --hypothesis-profile=search $(PARALLEL) $(ARGS)

bench: setup ## Measure inference, latency and archiving against a bare loop, on this machine
	$(BIN)/millrace bench inference
	$(BIN)/millrace bench latency
	$(BIN)/millrace bench archive

docs: setup ## Write the generated documents anew
	$(BIN)/millrace asyncapi > docs/asyncapi.yaml

lock: setup ## Resolve the dependencies anew, with hashes and without addresses
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes --no-header --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.txt

clean: ## Remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
