# `make demo` and `make test` set up what they need; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all coverage lint format lock compat audit mutants clean
VENV := .venv
PYTHON ?= python3

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## make .venv with the package and everything pinned in requirements.txt

# uv installs; where the machine has none, it comes into the environment itself.
$(VENV)/.ready: requirements.txt pyproject.toml
	@if command -v uv >/dev/null; then uv venv --quiet --allow-existing --python '>=3.11,<3.14' $(VENV); \
	 else $(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv; fi
	@uv=$$(command -v uv || echo $(VENV)/bin/uv); \
	 $$uv pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements.txt && \
	 $$uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## draw synthetic photos, train two small models, show what leakage does
	$(VENV)/bin/hcoatnet demo

test: setup ## the fast tests
	$(VENV)/bin/pytest -n 2 --dist loadscope -m "not slow"

test-all: setup ## the fast and the slow tests
	$(VENV)/bin/pytest -n 2 --dist loadscope

coverage: setup ## the fast tests, and how much of the package they go through (takes twice as long)
	$(VENV)/bin/python benchmarks/covered.py --out docs/results/coverage.json

lint: setup ## style and types
	$(VENV)/bin/ruff check --no-cache .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup ## bring the code into shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: ## compile requirements.txt and requirements-serve.txt from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev \
	  --output-file requirements.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --constraint requirements.txt --group server --output-file requirements-serve.txt

compat: setup ## install the built package into other Pythons, with the oldest and the newest dependencies (needs uv; long)
	$(VENV)/bin/python benchmarks/compatibility.py

audit: ## look for known vulnerabilities in what requirements.txt pins (needs uv and a network)
	uvx pip-audit --strict --disable-pip --require-hashes --requirement requirements.txt

mutants: setup ## change one thing at a time in the code and see whether the tests notice (needs uv and a network; long)
	uv run --no-project --python $(VENV)/bin/python --with cosmic-ray==8.7.0 \
	  python benchmarks/mutation.py --out docs/results/mutation.json

clean: ## remove what the targets made, but not your runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build demo
