.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# This machine's uv, or one of the project's own. Paths stay relative: the folder's may have spaces.
OWN_UV := $(if $(shell command -v uv),,.uv/bin/uv)
UV := $(or $(OWN_UV),uv)
RUN := $(UV) run --quiet --locked

NAME := fastapi-k8s
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
GIT_SHA = $(shell git describe --always --abbrev=40 --dirty --exclude='*' 2>/dev/null || echo unknown)
CREATED = $(shell git log -1 --format=%cI 2>/dev/null)
SOURCE = $(shell git remote get-url origin 2>/dev/null | sed 's,//[^/]*@,//,')
BUILD_ARGS = --build-arg APP_VERSION=$(VERSION) --build-arg GIT_SHA=$(GIT_SHA) --build-arg CREATED=$(CREATED) --build-arg "SOURCE=$(SOURCE)"
PLATFORMS := linux/amd64,linux/arm64
PYTHON_IMAGE = $(shell sed -n 's/^ARG PYTHON_VERSION=/python:/p' Dockerfile)-slim-trixie
UV_IMAGE = $(shell sed -n 's/^ARG UV_IMAGE=//p' Dockerfile)
CLUSTER = NAME="$(NAME)" $(RUN) python -m tools.cluster
LINT := $(RUN) --group lint
TIDY := $(RUN) ruff format --quiet && $(RUN) ruff check --fix --quiet
# $(call with_go,program,command): what only Go builds. Without Go a person goes on, and CI fails.
with_go = if command -v go >/dev/null; then $(2); \
    else echo '$(1) was not run: it needs Go (https://go.dev/doc/install).'; test "$$CI" != true; fi

##@ Develop
.PHONY: run
run: .venv ## Run the service with reload, on its own PostgreSQL and Valkey (PORT=8000)
	@$(RUN) python -m tools.dev.run

.PHONY: format
format: .venv ## Mend what can be mended: formatting, order of imports, simple findings
	@$(RUN) ruff format
	@$(RUN) ruff check --fix

