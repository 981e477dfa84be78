.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The installed uv if it is new enough, or else one that is installed into .uv. The path is relative because the
# project's folder may have a space in its name.
UV := $(shell sh tools/dev/find-uv.sh)
OWN_UV := $(filter .uv/%,$(UV))
RUN := $(UV) run --quiet --locked
LINT := $(RUN) --group lint
FORMAT_QUIETLY := $(RUN) ruff format --quiet && $(RUN) ruff check --fix --quiet

# renovate: datasource=go depName=github.com/rhysd/actionlint
ACTIONLINT_VERSION := v1.7.12
# renovate: datasource=pypi depName=checkov
CHECKOV_VERSION := 3.3.30
# renovate: datasource=go depName=github.com/zegl/kube-score
KUBE_SCORE_VERSION := v1.20.0

IMAGE_NAME := fastapi-k8s
# The extras of pyproject.toml that the image contains: EXTRAS="auth telemetry"
EXTRAS ?=
ifneq ($(EXTRAS),)
# For `docker compose`. An empty one would take precedence over the one in .env.
export EXTRAS
endif
PLATFORMS := linux/amd64,linux/arm64
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
GIT_SHA = $(shell git describe --always --abbrev=40 --dirty --exclude='*' 2>/dev/null || echo unknown)
CREATED = $(shell git log -1 --format=%cI 2>/dev/null)
# Without the credentials that a remote's URL may contain.
SOURCE = $(shell git remote get-url origin 2>/dev/null | sed 's,//[^/]*@,//,')
BUILD_ARGS = \
    --build-arg APP_VERSION=$(VERSION) \
    --build-arg GIT_SHA=$(GIT_SHA) \
    --build-arg CREATED=$(CREATED) \
    --build-arg "SOURCE=$(SOURCE)" \
    --build-arg "EXTRAS=$(EXTRAS)"

# Make passes CONTEXT, NAMESPACE, TIMEOUT, IMAGE_LOADER, PORT and N on in the environment.
CLUSTER = IMAGE_NAME="$(IMAGE_NAME)" $(RUN) python -m tools.cluster

UNIT_TESTS := tests/unit tests/api tests/manifest
UNIT_TESTS += tests/template/unit # template

##@ Development
.PHONY: run
run: .venv ## Run the API with hot reload, on a PostgreSQL and a Valkey in .local (PORT=8000)
	@$(RUN) python -m tools.dev.run

.PHONY: format
format: .venv ## Apply automatic fixes: formatting, import order, lint findings
	@$(RUN) ruff format
	@$(RUN) ruff check --fix

.PHONY: revision
revision: .venv ## Create the next migration (MESSAGE="add orders")
	$(if $(MESSAGE),,$(error Describe the migration: make revision MESSAGE="add orders"))
	@$(RUN) python -m tools.dev.revision "$$MESSAGE"

.PHONY: openapi
openapi: .venv ## Write the OpenAPI document to docs/openapi.json
	@$(RUN) python -m tools.openapi

##@ Tests and checks
.PHONY: test
test: .venv ## Run the unit, integration, fault and container tests, with coverage (FLAGS= for pytest)
	@$(RUN) pytest -n 2 --dist worksteal --cov --cov-report=term $(FLAGS)

.PHONY: test-unit
test-unit: .venv ## Run the tests that need no server
	@$(RUN) pytest -n 2 --dist worksteal $(UNIT_TESTS)

.PHONY: test-integration
test-integration: .venv ## Run the tests that need PostgreSQL and Valkey, which they start
	@$(RUN) pytest -n 2 --dist worksteal tests/integration

.PHONY: test-faults
test-faults: .venv ## Run the tests of faults, crashes and load (Docker for the faults of the image)
	@$(RUN) pytest -n 2 --dist worksteal tests/faults

.PHONY: test-container
test-container: .venv ## Run the tests of the image, its faults and the Compose stack (Docker)
	@$(RUN) pytest -n 2 --dist worksteal tests/container tests/faults/test_faults.py

