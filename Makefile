# Targets for people; `make` alone prints them. Set-up happens by itself, in .venv and .local.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS_VENV := .local/peers-venv
PEERS_READY := $(PEERS_VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo ui down test check bench bench-peers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## the whole flow on a rendered catalog: bucket -> Airflow -> SQL
	@$(BIN)/python -m jobs demo

ui: $(READY) ## start the local stack with Airflow, print URL and login
	@$(BIN)/python -m jobs stack up
	@$(BIN)/python -m jobs migrate > /dev/null

down: ## stop the local stack; its data stay in .local/
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m jobs stack down; else echo "nothing to stop: make demo was never run"; fi

test: check ## lint, types and all tests
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup -m "not alone"
	@$(BIN)/python -m pytest -m alone

check: $(READY) ## lint, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## images per second beside the bare forward pass; what two of the gates let through
	@$(BIN)/python -m benchmarks.ingest
	@$(BIN)/python -m benchmarks.paired_gate
	@$(BIN)/python -m benchmarks.calibration_gate

bench-peers: $(READY) $(PEERS_READY) ## images per second of other ways to the same answers, Ray Data and Daft among them
	@$(BIN)/python -m benchmarks.peers --peers-python $(PEERS_VENV)/bin/python

clean: down ## remove .local with all its data, and .venv
	rm -rf .local $(VENV)

$(READY): requirements.txt requirements-dev.txt constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here: install Python 3.11 or 3.12, or run make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, $(PYTHON) is {v[0]}.{v[1]}: install one and run make PYTHON=python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) has no venv module: on Debian and Ubuntu run apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV): a few minutes, the first time only"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $(READY)

$(PEERS_READY): benchmarks/peers/requirements.txt | $(READY)
	@echo "setting up $(PEERS_VENV): a few minutes, the first time only"
	@$(BIN)/python -m venv $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	@touch $(PEERS_READY)
