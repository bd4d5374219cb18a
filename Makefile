# Every target that runs code builds its virtual environment first, and again only when the locked requirements change.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
VENV_TORCH := .venv-torch
VENV_CHECKOV := .venv-checkov
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q --durations=10 -m "not soak and not torch"
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(UPGRADE)

# $(call build_venv,DIRECTORY,REQUIREMENTS): --clear, so that the result holds what the lock names and nothing older.
define build_venv
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --require-hashes -r $(2)
	$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(1)/.installed
endef

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: venv
venv: $(VENV)/.installed ## Build .venv from requirements/dev.txt

$(VENV)/.installed: requirements/dev.txt
	$(call build_venv,$(VENV),requirements/dev.txt)

.PHONY: venv-torch
venv-torch: $(VENV_TORCH)/.installed ## Build .venv-torch from requirements/torch.txt (about 6 GB)

$(VENV_TORCH)/.installed: requirements/torch.txt
	$(call build_venv,$(VENV_TORCH),requirements/torch.txt)

.PHONY: venv-checkov
venv-checkov: $(VENV_CHECKOV)/.installed ## Build .venv-checkov, whose bin on PATH lets the tests check the manifests with checkov

# In an environment of its own: it pins older versions of what the project uses.
$(VENV_CHECKOV)/.installed: requirements/checkov.txt
	$(PYTHON) -m venv --clear $(VENV_CHECKOV)
	$(VENV_CHECKOV)/bin/python -m pip install --quiet --require-hashes -r requirements/checkov.txt
	touch $@

.PHONY: demo
demo: venv ## Run a broker, the fleet and sample media on this machine
	$(BIN)/mediasieve demo

.PHONY: test
test: lint test-unit test-contract test-integration test-fault ## Lint, type-check and test; stops at the first failure

.PHONY: test-unit
test-unit: venv ## Run the unit and property tests
	$(PYTEST) tests/unit tests/property

.PHONY: test-contract
test-contract: venv ## Run the tests that every implementation of an interface must pass
	$(PYTEST) tests/contract

.PHONY: test-integration
test-integration: venv ## Run the tests against a real broker and local servers
	$(PYTEST) tests/integration

.PHONY: test-fault
test-fault: venv ## Run the tests that kill processes and brokers
	$(PYTEST) tests/fault

.PHONY: test-torch
test-torch: venv-torch ## Run the tests that need the [torch] extra
	$(VENV_TORCH)/bin/python -m pytest -q --durations=10 -m "torch and not soak"

.PHONY: soak
soak: venv ## Run the long fault tests
	$(BIN)/python -m pytest -q --durations=10 -m "soak and not torch" --timeout=7200

.PHONY: bench
bench: venv ## Measure speed against plain code for the same question; read the ratios
	$(BIN)/mediasieve bench spectral

.PHONY: lint
lint: venv ## Check style, types, import rules and what is generated from code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.generate --check
	$(BIN)/python -m workers.reference --check

.PHONY: schemas
schemas: venv ## Write the JSON Schemas again from the models
	$(BIN)/python -m schemas.generate

.PHONY: requirements
requirements: ## Lock pyproject.toml again; UPGRADE=--upgrade moves to newer versions
	@test -x $(BIN)/uv || { echo "no $(BIN)/uv: run 'make venv' first" >&2; exit 1; }
	$(UV_COMPILE) pyproject.toml --extra web --extra postgres --extra objectlock --extra otel -o requirements/image.txt
	$(UV_COMPILE) pyproject.toml --extra embedded --extra evaluate --extra web --extra postgres --extra otel --extra dev -o requirements/dev.txt
	$(UV_COMPILE) pyproject.toml --extra embedded --extra evaluate --extra web --extra postgres --extra otel --extra dev --extra torch --extra modelserver -o requirements/torch.txt
	$(UV_COMPILE) pyproject.toml --extra web --extra postgres --extra objectlock --extra otel --extra torch -o requirements/cuda.txt
	$(UV_COMPILE) requirements/build.in -o requirements/build.txt
	$(UV_COMPILE) requirements/checkov.in -o requirements/checkov.txt

.PHONY: clean
clean: ## Remove virtual environments, caches and build output
	rm -rf $(VENV) $(VENV_TORCH) $(VENV_CHECKOV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