.PHONY: faults
faults: .docker .venv ## Measure the image while PostgreSQL or Redis fails, and write the tables of docs/operations.md (Docker)
	@WRITE_FAULTS=1 $(RUN) pytest tests/faults/test_faults.py

# template
.PHONY: test-template
test-template: .docker .venv ## Run the tests of renamed copies of the project (Docker)
	@$(RUN) pytest --timeout 1800 tests/template/forks
# end template

.PHONY: test-cluster
test-cluster: .context .docker .venv ## Run the tests on a cluster, in their own namespaces (CONTEXT=kind-kind IMAGE_LOADER=)
	@$(RUN) pytest --timeout 900 tests/cluster

.PHONY: fuzz
fuzz: .venv ## Send generated requests to the API, and compare the responses with its OpenAPI document (FLAGS= for schemathesis)
	@$(RUN) python -m tools.fuzz.run $(FLAGS)

.PHONY: lint
lint: lint-python lint-files ## Run lint-python and lint-files

.PHONY: lint-python
lint-python: .venv ## Check formatting, style, types, import rules, the lock file and docs/openapi.json
	@$(UV) lock --check --quiet
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(RUN) python -m tools.openapi --check

.PHONY: lint-files
lint-files: .venv ## Check Dockerfiles, shell scripts, YAML files and workflows
	@$(LINT) hadolint Dockerfile Dockerfile.dev .devcontainer/Dockerfile
	@$(LINT) shellcheck .ci/run tools/*/*.sh
	@$(LINT) yamllint --strict .
	@$(LINT) zizmor --offline --pedantic --quiet .
	@sh tools/dev/with-go.sh actionlint \
	    $(LINT) go run github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION) .github/workflows/*.yml

.PHONY: lint-k8s
lint-k8s: .venv ## Check k8s.yaml and deploy/production with checkov and kube-score
	@manifests=$$(sh tools/cluster/list-manifests.sh) && \
	$(UV) tool run --quiet --exclude-newer "7 days" --from checkov==$(CHECKOV_VERSION) \
	    checkov --file $$manifests --framework kubernetes --compact --quiet --skip-download && \
	for manifest in $$manifests; do \
	    sh tools/dev/with-go.sh kube-score \
	        go run github.com/zegl/kube-score/cmd/kube-score@$(KUBE_SCORE_VERSION) score --exit-one-on-warning "$$manifest" || exit 1; \
	done

.PHONY: audit
audit: | $(OWN_UV) ## Check the locked packages for known vulnerabilities
	@$(UV) audit --locked --preview-features audit-command

##@ Benchmarks
.PHONY: bench
bench: .image .venv ## Measure the image and bare FastAPI (IMAGE=); WRITE=1 updates docs/benchmarks.md
	@IMAGE="$(or $(IMAGE),$(IMAGE_NAME):latest)" $(RUN) --group bench python -m tools.benchmarks.service

.PHONY: soak
soak: .venv ## Measure what grows during ten minutes of load, and latency with 5,000 idle connections (SECONDS=600)
	@case "$(or $(SECONDS),600)" in *[!0-9]*|0*) \
	    echo "SECONDS must be a whole number of seconds: make soak SECONDS=600" >&2; exit 2;; esac
	@SOAK_SECONDS=$(or $(SECONDS),600) $(RUN) pytest --quiet --timeout 3600 \
	    tests/faults/test_growth.py tests/faults/test_idle_connections.py

.PHONY: bench-image
bench-image: .docker .venv ## Measure the size, build time and start time of the image
	@$(RUN) python -m tools.benchmarks.image

.PHONY: bench-telemetry
bench-telemetry: .docker .venv ## Measure what traces cost a request; WRITE=1 updates docs/benchmarks.md
	@$(RUN) --group bench python -m tools.benchmarks.telemetry

.PHONY: bench-restart
bench-restart: .context .docker .venv ## Count the requests that rolling restarts lose (CONTEXT=kind-kind IMAGE_LOADER=)
	@$(RUN) python -m tools.benchmarks.restart

##@ Image
.PHONY: docker-build
docker-build: .docker ## Build the image, with the tag latest and a content-addressed tag (EXTRAS= FLAGS=)
	@docker build $(BUILD_ARGS) --tag $(IMAGE_NAME):latest $(FLAGS) .
	@id=$$(docker image inspect --format '{{.Id}}' $(IMAGE_NAME):latest) && \
	tag=$(IMAGE_NAME):$$(echo "$${id#sha256:}" | cut -c 1-12) && \
	docker tag $(IMAGE_NAME):latest "$$tag" && \
	echo "$(IMAGE_NAME):latest is $$tag"

.PHONY: docker-run
docker-run: .image ## Run the image with a temporary PostgreSQL and Redis, or with the settings in ENV_FILE= (PORT=8000)
	@sh tools/image/run.sh $(IMAGE_NAME) "$(or $(PORT),8000)" "$(ENV_FILE)"

.PHONY: docker-shell
docker-shell: .development ## Open a shell in the namespaces of the newest container, or of CONTAINER=
	@sh tools/image/shell.sh $(IMAGE_NAME) "$(CONTAINER)"

.PHONY: docker-size
docker-size: .image ## Print the size of the image, compressed and on disk
	@docker save $(IMAGE_NAME):latest | gzip | wc -c | \
	    awk '{printf "compressed  %5.1f MB\n", $$1 / 1e6}'
	@docker image inspect --format '{{.Size}}' $(IMAGE_NAME):latest | \
	    awk '{printf "on disk     %5.1f MB\n", $$1 / 1e6}'

.PHONY: docker-scan
docker-scan: .image ## Scan the image for known vulnerabilities, with trivy or grype
	@sh tools/image/scan.sh $(IMAGE_NAME):latest

.PHONY: docker-sbom
docker-sbom: .venv ## Write an SBOM of the Python packages to dist/sbom.cdx.json (CycloneDX)
	@mkdir -p dist
	@$(UV) export --quiet --locked --no-dev $(addprefix --extra ,$(EXTRAS)) --format cyclonedx1.5 --output-file dist/sbom.cdx.json

.PHONY: docker-build-multiarch
docker-build-multiarch: .builder ## Build for amd64 and arm64, into dist/image.tar (FLAGS=)
	@mkdir -p dist
	@docker buildx build --platform $(PLATFORMS) $(BUILD_ARGS) --output type=oci,dest=dist/image.tar $(FLAGS) .

.PHONY: docker-publish
docker-publish: .builder docker-sbom ## Push for amd64 and arm64, with SBOM and provenance (REGISTRY=registry.example.com/team)
	@sh tools/image/publish.sh "$(REGISTRY)/$(IMAGE_NAME):$(VERSION)-$(GIT_SHA)" --platform $(PLATFORMS) $(BUILD_ARGS) $(FLAGS)

.PHONY: docker-sign
docker-sign: ## Sign a pushed image with cosign, without a key (IMAGE=…@sha256:…)
	$(if $(findstring @sha256:,$(IMAGE)),,$(error Name the image by its digest: make docker-sign IMAGE=registry.example.com/team/$(IMAGE_NAME)@sha256:…))
	@command -v cosign >/dev/null || { \
	    echo 'cosign is not installed: https://docs.sigstore.dev/cosign/system_config/installation/' >&2; \
	    exit 1; \
	}
	@cosign sign "$(IMAGE)"

##@ Compose stack
.PHONY: up
up: .compose ## Start the development stack in the background (API_PORT=8000 DB_PORT=5432)
	@docker compose up --build --detach --wait
	@echo "The API is on http://$$(docker compose port api 8000)"

.PHONY: compose-migrate
compose-migrate: .compose ## Upgrade the database of the stack to the newest revision
	@docker compose build --quiet api
	@docker compose run --rm migrate

.PHONY: compose-psql
compose-psql: .compose ## Open psql on the database of the stack
	@docker compose exec $$(test -t 0 || echo --no-TTY) db psql --username app app

##@ Kubernetes: the current context if it is a local cluster, or CONTEXT= (NAMESPACE=fastapi-k8s TIMEOUT=180)
.PHONY: deploy
deploy: .image .venv ## Apply k8s.yaml with the image built last, and wait for the rollout (IMAGE_LOADER=)
	@$(CLUSTER) deploy

.PHONY: restart
restart: .image .venv ## Roll out the image built last, and verify that every pod runs it (IMAGE_LOADER=)
	@$(CLUSTER) restart

.PHONY: rollback
rollback: .venv ## Roll back to the previous image and settings
	@$(CLUSTER) rollback

.PHONY: status
status: .venv ## Show workloads, pods and warnings
	@$(CLUSTER) status

.PHONY: logs
logs: .venv ## Follow the logs of all pods
	@$(CLUSTER) logs

.PHONY: port-forward
port-forward: .venv ## Forward a local port to the Service (PORT=8000)
	@$(CLUSTER) port-forward

.PHONY: scale
scale: .venv ## Set the minimum number of pods of the autoscaler (N=3)
	@$(CLUSTER) scale

.PHONY: k8s-shell
k8s-shell: .venv ## Open a shell in an ephemeral container of a running pod
	@$(CLUSTER) shell

.PHONY: undeploy
undeploy: .venv ## Remove everything except the database's volume and its password
	@$(CLUSTER) undeploy

.PHONY: destroy
destroy: .venv ## Remove the namespace with all data, after confirmation
	@$(CLUSTER) destroy

##@ Your own service
# Only NAME= on the command line counts: some systems (WSL) export a variable NAME.
.PHONY: rename
rename: .venv ## Rename the project, everywhere (NAME=orders)
	$(if $(filter command,$(origin NAME)),,$(error Set the new name: make rename NAME=orders))
	@$(RUN) python -m tools.template.rename "$$NAME"
	@$(UV) sync --quiet && $(FORMAT_QUIETLY)

# example
.PHONY: remove-example
remove-example: .venv ## Remove the items example: code, migration, tests, benchmarks, documentation
	@$(RUN) python -m tools.template.remove_example
	@$(FORMAT_QUIETLY)
	@$(RUN) python -m tools.openapi
# end example

.PHONY: update
update: .venv ## Take the changes of the template (TEMPLATE=https://example.com/the-template.git)
	@$(RUN) python -m tools.template.update

##@ Housekeeping
.PHONY: clean
clean: ## Remove environments, caches and build results; the local database stays
	rm -rf .venv .uv dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: clean-data
clean-data: ## Remove the database of `make run`
	rm -rf .local

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Visible, because the first installation takes a while. `uv run` applies later changes of uv.lock.
.venv: | $(OWN_UV)
	@$(UV) sync --locked

.uv/bin/uv:
	@sh tools/dev/install-uv.sh

.docker:
	@sh tools/image/require-docker.sh

.compose: .docker
	@sh tools/image/require-project-name.sh $(IMAGE_NAME)

.context:
	$(if $(CONTEXT),,$(error Name the context of the cluster: CONTEXT=kind-kind))
	@kubectl --context "$(CONTEXT)" version --request-timeout=10s >/dev/null

.image: .docker
	@docker image inspect $(IMAGE_NAME):latest >/dev/null 2>&1 || { \
	    echo 'There is no image $(IMAGE_NAME):latest yet. Build it first: make docker-build' >&2; \
	    exit 1; \
	}

.builder: .docker
	@sh tools/image/builder.sh $(PLATFORMS)

.development: .docker
	@docker build --quiet --file Dockerfile.dev --tag $(IMAGE_NAME):development . >/dev/null

.PHONY: .docker .compose .context .image .builder .development
