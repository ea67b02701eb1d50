# The two commands: `make demo` builds the example up to its PDF, `make test` checks and tests everything.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV)/bin)
BENCH := .venv-bench
EXAMPLE := examples/covariance

.PHONY: demo test lint bench clean help

help:
	@echo "make demo    make an environment, install labmake, build $(EXAMPLE) up to its PDF"
	@echo "make test    install what tests need; linting, formatting, types and all tests"
	@echo "make bench   time labmake beside its peers, in an environment of their own (minutes; OPTIONS=--help)"
	@echo "make clean   remove the environment and what the example generated"

demo: $(VENV)/.example
	cd $(EXAMPLE) && $(BIN)/labmake
	@echo
	@echo "The report:  $(EXAMPLE)/generated/2023-10-07-Covariance-Matrix-Prior-Investigation/outputs/report.pdf"
	@echo "Its script:  $(EXAMPLE)/scripts/2023-10-07-Covariance-Matrix-Prior-Investigation/script.py"
	@echo "Call it again: nothing is made twice. Next: docs/tutorial.md"

# Compiled first: where PYTHONDONTWRITEBYTECODE is set, each of the thousand commands of the stories would compile again.
test: lint
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/run.py $(OPTIONS)

clean:
	rm -rf $(VENV) $(BENCH) $(EXAMPLE)/generated

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.example: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[example]'
	@touch $@

# The peers' own requirements never touch the environment of the tests. One that cannot be installed is left out.
$(BENCH)/.bench: pyproject.toml benchmarks/install.py
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[example]'
	$(BENCH)/bin/python benchmarks/install.py
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@
