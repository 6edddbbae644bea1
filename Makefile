# Everything runs in .venv, made here on first use from python3 alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-benchmarks bench figures docs docs-serve lint format mutate clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/%: pyproject.toml
	@echo "Setting up $(VENV) (once)..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

demo: $(VENV)/examples ## Train a network on real digits: Rprop beside Adam, SGD and RMSprop
	@$(BIN)/python examples/digits.py

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
# Bits and compiled programs as users get them; the others by XLA's older code generator for CPUs,
# which compiles them in half of the time. CI tests core and wrappers by the newer one, too.
OF_BITS := $(patsubst %,tests/core/test_%.py,compiled packing rules torch)

test: $(VENV)/test ## Run the tests, but for those of benchmarks/ and of other libraries
	$(PYTEST) $(OF_BITS)
	XLA_FLAGS=--xla_cpu_use_fusion_emitters=false $(PYTEST) $(addprefix --ignore ,tests/benchmarks tests/clients $(OF_BITS))

test-benchmarks: $(VENV)/test ## Run every benchmark on a small problem
	$(PYTEST) tests/benchmarks

bench: $(VENV)/examples ## Time one optimizer step against Optax's and PyTorch's
	@$(BIN)/python benchmarks/step_time.py

figures: $(VENV)/examples ## Draw the pictures of README and the documentation anew
	@$(BIN)/python examples/digits.py && $(BIN)/python examples/when_not_to_use_it.py
	@$(BIN)/python benchmarks/cutest --from docs/data/cutest.json.gz
	@$(BIN)/python benchmarks/applications --from docs/data/applications.json.gz
	cp $(addprefix figures/,digits.png when_not_to_use_it.png cutest.png applications.png) docs/images/

docs: $(VENV)/docs ## Build the documentation: docs/_build/index.html
	@test -n "$(DOCS_OPTIONS)" || echo "Building the site: about two minutes, as the gallery's scripts run."
	$(BIN)/python -m sphinx -W --keep-going $(DOCS_OPTIONS) -b html docs docs/_build
	@$(BIN)/python docs/check_links.py docs/_build
	@echo "Open docs/_build/index.html"

docs-serve: docs ## Build the documentation and show it at http://localhost:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build 8000

lint: $(VENV)/lint ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/lint ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutate: $(VENV)/mutate ## Mutate rules, encoding and momentum: does a test fail each time? (hours)
	$(BIN)/cosmic-ray init --force cosmic-ray.toml .mutation.sqlite
	JAX_ENABLE_COMPILATION_CACHE=false PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cosmic-ray exec cosmic-ray.toml .mutation.sqlite
	$(BIN)/cr-report --show-diff --surviving-only .mutation.sqlite

clean: ## Remove .venv and what the tests compiled
	rm -rf $(VENV) .pytest_cache
