.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# uv of this machine, or one that is installed into the project. Paths stay relative: the folder's
# own may have spaces.
UV := $(or $(shell command -v uv),.uv/bin/uv)
RUN := $(UV) run --quiet --locked

##@ Develop
.PHONY: run
run: $(UV) ## Run the service with reload, on its own PostgreSQL and Valkey (PORT=8000)
	@$(RUN) python -m dev.run

.PHONY: format
format: $(UV) ## Mend what can be mended: formatting, order of imports, simple findings
	@$(RUN) ruff format
	@$(RUN) ruff check --fix

##@ Check
.PHONY: test
test: $(UV) ## Run every test that this machine can run, with the coverage gate
	@$(RUN) pytest -n 2 --cov --cov-report=term

.PHONY: test-unit
test-unit: $(UV) ## Run the tests that need no server
	@$(RUN) pytest tests/unit tests/api

.PHONY: test-integration
test-integration: $(UV) ## Run the tests on real PostgreSQL and Valkey
	@$(RUN) pytest -n 2 tests/integration

.PHONY: lint
lint: $(UV) ## Check style, types and the direction of imports
	@$(UV) lock --check --quiet
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy
	@$(RUN) lint-imports

.PHONY: bench
bench: $(UV) ## Measure speed and memory beside a bare FastAPI application
	@$(RUN) --group bench python -m bench.run

##@ Other
.PHONY: clean
clean: ## Remove what the other targets made, the local database among it
	rm -rf .venv .uv .local .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	@sh dev/install-uv.sh
