# Short names for the commands of CONTRIBUTING.md. PYTHON may name another interpreter: make test PYTHON=python3.12
PYTHON ?= python

.PHONY: help install check lint format types test slow docs build smoke clean

help:
	@echo "make install  this checkout with everything, at the pinned versions"
	@echo "make check    lint, types, test, docs, build: what has to pass before a commit"
	@echo "make lint     ruff: rules and format        make format  let ruff rewrite the files"
	@echo "make types    mypy on matinfo/"
	@echo "make test     tests and doctests            make slow    only the tests marked slow"
	@echo "make docs     docs/_build/html, warnings are errors"
	@echo "make build    sdist and wheel in dist/"
	@echo "make smoke    the training script for two epochs, into a temporary folder"
	@echo "make clean    remove what the targets above have written"

install:
	$(PYTHON) -m pip install -c constraints.txt -e ".[dev]"

check: lint types test docs build

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

slow:
	$(PYTHON) -m pytest -m "slow and not gpu"

docs:
	$(PYTHON) -m sphinx -W --keep-going -E -b html docs docs/_build/html

build:
	$(PYTHON) -m build --no-isolation

smoke:
	$(PYTHON) reference_training/pretrain_mmae.py --epochs 2 --out "$$(mktemp -d)/run"

clean:
	rm -rf build dist docs/_build docs/generated .pytest_cache .ruff_cache .mypy_cache .hypothesis htmlcov .coverage
