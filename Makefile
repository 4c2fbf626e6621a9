# Targets for people; `make` alone prints them. Set-up happens by itself, in .venv and .local.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMMAND := $(BIN)/catalog
# Three processes for two cores, because the tests also wait. A process that dies ends the run.
PYTEST = $(BIN)/python -m pytest --numprocesses=3 --max-worker-restart=0 --dist=loadscope --no-loadscope-reorder
INSTALL = $(BIN)/uv pip install --python
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PEERS_VENV := .local/peers-venv
PEERS_READY := $(PEERS_VENV)/.ready

# Every command starts Python processes, and without compiled modules each takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo install ui down test coverage check settings image compose-check quality bench chaos bench-peers report lock reset clean

help:
	@awk -F ':.*## ' '/^## / { printf "%s%s\n", n++ ? "\n" : "", substr($$0, 4) } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Try

demo: $(COMMAND) ## run the whole flow on a rendered catalog, or on your own: make demo PHOTOS=folder
	@$(BIN)/python -m demo $(if $(PHOTOS),--photos "$(PHOTOS)")

install: $(COMMAND) ## install into .venv, with the command .venv/bin/catalog; other targets do it when needed

ui: $(COMMAND) ## start the local stack with Airflow, and print its URL and login
	@$(BIN)/python -m jobs stack up
	@$(BIN)/python -m jobs migrate > /dev/null

down: ## stop the local stack and keep its data in .local/
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m jobs stack down; else echo "nothing to stop: make demo was never run"; fi

reset: down ## stop the local stack and delete its data
	rm -rf .local

## Check

test: check ## run lint, types and all tests
	@$(PYTEST)

# Tracing takes half as much processor time again as the tests themselves.
coverage: $(READY) ## run all tests, with branch coverage of at least 90 %
	@$(PYTEST) --cov --cov-report=term

check: $(READY) ## run lint, format, types, layers of imports, and lint of the Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=plugins $(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint Dockerfile

## Deployment

image: ## build the Docker images of Airflow and of the workers
	@for target in airflow worker; do docker buildx build --target=$$target --tag=catalog-tagger-$$target:$(VERSION) \
		--build-arg=CODE_VERSION="$$(git describe --always --dirty)" . || exit; done

compose-check: $(READY) ## run the whole Compose file as the runbook describes; needs a Docker engine
	@$(BIN)/python -m benchmarks.scenarios.compose

## Benchmarks

quality: $(READY) ## train on real images under the default gates
	@$(BIN)/python -m benchmarks.training.quality

bench: $(READY) ## measure images per second compared with the bare forward pass, and how often gates accept a candidate
	@$(BIN)/python -m benchmarks.ingest.throughput
	@$(BIN)/python -m benchmarks.training.gates

chaos: $(READY) ## kill jobs, break their environment, feed them hostile files; takes 20 minutes
	@$(BIN)/python -m benchmarks.scenarios.chaos

bench-peers: $(READY) $(PEERS_READY) ## measure images per second compared with all peers, Ray Data and Daft among them
	@$(BIN)/python -m benchmarks.ingest.throughput --all-peers

report: $(READY) ## generate docs/benchmarks.md from the results of the benchmarks
	@$(BIN)/python -m benchmarks.report

## Maintain

settings: $(READY) ## update .env.example and docker-compose.yaml after an edit of jobs/settings.py
	@$(BIN)/python -m jobs settings --write

lock: $(READY) ## update requirements.lock after an edit of requirements*.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock requirements-dev.txt

clean: reset ## delete the data of the local stack, and .venv
	rm -rf $(VENV)

$(READY): requirements-airflow.txt requirements.txt requirements-compose.txt requirements-dev.txt requirements.lock
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here: install Python 3.11, 3.12 or 3.13, or run make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: install one and run make PYTHON=python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) has no venv module: on Debian and Ubuntu run apt-get install python3-venv"; exit 1; }
	@echo "-- creating $(VENV), the first time only"
	@$(PYTHON) -m venv $(VENV)
	@echo "-- downloading uv, which installs the rest"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@echo "-- downloading and installing the requirements: about a minute"
	@$(INSTALL) $(VENV) -r requirements-dev.txt -c requirements.lock --require-hashes
	@touch $(READY)

# Without its dependencies, which are installed with their hashes, and built by the setuptools among them.
$(COMMAND): pyproject.toml | $(READY)
	@echo "-- installing the command $(COMMAND)"
	@$(INSTALL) $(VENV) --quiet --no-deps --no-build-isolation --editable .
	@touch $(COMMAND)

$(PEERS_READY): benchmarks/peers/requirements.txt | $(READY)
	@echo "-- installing into $(PEERS_VENV), the first time only"
	@$(BIN)/python -m venv $(PEERS_VENV)
	@$(INSTALL) $(PEERS_VENV) -r benchmarks/peers/requirements.txt
	@touch $(PEERS_READY)
