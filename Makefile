PYTHON ?= python3
# Half of the tests' time is waiting (outages, drains, leases), so more workers than two cores.
TEST_WORKERS ?= 4
# The tests start many processes: each would compile everything again.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIN := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help install run test bench soak lint types cover docs pins clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 14

install: $(STAMP) ## create .venv with everything, development tools included

$(STAMP): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: install ## set everything up and watch the gateway meter, cut off and book a stream
	$(BIN)/lava-proxy demo

test: install ## run the tests (no service needed)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

bench: install ## benchmarks: direct, nginx, naive proxy and ours in one run
	$(BIN)/python -m benchmarks.parts
	$(BIN)/python -m benchmarks.writer
	$(BIN)/python -m benchmarks.reports
	$(BIN)/python -m benchmarks

soak: install ## the long reliability rigs
	RIG_LONG=1 $(BIN)/python -m pytest tests/rigs -s --timeout 3600

lint: install ## style: ruff's rules and its format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict, both packages
	$(BIN)/mypy

cover: install ## tests with a coverage report
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

docs: install ## write the tables in docs/ that are made from the code
	$(BIN)/python docs/tables.py

pins: install ## choose newest versions again and write requirements/*.txt
	$(PIN) --upgrade --extra tokens --output-file requirements/run.txt >/dev/null
	$(PIN) --upgrade --extra tokens --extra dev --output-file requirements/dev.txt >/dev/null

clean: ## remove what was made here, but never lava-data: books may be in it
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov dist benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
