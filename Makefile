# make run   the main job on the embedded default model; the last line names the run directory
# make test  every test
# make soak  what is too slow for every change: real models, every preset, hundreds of sweeps
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= study
ARGS ?=

.PHONY: run test soak check clean

run: $(VENV)/core
	$(BIN)/python -m experiments.$(RUN) $(ARGS)

# Two workers with one thread each: tests that share two cores with themselves are slower than tests that do not. A file
# goes to one worker, so that what its tests share is made once.
test: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(VENV)/test
	$(BIN)/python -m pytest -m soak $(ARGS)

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/core: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/test: $(VENV)/core requirements-test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-test.lock
	touch $@

# Faults that tests must notice: N of them drawn with SEED, or those with a name (FAULTS=named). See .ci/mutants.py.
N ?= 60
SEED ?= 0
FAULTS ?= drawn

.PHONY: mutants
mutants: $(VENV)/test
	$(BIN)/python .ci/mutants.py --n $(N) --seed $(SEED) $(if $(filter named,$(FAULTS)),--named) $(ARGS)
