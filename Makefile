# What one can do here. `make` or `make help` lists it; every target may be run twice, by root or by a user.
#
#   make serve ARGS="--port 9000"     options of `moonpool serve`
#   make test JOBS=4 TESTS=tests/unit how many tests at a time, and which
#   make test MODEL=skip              without the tests that need the embedded model's weights
#   make recipe RECIPE=0.3.0          against another version of that library
#   make PYTHON=/path/to/python3 ...  which Python makes .venv (the first one that is 3.11 or newer otherwise)

.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
export PYTHON
# Weights that outlive a home: fetched once per machine, for tests and for `serve`.
export MOONPOOL_WEIGHTS ?= $(HOME)/.cache/moonpool/weights

BIN := .venv/bin
NODE := tests/journeys/node
JOBS ?= 2
# Who is done early takes over tests that others were given: those that take long stand together.
SPREAD = -n $(JOBS) --dist worksteal
TESTS ?= tests
ARGS ?=
MODEL ?= need
PYTEST_ARGS ?=
RECIPE ?= 0.2.0
HELM ?= 0.2.2
KILLS ?= 1000
ROUNDS ?= 1000
SEEDS ?= 5000
SEED ?= $(shell date +%s)
MUTANTS ?= 200

.PHONY: help install serve test recipe chart nightly coverage check fmt bench docs locks clean environment-test node-test weights

help:  ## Say what can be done (this list)
	@echo "Moonpool: one endpoint for DeepSeek models. Targets:"
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-9s %s\n' "$$name" "$$what"; done
	@echo "Options stand at the head of the Makefile."

install:  ## Make .venv with everything `serve` needs; leaves .venv/bin/moonpool
	@sh requirements/install.sh run

serve: install  ## Install, fetch the embedded model's weights, start; prints address and first key
	@exec $(BIN)/moonpool serve $(ARGS)

test: environment-test node-test weights  ## Install what tests need, then run every test (`check` is among them)
	@$(BIN)/python -m pytest $(SPREAD) $(if $(filter skip,$(MODEL)),-m "not model") $(PYTEST_ARGS) $(TESTS)

recipe: environment-test  ## Compare with DeepSeek's own library, which is installed into .venv for that (22 MB)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: deepseek-recipe==$(RECIPE)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/conformance/test_recipe_*.py

nightly: environment-test  ## The long proofs, for hours: 1,000 races and kills, 5,000 seeds of simulated days, ten minutes of two nodes harmed at random, mutants
	@seed=$(SEED); echo "seed $$seed"; \
	ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q $(PYTEST_ARGS) tests/faults/test_postgres_nodes.py -k fifty && \
	SEED=$$seed KILLS=$(KILLS) $(BIN)/python -m pytest -q $(PYTEST_ARGS) tests/faults/test_whole_kills.py && \
	SEED= FIRST=$$seed SEEDS=$(SEEDS) $(BIN)/python -m pytest -q $(SPREAD) $(PYTEST_ARGS) tests/simulation && \
	MOONPOOL_TEST_NODES_SEED=$$seed MOONPOOL_TEST_NODES_S=600 $(BIN)/python -m pytest -q --timeout 1200 $(PYTEST_ARGS) tests/faults/test_nodes_random.py && \
	$(BIN)/python tests/proofs/mutants.py --seed $$seed --count $(MUTANTS) --least 90

coverage: environment-test  ## Branch coverage of the ledger and the limiter by their own tests; fails below 100 %
	@sh tests/proofs/coverage.sh

chart: environment-test  ## Lint and render deploy/chart with Helm itself, which is installed into .venv for that (75 MB)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: helm-python-sdk==$(HELM)
	@$(BIN)/python tests/chart.py

check: environment-test  ## Format, lint, types and the rules of the house, without running the rest
	@$(BIN)/python -m pytest $(SPREAD) $(PYTEST_ARGS) tests/tidy

fmt: environment-test  ## Format, and mend what the linter can mend
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

docs: environment-test  ## Write the generated pages of docs/reference anew
	@$(BIN)/python tests/tidy/reference.py

bench: environment-test  ## Measure against nginx and LiteLLM, side by side (see bench/README.md)
	@$(BIN)/python bench/run.py $(ARGS)

locks:  ## Choose versions anew (a week old at least) and write requirements/*.txt and npm's lock
	@sh requirements/lock.sh

clean:  ## Remove what can be made again (.venv, caches); never what a server keeps in its home
	@rm -rf .venv .ruff_cache .mypy_cache .hypothesis build src/moonpool.egg-info $(NODE)/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment-test:
	@sh requirements/install.sh test

# The Node SDK's journeys skip by name where there is no Node.
node-test:
	@if ! command -v npm >/dev/null 2>&1; then echo "no npm here: tests with the Node SDK will be skipped"; \
	elif ! cmp -s $(NODE)/package-lock.json $(NODE)/node_modules/.installed; then \
		echo "installing $(NODE)/package-lock.json"; \
		(cd $(NODE) && npm ci --silent --no-audit --no-fund --ignore-scripts) && \
		cp $(NODE)/package-lock.json $(NODE)/node_modules/.installed; \
	fi

weights: environment-test
	@$(if $(filter skip,$(MODEL)),true,$(BIN)/moonpool models pull --into "$$MOONPOOL_WEIGHTS")
