# make help lists the targets. TORCH=cpu installs torch without CUDA's libraries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

TORCH :=

.DEFAULT_GOAL := help
.PHONY: help demo test lab lint format lock notebooks benchmarks clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo "TORCH=cpu, as in make demo TORCH=cpu: install torch without CUDA's libraries"

demo: $(VENV)/installed ## a study from nothing: 6 methods × 3 seeds on handwritten digits, and its summary
	$(BIN)/alkit run params/digits.yaml --cores $(CORES)

test: $(VENV)/installed ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(CORES) + 1))  # some tests wait more than they work

lab: $(VENV)/installed ## the quickstart in JupyterLab
	$(BIN)/jupyter lab notebooks/quickstart.ipynb

lint: $(VENV)/installed ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/installed ## ruff, with its mends
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: $(VENV)/installed ## write requirements.lock from what is installed
	$(BIN)/python scripts/lock.py

notebooks: $(VENV)/installed ## bring the cells that all notebooks share up to date
	$(BIN)/python scripts/notebooks.py

benchmarks: $(VENV)/installed ## measure how fast the kit is on this machine
	$(BIN)/python -m benchmarks

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alkit needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	grep -vE '^(nvidia|cuda|triton)' requirements.lock > $(VENV)/cpu.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu -r $(VENV)/cpu.lock || \
		{ echo 'TORCH=cpu needs download.pytorch.org; "make demo" without it takes torch from PyPI'; exit 1; }
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean: ## remove what was installed
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
