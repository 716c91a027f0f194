PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run test bench soak lint types cover clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 14

install: $(STAMP) ## create .venv with everything, development tools included

$(STAMP): pyproject.toml requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: install ## set everything up and watch the gateway meter, cut off and book a stream
	$(BIN)/lava-proxy demo

test: install ## run the tests (no service needed)
	$(BIN)/python -m pytest

bench: install ## benchmarks: direct, nginx, naive proxy and ours in one run
	$(BIN)/python -m benchmarks

lint: install ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict, both packages
	$(BIN)/mypy

cover: install ## tests with a coverage report
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

clean: ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov dist lava-data benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