.PHONY: revision
revision: .development ## Begin the next migration, in a container (MESSAGE="add orders")
	$(if $(MESSAGE),,$(error Say what it does: make revision MESSAGE="add orders"))
	@newest=$$(ls src/*/migrations/versions | sed -n 's/^\([0-9]\{4\}\)_.*/\1/p' | tail -n 1); \
	next=$$(printf %04d $$(expr $$newest + 1)); \
	docker run --rm --user "$$(id -u):$$(id -g)" --volume "$(CURDIR)/src:/app/src" $(NAME):development \
	    alembic --quiet revision --rev-id $$next --message "$$MESSAGE" && ls src/*/migrations/versions/$${next}_*

##@ Check
.PHONY: test
test: .venv ## Run all tests but test-cluster and test-template, with the coverage gate (FLAGS= for pytest)
	@$(RUN) pytest -n 2 --dist worksteal --cov --cov-report=term $(FLAGS)

.PHONY: test-unit
test-unit: .venv ## Run the tests that need no server, those of k8s.yaml among them
	@$(RUN) pytest tests/unit tests/api tests/manifest

.PHONY: test-integration
test-integration: .venv ## Run the tests on real PostgreSQL and Valkey
	@$(RUN) pytest -n 2 --dist worksteal tests/integration

.PHONY: test-container
test-container: .venv ## Run the tests of the image and the Compose stack, which need Docker
	@$(RUN) pytest -n 2 --dist worksteal tests/container

.PHONY: test-template
test-template: .docker .venv ## Run the tests of a service made from this: renamed, without the example
	@$(RUN) pytest --timeout 1800 tests/template

.PHONY: test-cluster
test-cluster: .docker .venv ## Run the tests on a real cluster, in namespaces of their own (CONTEXT=kind-kind LOAD=)
	$(if $(CONTEXT),,$(error Name the cluster: make test-cluster CONTEXT=kind-kind))
	@CONTEXT="$(CONTEXT)" $(RUN) pytest --timeout 900 tests/cluster

.PHONY: lint
lint: lint-python lint-files ## Check style, types, the direction of imports, scripts, Dockerfiles, YAML files and workflows

.PHONY: lint-python
lint-python: .venv ## Check the Python part of it: style, types and the direction of imports
	@$(UV) lock --check --quiet
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy
	@$(RUN) lint-imports

.PHONY: lint-files
lint-files: .venv ## Check the rest: Dockerfiles, shell scripts, YAML files, and workflows if Go is there
	@$(LINT) hadolint Dockerfile Dockerfile.dev .devcontainer/Dockerfile
	@$(LINT) shellcheck .ci/run tools/*/*.sh
	@$(LINT) yamllint --strict .
	@$(LINT) zizmor --offline --pedantic --quiet .
	@$(call with_go,actionlint,$(LINT) go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 .github/workflows/*.yml)

.PHONY: lint-k8s
lint-k8s: .venv ## Check k8s.yaml with checkov, and with kube-score if Go is there to run it
	@$(UV) tool run --quiet --from checkov==3.3.30 checkov --file k8s.yaml --framework kubernetes --compact --quiet --skip-download
	@$(call with_go,kube-score,found=$$(go run github.com/zegl/kube-score/cmd/kube-score@v1.20.0 \
	    score --exit-one-on-warning k8s.yaml) || { echo "$$found"; exit 1; })

.PHONY: audit
audit: | $(OWN_UV) ## Look for known vulnerabilities of the locked packages
	@$(UV) audit --locked --preview-features audit-command

.PHONY: bench
bench: .venv ## Measure speed and memory beside a bare FastAPI application
	@$(RUN) --group bench python -m tools.benchmarks.run

.PHONY: bench-image
bench-image: .docker .venv ## Measure the image's size, its builds and its start
	@$(RUN) python -m tools.benchmarks.image

.PHONY: bench-restart
bench-restart: .docker .venv ## Count what restarts under load lose, with the drain and without (CONTEXT=kind-kind LOAD=)
	$(if $(CONTEXT),,$(error Name the cluster: make bench-restart CONTEXT=kind-kind))
	@CONTEXT="$(CONTEXT)" $(RUN) python -m tools.benchmarks.restart

##@ Image
.PHONY: docker-build
docker-build: .docker ## Build the image: fastapi-k8s:latest, and a tag of its content (FLAGS= for docker build)
	@docker build $(BUILD_ARGS) --tag $(NAME):latest $(FLAGS) .
	@tag=$(NAME):$$(docker image inspect --format '{{.Id}}' $(NAME):latest | cut -c 8-19); \
	docker tag $(NAME):latest $$tag && echo "$(NAME):latest is $$tag"

.PHONY: docker-run
docker-run: .image ## Run the image on port 8000, on a database of its own or with ENV_FILE= (PORT=8000)
	@sh tools/image/run.sh $(NAME) "$(or $(PORT),8000)" "$(ENV_FILE)"

.PHONY: docker-shell
docker-shell: .development ## Open a shell beside the running service, whose files are in /proc/1/root (CONTAINER=)
	@container=$(or $(CONTAINER),$$(docker ps --quiet --latest --filter label=org.opencontainers.image.title=$(NAME))); \
	docker run --rm --interactive $$(test -t 0 && echo --tty) --cap-drop ALL --security-opt no-new-privileges \
	    $${container:+--pid container:$$container --network container:$$container} $(NAME):development sh

.PHONY: docker-size
docker-size: .image ## Print the image's size, compressed as in a registry and on disk
	@docker save $(NAME):latest | gzip | wc -c | awk '{printf "compressed  %5.1f MB\n", $$1 / 1e6}'
	@docker image inspect --format '{{.Size}}' $(NAME):latest | awk '{printf "on disk     %5.1f MB\n", $$1 / 1e6}'

.PHONY: docker-scan
docker-scan: .image ## Look for known vulnerabilities, with trivy or grype
	@if command -v trivy >/dev/null; then trivy image --exit-code 1 --ignore-unfixed --severity HIGH,CRITICAL $(NAME):latest; \
	elif command -v grype >/dev/null; then grype --fail-on high --only-fixed $(NAME):latest; \
	else echo 'Install a scanner and try again: trivy (https://trivy.dev) or grype (https://github.com/anchore/grype).' >&2; exit 1; fi

.PHONY: docker-sbom
docker-sbom: .venv ## Write what the image's environment is made of into dist/sbom.cdx.json (CycloneDX)
	@mkdir -p dist
	@$(UV) export --quiet --locked --no-dev --format cyclonedx1.5 --output-file dist/sbom.cdx.json

.PHONY: docker-build-multiarch
docker-build-multiarch: .builder ## Build for amd64 and arm64, into dist/image.tar (FLAGS=)
	@mkdir -p dist
	@docker buildx build --platform $(PLATFORMS) $(BUILD_ARGS) --output type=oci,dest=dist/image.tar $(FLAGS) .

.PHONY: docker-publish
docker-publish: .builder docker-sbom ## Push both architectures, with SBOM and provenance, under a tag of their own (REGISTRY=)
	@sh tools/image/publish.sh "$(REGISTRY)/$(NAME):$(VERSION)-$(GIT_SHA)" --platform $(PLATFORMS) $(BUILD_ARGS) $(FLAGS)

.PHONY: docker-sign
docker-sign: ## Sign what docker-publish has pushed, with cosign and without a key (IMAGE=…@sha256:…)
	$(if $(findstring @sha256:,$(IMAGE)),,$(error Name it by its digest: make docker-sign IMAGE=registry.example.com/team/$(NAME)@sha256:…))
	@command -v cosign >/dev/null || { echo 'Install cosign (https://docs.sigstore.dev/cosign/system_config/installation/) and try again.' >&2; exit 1; }
	@cosign sign "$(IMAGE)"

.PHONY: docker-digests
docker-digests: .docker ## Print the base images' newest digests, as the build arguments that pin them
	@for base in PYTHON_DIGEST@$(PYTHON_IMAGE) UV_DIGEST@$(UV_IMAGE); do \
	    told=$$(docker buildx imagetools inspect $${base#*@}) || exit; \
	    echo "--build-arg $${base%@*}=$$(echo "$$told" | sed -n 's/^Digest: *//p')  # $${base#*@}"; \
	done

##@ Compose
.PHONY: up
up: .docker ## Start the development stack in the background (API_PORT=8000 DB_PORT=5432)
	@docker compose up --build --detach --wait
	@echo "The API is on http://$$(docker compose port api 8000)"

.PHONY: down
down: .docker ## Stop the stack; its data stays
	@docker compose down

.PHONY: ps
ps: .docker ## List the stack's containers
	@docker compose ps --all

.PHONY: db-shell
db-shell: .docker ## Open psql on the stack's database
	@docker compose exec $$(test -t 0 || echo --no-TTY) db psql --username app app

.PHONY: migrate
migrate: .docker ## Bring the stack's schema to the newest revision
	@docker compose build --quiet api
	@docker compose run --rm migrate

##@ Kubernetes, on the current context if it is local, or on CONTEXT= (NAMESPACE=fastapi-k8s TIMEOUT=180)
.PHONY: deploy
deploy: .image .venv ## Apply k8s.yaml with the image just built, and wait for it (LOAD=)
	@$(CLUSTER) deploy

.PHONY: restart
restart: .image .venv ## Roll the pods over to the image just built, and prove that they run it (LOAD=)
	@$(CLUSTER) restart

.PHONY: rollback
rollback: .venv ## Roll the pods back to what they ran before
	@$(CLUSTER) rollback

.PHONY: status
status: .venv ## Show what runs and what it complains of
	@$(CLUSTER) status

.PHONY: logs
logs: .venv ## Follow the logs of the Compose stack if it runs here, or else of all pods
	@if [ -z "$(CONTEXT)$(NAMESPACE)" ] && docker compose ps --quiet 2>/dev/null | grep -q .; \
	then docker compose logs --follow; else $(CLUSTER) logs; fi

.PHONY: forward
forward: .venv ## Bring the service to a port of this machine (PORT=8000)
	@$(CLUSTER) forward

.PHONY: scale
scale: .venv ## Set the autoscaler's minimum (N=3)
	@$(CLUSTER) scale

.PHONY: k8s-shell
k8s-shell: .venv ## Open a shell beside a running pod, whose files are in /proc/1/root
	@$(CLUSTER) shell

.PHONY: k8s-config
k8s-config: .venv ## Name the ConfigMap in k8s.yaml by its data, after an edit
	@$(RUN) python -m tools.cluster.manifest

.PHONY: undeploy
undeploy: .venv ## Remove everything but the data and their password
	@$(CLUSTER) undeploy

.PHONY: destroy
destroy: .venv ## Remove the namespace with its data, after asking
	@$(CLUSTER) destroy

##@ A service of your own
.PHONY: rename
rename: .venv ## Give the service another name, everywhere (NAME=orders)
	$(if $(filter command,$(origin NAME)),,$(error Say what the service is called: make rename NAME=orders))
	@$(RUN) python -m tools.template.rename "$$NAME"
	@$(UV) sync --quiet && $(TIDY)

# example
.PHONY: remove-example
remove-example: .venv ## Take the items out: code, migration, tests, measurements, documents
	@$(RUN) python -m tools.template.remove_example
	@$(TIDY)
# end example

##@ Other
.PHONY: clean
clean: ## Remove what the other targets made in this folder, the local database among it
	rm -rf .venv .uv .local dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Once, and shown; later changes of the lock file are followed by `uv run` without a word.
.venv: | $(OWN_UV)
	@$(UV) sync --locked

.uv/bin/uv:
	@sh tools/dev/install-uv.sh

.docker:
	@command -v docker >/dev/null || { echo 'Docker is missing: install it (https://docs.docker.com/get-started/get-docker/). `make run` needs none.' >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { echo 'Docker does not answer: start Docker Desktop or the service (sudo systemctl start docker), and see that you may use it (docker info).' >&2; exit 1; }
	@docker compose version >/dev/null 2>&1 || { echo 'The plugin `docker compose` is missing: https://docs.docker.com/compose/install/' >&2; exit 1; }

.image: .docker
	@docker image inspect $(NAME):latest >/dev/null 2>&1 || { echo 'There is no image yet: make docker-build' >&2; exit 1; }

.builder: .docker
	@sh tools/image/builder.sh $(PLATFORMS)

.development: .docker
	@docker build --quiet --file Dockerfile.dev --tag $(NAME):development . >/dev/null

.PHONY: .docker .image .builder .development
