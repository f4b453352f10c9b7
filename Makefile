# Each target sets up what it needs. `make run` and `make test` are all a newcomer wants.
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTHON ?= $(BIN)/python
LOWEST := $(VENV)-lowest

.PHONY: help run test test-all test-lowest check bench soak gpu gpu2 setup clean

help:
	@echo "make run    search the bundled model for a policy of half its latency (about 5 minutes)"
	@echo "make test   lint, types, import rules and the fast tests"
	@echo "make test-all  these and the longer ones, as CI does"
	@echo "make test-lowest  the fast tests with the oldest packages that pyproject.toml allows"
	@echo "make check  the same without the tests"
	@echo "make bench  benchmarks: they print and never fail"
	@echo "make soak   the long tests"
	@echo "make gpu    everything that needs an NVIDIA GPU, in under 9 minutes"
	@echo "make gpu2   a second time: a model trained there, and its fronts against all presets"

setup: $(VENV)/.ready

# uv and not pip: it takes torch and torchvision as a matching pair from the registry, whatever
# builds pip is configured to prefer. Bytecode is compiled once: without it, where Python may write
# none, every process compiles torch anew, which takes 10 s. Not that of transformers, for tests alone.
$(VENV)/.ready: pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable . --group dev
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group hosts
	@touch $@

run: setup
	$(BIN)/tokensearch run $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Bytecode of the tests themselves is kept, whatever the environment says: it halves their collection.
test test-all test-lowest soak: export PYTHONDONTWRITEBYTECODE =

test: check
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal

test-all: check
	$(PYTHON) -m pytest -m "not slow and not gpu" -n auto --maxprocesses 4 --dist worksteal

# The lower bounds are a promise: Python 3.11, and of every direct dependency the oldest one allowed.
test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -m "not slow and not gpu" -n auto --maxprocesses 4 --dist worksteal

$(LOWEST)/.ready: pyproject.toml | setup
	$(BIN)/uv venv --quiet --clear --python 3.11 $(LOWEST)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(LOWEST)/bin/python \
		--resolution lowest-direct --editable . --group dev
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --group hosts
	@touch $@

soak: setup
	$(PYTHON) -m pytest -m slow

bench: setup
	$(PYTHON) -m tests.bench presets
	$(PYTHON) -m tests.bench runtime --backend eager

# `make gpu PYTHON=python3` uses an environment that is there already, its torch for one. OUT names the
# folder of the report, ARCHIVE another file for all of it than OUT.tgz, ONLY and SKIP parts; DEVICE=cpu
# tries all parts. PLAN=demo trains and tries two candidates for the bundled model, in under six minutes.
OUT ?= reports/$(if $(filter gpu2,$(MAKECMDGOALS)),gpu2,gpu)
PLAN ?= first
gpu: $(if $(filter $(BIN)/%,$(PYTHON)),setup)
	$(PYTHON) -m tests.bench gpu --plan $(PLAN) --out $(OUT) $(if $(DEVICE),--device $(DEVICE)) \
		$(if $(ARCHIVE),--archive $(ARCHIVE)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(SKIP),--skip $(SKIP)) $(if $(ALSO),--also $(ALSO))

# In a second slice of time: a model trained there, its fronts, a larger one. `make gpu2 ALSO="noise
# presets"`: and then what the first plan still owes.
gpu2: PLAN := second
gpu2: gpu

clean:
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
