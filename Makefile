# Targets document themselves: `make help` prints the text behind `##`.
VENV := .venv
BIN  := $(VENV)/bin
LOCK := requirements/run.lock
DEVLOCK := requirements/dev.lock
PEERS := $(wildcard requirements/peers/*.lock requirements/peers/portkey/*.json) requirements/clients/node.lock
CLIENTS := $(wildcard requirements/clients/*.lock tests/clients/node/*/package-lock.json)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev compiled run test test-compiled check faults fuzz mutants bench bench-quick bench-accept flame lock lock-clients lock-peers clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.run ## install Weir, and the servers that it starts, into .venv

setup-dev: $(VENV)/.dev $(VENV)/clients/.done ## the same, and what the tests and checks need

compiled: $(VENV)/.dev ## compile the request path: 30 % less CPU a request; needs a C compiler
	@sh requirements/compiler.sh $(BIN)/python
	@$(BIN)/python -m native

run: setup ## start everything on this machine with a demo account, and print lines to paste
	@exec $(BIN)/weir up --demo

test: setup-dev ## install and pass every test
	@sh tests/run.sh $(BIN)/python

test-compiled: setup-dev ## every test on the compiled request path
	@sh tests/run.sh $(BIN)/python compiled

check: setup-dev ## lint, strict types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.mutants --check
	@$(BIN)/python -m tests.rules --check

faults: setup-dev ## every fault at its full count: kills, power cuts, lost tails, a bad network; results as JSON
	@WEIR_FAULTS=full $(BIN)/python -m pytest tests/faults --timeout=3600

fuzz: setup-dev ## hostile bytes into every reader for an hour (WEIR_FUZZ_SECONDS); the counts at the end
	@$(BIN)/python -m tests.fuzz

mutants: setup-dev ## remove one mechanism at a time, and see its test go red
	@$(BIN)/python -m tests.mutants

bench-quick: setup-dev $(VENV)/peers/.done ## the same as bench in short runs, under 3 minutes; writes no docs
	@$(BIN)/python -m bench --quick

bench: setup-dev compiled $(VENV)/peers/.done ## Weir beside nginx, LiteLLM, Portkey and a naive proxy; rewrites the table and charts in docs
	@$(BIN)/python -m bench

bench-accept: setup-dev ## make today's instruction counts the baseline that make bench guards
	@$(BIN)/python -m bench.guard --accept

flame: setup-dev $(VENV)/peers/.done ## a flame graph of one loaded worker, into docs/charts
	@$(BIN)/python -m bench.flame

lock: setup-dev ## write the lock files anew (reads the package index)
	@sh requirements/lock.sh $(BIN)/python

lock-clients: setup-dev ## the same for the SDKs that tests/clients drives
	@sh requirements/clients/lock.sh $(BIN)/python $(VENV)/clients

lock-peers: $(VENV)/peers/.done ## the same for what the bench runs beside Weir
	@sh requirements/peers/lock.sh $(BIN)/python $(VENV)/peers

clean: ## remove what set-up made; the data in .weir stays
	rm -rf $(VENV) .compiled .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@sh requirements/venv.sh $(VENV)

$(VENV)/.run: $(LOCK) pyproject.toml | $(VENV)/bin/python
	@sh requirements/install.sh $(BIN)/python $(LOCK)
	@sh requirements/libraries.sh
	@touch $@

$(VENV)/.dev: $(DEVLOCK) $(VENV)/.run
	@sh requirements/install.sh $(BIN)/python $(DEVLOCK)
	@touch $@

$(VENV)/clients/.done: requirements/clients.sh $(CLIENTS) | $(VENV)/bin/python
	@sh requirements/clients.sh $(BIN)/python $(VENV)/clients
	@touch $@

$(VENV)/peers/.done: requirements/peers.sh $(PEERS) | $(VENV)/bin/python
	@sh requirements/peers.sh $(BIN)/python $(VENV)/peers
	@touch $@
