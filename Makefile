.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# This machine's uv, or one of the project's own. Paths stay relative: the folder's may have spaces.
OWN_UV := $(if $(shell command -v uv),,.uv/bin/uv)
UV := $(or $(OWN_UV),uv)
RUN := $(UV) run --quiet --locked

##@ Develop
.PHONY: run
run: .venv ## Run the service with reload, on its own PostgreSQL and Valkey (PORT=8000)
	@$(RUN) python -m dev.run

.PHONY: format
format: .venv ## Mend what can be mended: formatting, order of imports, simple findings
	@$(RUN) ruff format
	@$(RUN) ruff check --fix

##@ Check
.PHONY: test
test: .venv ## Run every test that this machine can run, with the coverage gate
	@$(RUN) pytest -n 2 --dist worksteal --cov --cov-report=term

.PHONY: test-unit
test-unit: .venv ## Run the tests that need no server
	@$(RUN) pytest tests/unit tests/api

.PHONY: test-integration
test-integration: .venv ## Run the tests on real PostgreSQL and Valkey
	@$(RUN) pytest -n 2 --dist worksteal tests/integration

.PHONY: lint
lint: .venv ## Check style, types and the direction of imports
	@$(UV) lock --check --quiet
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy
	@$(RUN) lint-imports

.PHONY: bench
bench: .venv ## Measure speed and memory beside a bare FastAPI application
	@$(RUN) --group bench python -m bench.run

##@ Other
.PHONY: clean
clean: ## Remove what the other targets made, the local database among it
	rm -rf .venv .uv .local .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Once, and shown; later changes of the lock file are followed by `uv run` without a word.
.venv: | $(OWN_UV)
	@$(UV) sync --locked

.uv/bin/uv:
	@sh dev/install-uv.sh
