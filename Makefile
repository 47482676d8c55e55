# Every target sets up what it needs; a second time that costs nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Most tests wait for servers most of the time: more processes than a small machine has processors.
PYTEST := $(BIN)/python -m pytest --numprocesses 4 --dist loadfile
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-all lint format clean bench-embedded compare compare-quick

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PYTHONWARNINGS=ignore $(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## Watch real work run through Celery, with no server (BROKER_PROFILE=redis for Redis)
	@$(BIN)/broker-profiles demo

test: $(READY) ## Run the tests on real servers (containers, or native processes)
	$(PYTEST) -m "not slow"

test-quick: $(READY) ## Run the quick part: units, stores, and one round on each kind of server
	$(PYTEST) -m "not slow" -k "not mongodb" tests/unit tests/stores tests/acceptance/test_profiles.py

test-all: $(READY) ## Run every test, the slow ones too
	$(PYTEST)

lint: $(READY) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compare: $(READY) ## Prove or disprove every promise on every broker, and measure; the report is in comparison/
	$(BIN)/broker-profiles compare --load full

compare-quick: $(READY) ## The main cases on the main profiles
	$(BIN)/broker-profiles compare --quick

bench-embedded: $(READY) ## Measure the embedded profile: tasks a second in and out, idle cost
	$(BIN)/python -m benchmarks.embedded

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
