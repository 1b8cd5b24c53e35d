# Two commands: `make serve` and `make test`. Each installs what it needs, once.
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
CLIENTS ?= .venv-clients
HOST ?= 127.0.0.1
PORT ?= 5000
BIN := $(VENV)/bin

.PHONY: serve test bench fuzz soak format
export HOST PORT CLIENTS

# Where VGG16's weights cannot be had, a small model stands in and says so. Not in production.
serve: export PREDICTOR_FALLBACK_MODEL ?= efficientnet_lite0
serve: $(VENV)/requirements.stamp
	exec $(BIN)/gunicorn wsgi:app

test: $(VENV)/requirements-dev.stamp $(CLIENTS)/requirements-clients.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest $(PYTEST)

# What it can be told: make bench BENCH="--help"
bench: $(VENV)/requirements-dev.stamp
	$(BIN)/python -m benchmarks $(BENCH)

# make fuzz FUZZ="--images 100000"; the seed it prints makes the same inputs again.
fuzz: $(VENV)/requirements-dev.stamp
	$(BIN)/python -m tools.fuzz $(FUZZ)

# make soak SOAK="--minutes 15"
soak: $(VENV)/requirements-dev.stamp
	$(BIN)/python -m tools.soak $(SOAK)

format: $(VENV)/requirements-dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/requirements-dev.stamp: requirements.txt
$(VENV)/requirements.stamp $(VENV)/requirements-dev.stamp: requirements-torch.txt

$(VENV)/%.stamp: %.txt $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -r $< -c $(CONSTRAINTS)
	touch $@

# Strangers' programs, which the tests ask the server with; their versions are all in that file.
$(CLIENTS)/%.stamp: %.txt | $(CLIENTS)/bin/python
	$(CLIENTS)/bin/python -m pip install --disable-pip-version-check -q -r $<
	touch $@

$(BIN)/python $(CLIENTS)/bin/python: %/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $*
