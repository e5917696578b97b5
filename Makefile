# Everything here does its own set-up: a virtual environment from constraints.txt, then the command.
PYTHON ?= python3
BIN := .venv/bin
LOWEST ?= .venv-lowest
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-lowest check format clean

demo: .venv/.core
	$(BIN)/electrain demo

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The same with the oldest versions that pyproject.toml accepts. PyPI's build of an old torch for Linux is several GB;
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the small one.
test-lowest: $(LOWEST)/.dev
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal

# The everyday loop: style, types, and the tests that take seconds.
check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow"

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch goes first: its own constraint keeps a CPU build where there is one.
.venv/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.core
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# Only what is declared is held at its lower bound; what that depends on is the newest that fits.
$(LOWEST)/.dev: pyproject.toml
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	grep -oE '"[a-z0-9-]+>=[0-9.]+"' pyproject.toml | tr -d '"' | sed 's/>=/==/' > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install -q -c $(LOWEST)/constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv $(LOWEST) build src/*.egg-info
