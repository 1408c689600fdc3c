# kdcache: everything a person types. Each target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format bench docs clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install kdcache with everything

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kdcache needs Python 3.11 or newer: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt -e '.[all,dev]'
	@touch $@

demo: setup ## a student from served teacher logits against its hard-label twin (about 2 minutes)
	$(BIN)/kdcache demo --out demo-out

test: setup ## the fast tests
	$(BIN)/pytest -n 2

test-slow: setup ## the long tests: kill campaigns, long trainings
	$(BIN)/pytest -n 2 -m slow -o faulthandler_timeout=1740

check: setup ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## every benchmark; writes benchmarks/results/
	$(BIN)/python -m benchmarks

docs: setup ## the API page, from the docstrings, in docs-out/
	$(BIN)/python docs/api.py docs-out

clean: ## remove the environment and what the demo left
	rm -rf .venv demo-out docs-out
