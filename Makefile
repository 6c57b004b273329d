# make demo: a study from nothing.  make test: the whole test suite.  make lab: the notebooks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.PHONY: demo test lab lint format lock notebooks benchmarks clean

demo: $(VENV)/installed
	$(BIN)/alkit run params/digits.yaml --cores $(CORES)

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES)

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks/quickstart.ipynb

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: $(VENV)/installed  ## write requirements.lock from what is installed
	$(BIN)/python scripts/lock.py

notebooks: $(VENV)/installed  ## bring the cells that all notebooks share up to date
	$(BIN)/python scripts/notebooks.py

benchmarks: $(VENV)/installed
	$(BIN)/python -m benchmarks

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alkit needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
