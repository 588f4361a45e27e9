# make run         the main job on the embedded default model; the last line names the run directory
# make quick       a quick look: 8 prompts, all heads screened, the strongest ablated; the last line is the report's path
# make notebook    JupyterLab on the notebooks
# make test        every test but the long ones
# make test-quick  what an edit needs: one case of each test; no whole runs, SmolLM2, browser or other processes
# make test-shapes what computes with arrays, its shapes checked, in random order
# make picture     docs/report.png, the first screen of the default study: of DIR=results/study/…, or of the newest
# make docs        the site from docs/, strictly; the last line is its first page
# make soak        what is too slow for every change: real models, repetitions, large products, hundreds of sweeps
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= study
ARGS ?=

.PHONY: run quick notebook test test-quick test-shapes soak docs check audit clean

run: $(VENV)/core
	$(BIN)/python -m experiments.$(RUN) $(ARGS)

# The runner's last line is the run directory; the rest of what it writes goes to standard error.
quick: $(VENV)/core
	@run=$$($(BIN)/python -m experiments.study experiment=quick $(ARGS)) || exit $$?; \
	[ -z "$$run" ] || echo "$$run/report.html"

notebook: $(VENV)/notebook
	$(BIN)/jupyter lab experiments/notebooks $(ARGS)

# Two workers with one thread each: tests that share two cores with themselves are slower than tests that do not. A file
# goes to one worker, so that what its tests share is made once. Byte code is kept, which each start would make again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder --durations=15
QUICK := not soak and not smollm2 and not browser and not launch

test: $(VENV)/test
	$(PYTEST) $(SPREAD) $(ARGS)

test-quick: $(VENV)/test
	HARNESS_QUICK=1 $(PYTEST) $(SPREAD) -m '$(QUICK)' $(ARGS)

# What computes with arrays, its shapes checked at run time, in an order of the day.
SHAPED := $(addprefix tests/test_,$(addsuffix .py,metrics attribution attribution_methods attention direct stats sweep words))

test-shapes: $(VENV)/test
	HARNESS_SHAPES=1 HARNESS_ORDER=$$(date +%j) $(PYTEST) -m '$(QUICK)' $(SHAPED) $(ARGS)

soak: $(VENV)/test
	$(PYTEST) -m soak --timeout 3600 --durations=15 $(ARGS)

# Needs Chromium. A test compares the picture's mark with the page's scripts and style, and says when this is due.
.PHONY: picture docs/report.png
picture docs/report.png: $(VENV)/test
	$(BIN)/python .ci/picture.py $(DIR)

# In an environment without the network the build is the same: no page loads anything from it.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --quiet --strict $(ARGS)
	@echo build/site/index.html

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck .ci/run .ci/audit .ci/wheel
	$(BIN)/codespell *.md CITATION.cff docs conf experiments harness

# What is known against the locked packages; needs the advisory service, and fails without it.
audit: $(VENV)/test
	.ci/audit

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

$(VENV)/notebook: $(VENV)/core requirements-notebook.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-notebook.lock
	touch $@

$(VENV)/docs: $(VENV)/core requirements-docs.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.lock
	touch $@

# Faults that tests must notice: N of them drawn with SEED, or those with a name (FAULTS=named). See .ci/mutants.py.
N ?= 60
SEED ?= 0
FAULTS ?= drawn

.PHONY: mutants
mutants: $(VENV)/test
	$(BIN)/python .ci/mutants.py --n $(N) --seed $(SEED) $(if $(filter named,$(FAULTS)),--named) $(ARGS)
