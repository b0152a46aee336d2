# make run    installs the dependencies into .venv and trains the default config in runs/first.
#             Run it again to resume after an interruption, or to print the scores of a finished run.
#             `rm -r runs/first` starts over; WORKDIR=DIR trains elsewhere.
# make test   runs the quick tests.
# make test-all  runs all tests, including those with several processes, kills, servers and a browser.
# make soak   runs long tests: random kills, 100,000 steps, time estimates against measured times.
# make lint   checks style and types.
# make results  updates the tables of README, docs/results.md and docs/speed.md from the committed records.
# make models   retrains and exports the small models in docs/models; needs LM_DATA_DIR.
# make lock   updates the hashed locks from the requirements files.
#
# PYTHON chooses the interpreter for a new .venv: make run PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/first
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: run test test-all soak lint results models lock
.DEFAULT_GOAL := run

run: $(VENV)/.installed
	$(BIN)/python launch.py --workdir=$(WORKDIR)

# XLA compiles tests without optimisations, in two thirds of the time. `make test-all` runs them as users run the code.
test: $(VENV)/.installed-dev
	XLA_FLAGS=--xla_backend_optimization_level=0 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

soak: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/soak/soak_*.py

# Paths for the type checker.
TYPED := launch.py configs lm experiments

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/ty check --quiet --python $(VENV) $(TYPED)

results: $(VENV)/.installed
	$(BIN)/python -m experiments.ledger.results_page
	$(BIN)/python -m experiments.peers.speed_page

SHIPPED := lstm lstm_fused embedding bigram bigram_dropout

models: $(VENV)/.installed
	for name in $(SHIPPED); do \
	    $(BIN)/python launch.py --config=configs/text8/$$name.py --config.data.corpus=text8_prefix \
	        --workdir=runs/models/$$name --noeta && \
	    $(BIN)/python launch.py --experiment=export --workdir=runs/models/$$name --to=docs/models/text8_$$name || exit; \
	done

# Universal: each lock is valid for every platform and for Python 3.11 and 3.12. requirements.lock
# constrains the other two, so that tests run on the versions that users get.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --annotation-style line --custom-compile-command "make lock"

lock: $(VENV)/.installed-dev
	$(LOCK) --upgrade requirements.txt --output-file requirements.lock
	$(LOCK) requirements-dev.txt --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) requirements-gpu.txt --constraint requirements.lock --output-file requirements-gpu.lock

# Stamps are touched last, so interrupted steps are repeated. Only a changed lock is reinstalled.
$(VENV)/.installed: requirements.lock $(VENV)/.created
	@echo "installing requirements.lock into $(VENV)"
	@$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.created
	@echo "installing requirements-dev.lock into $(VENV)"
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "error: no $(PYTHON) here: install Python 3.11 or 3.12, or name one: make PYTHON=..." >&2; \
	    exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1): 3.11 or newer is needed:" \
	        "make PYTHON=python3.12" >&2; \
	    exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $(PYTHON) lacks venv: on Debian, apt install python3-venv" >&2; \
	    exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
