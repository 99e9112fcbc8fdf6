# make demo [IMAGE=photo.jpg]   from nothing to pictures in demo/; no torch
# make figures                  the pictures of README and docs anew, after models have changed
# make kernels                  the machine code that sempic brings anew, after the label coder's sources have
#                               changed; on x86-64 Linux
# make test                     from nothing through the whole gate; what .ci/run calls
# make check                    the gate alone, in whatever environment is active

PYTHON ?= python3
IMAGE  ?=
export IMAGE
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-compile

.PHONY: demo figures kernels test check format clean

demo: .venv/.base
	$(BIN)/python examples/demo.py $${IMAGE:+"$$IMAGE"}

# Needs what the notebooks need, in whatever environment is active.
figures:
	python examples/figures.py

# In whatever environment is active.
kernels:
	python examples/kernels.py

test: .venv/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(MAKE) --no-print-directory check

# One thread for BLAS and OpenMP: the tests make many small calls, not few large ones.
check: export OMP_NUM_THREADS = 1
check: export OPENBLAS_NUM_THREADS = 1
# Python keeps what it compiles, whatever the environment says: without bytecode, each of a hundred
# processes compiles torch's sources again, which takes seconds.
check: export PYTHONDONTWRITEBYTECODE =
check:
	ruff format --check .
	ruff check .
	mypy --num-workers 2
	lint-imports
	python -m pytest -q -n auto --dist loadfile

format:
	ruff format .
	ruff check --fix .

# The pip that comes with a Python may be years old, and takes half a minute longer.
.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip

.venv/.base: pyproject.toml | .venv/bin/python
	$(PIP) -e .
	touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[test,check]'
	touch $@ .venv/.base

clean:
	rm -rf .venv demo dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
