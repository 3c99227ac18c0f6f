# Millrace. `make help` lists what there is; `make run` and `make test` set up everything they need.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which build of torch: any pip requirement, with options if need be, e.g. TORCH="torch==2.13.0 --index-url URL".
TORCH ?= torch==2.13.0
# Arguments for one run, e.g. make test ARGS="tests/cache -x", make run ARGS=--no-color.
ARGS ?=
# What a change of the contracts must not break: the last release, or the last commit where there is none yet.
AGAINST ?= $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || echo HEAD)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Twice quiet: only errors. Warnings about roots and mirrors are not what a newcomer needs to read.
PIP := $(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt
MANIFESTS := pyproject.toml gen/pyproject.toml constraints.txt

##@ Use
.PHONY: run
run: $(VENV)/.run ## Start the four services and say where they are (Ctrl-C stops them)
	@exec $(BIN)/millrace up $(ARGS)

.PHONY: chat
chat: $(VENV)/.run ## Chat in the terminal with what `make run` started
	@exec $(BIN)/millrace chat $(ARGS)

##@ Develop
.PHONY: test
test: $(VENV)/.dev ## Run the whole suite against real servers, and look for leaks in its telemetry
	@tools/suite.sh $(ARGS)

.PHONY: check
check: format lint types house proto checkgenerate checkdocs ## Everything that must hold before a commit
	@$(MAKE) --no-print-directory test

.PHONY: format
format: $(VENV)/.dev ## Check the formatting (`make fix` repairs it)
	@$(BIN)/ruff format --check --quiet . && echo "format: ok"

.PHONY: lint
lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet --output-format concise . && echo "lint: ok"

.PHONY: types
types: $(VENV)/.dev
	@$(BIN)/mypy kit services cli bench tools && echo "types: ok"

.PHONY: house
house: $(VENV)/.dev ## Check who may import whom
	@$(BIN)/lint-imports --no-logo && echo "house: ok"

.PHONY: proto
proto: $(VENV)/.dev ## Lint and format-check the contracts; refuse changes that break them (AGAINST=<git ref>)
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@if git cat-file -e $(AGAINST):buf.yaml 2>/dev/null; then $(BIN)/buf breaking --against '.git#ref=$(AGAINST)'; fi
	@echo "proto: ok (against $(AGAINST))"

.PHONY: fix
fix: $(VENV)/.dev ## Repair what tools can repair: formatting, import order, protos
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet . ; $(BIN)/buf format --write

.PHONY: gen
gen: $(VENV)/.dev ## Generate the stubs of protos/ into gen/
	@tools/gen.sh

.PHONY: checkgenerate
checkgenerate: $(VENV)/.dev ## Check that the committed stubs are those of protos/
	@tools/checkgenerate.sh

.PHONY: docs-config
docs-config: $(VENV)/.run ## Write the configuration table into README.md
	@$(BIN)/millrace config --write README.md

.PHONY: docs-faults
docs-faults: $(VENV)/.dev ## Write the table of what happens when an upstream fails (a test checks it)
	@$(BIN)/python -m tests.faults.table docs/faults.md

.PHONY: docs
docs: $(VENV)/.dev ## Build the site of docs/ into build/site; a link that leads nowhere fails it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "docs: build/site/index.html"

.PHONY: checkdocs
checkdocs: docs
	@$(BIN)/millrace config --check README.md

.PHONY: bench
bench: $(VENV)/.dev ## Measure (ARGS=overhead names one of bench/)
	@for program in $(if $(ARGS),$(ARGS),overhead); do $(BIN)/python -m bench.$$program; done

.PHONY: node-test
node-test: $(VENV)/.run ## Check stock Node clients against a suite started for it (needs Node 20 and npm)
	@tools/node-test.sh

##@ Keep
.PHONY: constraints
constraints: $(VENV)/.dev ## Write down the versions of this environment as those tested together, and their hashes for images
	@tools/constraints.sh >constraints.new && mv constraints.new constraints.txt
	@tools/lock.sh

.PHONY: clean
clean: ## Remove the environment, caches and run-time files
	@rm -rf $(VENV) .millrace build dist *.egg-info gen/build gen/dist gen/*.egg-info tests/node/node_modules
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

# The environment, in two steps: what running needs, and what developing needs as well. A stamp is renewed when a
# manifest changes; pip then installs only the difference.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Millrace needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "No venv module here. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.run: $(MANIFESTS) | $(VENV)/bin/pip
	@echo "Installing what running needs (about 2.2 GB on disk with torch for CPU; one to five minutes, once)"
	@echo "  1/3 build tools" && $(PIP) 'setuptools>=77'
	@echo "  2/3 $(TORCH)" && $(PIP) $(TORCH)
	@echo "  3/3 millrace and its libraries" && $(PIP) --no-build-isolation --editable gen --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing what testing needs (under a minute)"
	@$(PIP) --no-build-isolation --editable gen --editable '.[all,dev,docs]'
	@touch $@
