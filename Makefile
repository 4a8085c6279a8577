# make setup | demo | test | lint | clean
PYTHON ?= $(firstword $(shell command -v python3.11) python3)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test lint clean python compiler

setup: python $(STAMP)

# torch goes first, in the version of constraints.txt, so that nothing else decides which build of it is taken.
$(STAMP): pyproject.toml constraints.txt | python
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt torch
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: compiler setup
	$(BIN)/nas run experiments/configs/digits.yaml

test: compiler setup
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache

python:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'hwnas needs Python 3.11 or newer with venv; on Debian: apt-get install python3.11 python3.11-venv,'; \
	  echo 'or name another interpreter: make PYTHON=/path/to/python3.12 ...'; exit 1; } >&2

compiler:
	@command -v g++ >/dev/null || \
	{ echo 'hls4ml compiles its C simulation with g++, which is missing; on Debian: apt-get install g++'; exit 1; } >&2
