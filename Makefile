# `make demo` shows sparsewell, `make test` tests it, `make help` lists all targets.
# Required packages (Debian): python3 python3-venv make git maven

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
KEEP ?=
# Processes of the tests. They wait for servers a quarter of the time, so there is one more than cores; each takes up to
# 3 GiB.
PROCESSES ?= $(shell cores=$$(nproc); memory=$$(awk '/^MemAvailable/ { print int($$2 / 3145728) }' /proc/meminfo); \
  most=$$((cores + 1)); echo $$((memory < 1 ? 1 : memory < most ? memory : most)))
IN_PROCESSES = -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
BIN := .venv/bin
LOCKS := $(wildcard requirements/*.txt)
# Identifiers of advisories that do not affect this project. A comment here gives the reason for each.
ACCEPTED_ADVISORIES :=
# Unbuffered output shows each message at once, also through a pipe.
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo setup-train up down status demo demo-talk test test-faults test-2.19 checks lint types pytest coverage page-lint page-test bench audit pictures clean servers test-programs openapi chart client cli-docs docs images

help: ## List the targets
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: .venv/.dev servers test-programs tests/page/node_modules/.package-lock.json ## Install everything for work on the project
	@echo "Set up. Next: make demo, make test, or make up."

setup-demo: .venv/.demo servers

setup-train: .venv/.train ## Install everything, with the packages that train encoders (torch: 7 GB)
	@echo "Set up. Next: sparsewell train --help; make test runs the tests of training too."

demo: setup-demo ## Index Python's documentation and search it (KEEP=1 leaves it running)
	@exec $(BIN)/sparsewell demo $(if $(filter-out 0 no,$(KEEP)),--keep)

demo-talk: setup-demo ## Index six open talks, make their chapters and search them (KEEP=1 as above)
	@exec $(BIN)/sparsewell demo-talk $(if $(filter-out 0 no,$(KEEP)),--keep)

up: setup-demo ## Start OpenSearch, Redis, a worker, the sweeper and the API
	@$(BIN)/sparsewell up

down: ## Stop the processes that `make up` or `make demo KEEP=1` left running
	@if [ -x $(BIN)/sparsewell ]; then $(BIN)/sparsewell down; else echo "Not set up, so no process of sparsewell runs."; fi

status: ## Show the running processes, their addresses and their logs
	@if [ -x $(BIN)/sparsewell ]; then $(BIN)/sparsewell status; else echo "Not set up, so no process of sparsewell runs."; fi

test: setup ## Check style, types, contracts and links of documents, run the tests on real services
	@$(MAKE) --jobs=4 --output-sync=target checks
	$(MAKE) pytest

# make --jobs runs them at once.
checks: lint types docs page-test

lint: .venv/.dev page-lint ## Style, formatting, imports between packages, widths of folders, import cycles
	@echo "Style:"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	echo "Import contracts:"
	$(BIN)/lint-imports
	echo "Structure:"
	$(BIN)/python -m infra.structure

page-lint: tests/page/node_modules/.package-lock.json ## Style, formatting and types of the search page's scripts
	@echo "The search page:"
	npm --prefix tests/page run --silent lint

page-test: tests/page/node_modules/.package-lock.json ## Run the unit tests of the search page's scripts
	@echo "Unit tests of the search page:"
	npm --prefix tests/page run --silent test

types: .venv/.dev ## Check the types
	@echo "Types:"
	$(BIN)/mypy

docs: .venv/.docs ## Build the documentation site into build/site; a broken link fails
	@echo "Documents:"
	$(BIN)/python -m infra.docs_site

pytest: .venv/.dev servers test-programs ## Run the tests on real services
	@echo "Tests in $(PROCESSES) processes, each with an OpenSearch and a Redis of its own:"
	$(BIN)/python -m pytest $(IN_PROCESSES) --durations=15

# Coverage takes 50 % more processor time, so `make test` does not measure it.
coverage: .venv/.dev servers test-programs ## Run the unit and integration tests, and print which lines they reach
	@$(BIN)/python -m pytest $(IN_PROCESSES) --cov --cov-report=term:skip-covered --cov-report=xml tests/unit tests/integration

test-faults: .venv/.dev servers test-programs ## Inject a fault into every component, and print the effect of each protection
	@rm -f build/faults.json
	echo "Faults, each with its control; half an hour at most:"
	FAULT_ROWS=build/faults.json $(BIN)/python -m pytest tests/faults -m "" --durations=15

test-2.19: .venv/.dev servers test-programs ## Run the congruence suite on OpenSearch 2.19.4
	@SPARSEWELL_OPENSEARCH_VERSION=2.19.4 $(BIN)/python -m pytest tests/congruence

bench: setup ## Run the benchmarks
	@$(BIN)/python -m benchmarks

audit: .venv/.dev ## Check the locked packages for known vulnerabilities (needs the network: api.osv.dev)
	@failed=0
	for lock in $(LOCKS); do
	  echo "$$lock:"
	  # The last line on stderr is the verdict, or the error without its traceback.
	  { $(BIN)/pip-audit --disable-pip --vulnerability-service osv --progress-spinner off --requirement "$$lock" \
	    $(ACCEPTED_ADVISORIES:%=--ignore-vuln %) 2>&1 >&3 | tail -n 1 >&2; } 3>&1 || failed=1
	done
	exit $$failed

openapi: .venv/.dev ## Generate docs/api/openapi.json
	@$(BIN)/sparsewell openapi > docs/api/openapi.json.new
	mv docs/api/openapi.json.new docs/api/openapi.json

client: .venv/.dev ## Generate the blocking Python client from the asynchronous one
	@$(BIN)/python clients/python/generate_sync.py

cli-docs: .venv/.dev ## Generate docs/cli.md, the reference of the commands
	@$(BIN)/python -m cli.reference docs/cli.md

chart: .venv/.dev ## Generate the Helm chart's settings, comments, alerts and golden files
	@$(BIN)/python -m infra.helm

pictures: .venv/.dev ## Take the screenshots in docs/images of the demos that `make demo demo-talk KEEP=1` left running
	@$(BIN)/python -m tests.e2e.pictures

images: ## Build the container images with docker, podman or buildah (TARGETS="api worker", OPTIONS="--no-cache")
	@$(PYTHON) -m infra.images $(TARGETS) -- $(OPTIONS)

clean: down ## Stop the processes of sparsewell and remove generated files from this folder
	@rm -rf .venv build dist tests/page/node_modules ./*.egg-info clients/python/build clients/python/dist clients/python/src/*.egg-info .coverage .coverage.* coverage.xml htmlcov
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	echo "Clean. Data, logs and the fetched OpenSearch stay in SPARSEWELL_STATE_DIR and SPARSEWELL_CACHE_DIR"
	echo "(root: /var/lib/sparsewell and /var/cache/sparsewell; others: ~/.local/state/sparsewell and ~/.cache/sparsewell)."

# The stamp files are in the virtual environment, so deleting it deletes them.
.venv/bin/python:
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
	  exit 1
	fi
	echo "Making .venv with $$($(PYTHON) --version)."
	if ! $(PYTHON) -m venv .venv >.venv.log 2>&1; then
	  cat .venv.log >&2; rm -rf .venv .venv.log
	  echo "Python's venv does not work here. Debian: apt-get install python3-venv" >&2
	  exit 1
	fi
	rm -f .venv.log

.venv/.demo: requirements/demo.txt pyproject.toml clients/python/pyproject.toml | .venv/bin/python
	@$(call install,requirements/demo.txt)
	touch .venv/.demo

.venv/.dev: requirements/dev.txt pyproject.toml clients/python/pyproject.toml | .venv/bin/python
	@$(call install,requirements/dev.txt)
	touch .venv/.demo .venv/.dev

# `dev` has installed the project itself, so these two can be installed at once and while the checks run (make --jobs).
.venv/.docs: requirements/docs.txt | .venv/.dev
	@$(call install-packages,requirements/docs.txt)
	touch .venv/.docs

.venv/.train: requirements/train.txt | .venv/.dev
	@$(call install-packages,requirements/train.txt,--no-compile)
	$(compile-packages)
	touch .venv/.train

# The lock names every package, so pip has nothing to resolve. pip 23.2 would look for the newest coverage[toml].
# rouge-score and segeval, which measure chapters, have no wheels and are built from their Python sources.
# pip checks the hash of each file, and the output shows only the downloads.
define install-packages
echo "Installing the locked packages of $(1) into .venv."
$(BIN)/python -m pip install $(2) --progress-bar off --no-deps --require-hashes --only-binary :all: --no-binary rouge-score,segeval -r $(1) | sed -un 's/^ *Downloading /  &/p'
endef

# Faster than pip, which uses one core and compiles the packages' tests too. The modules are compiled here because segeval
# has a syntax warning, which would be an error if the tests compiled it. A file that is no Python makes compileall fail.
define compile-packages
$(BIN)/python -W ignore -m compileall -qq -j 0 -x /tests/ "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true
endef

define install
$(call install-packages,$(1),--no-compile)
$(compile-packages)
$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable . --editable clients/python
endef

# The lock names every package with its hash. The page itself needs no Node.js, but its checks do.
tests/page/node_modules/.package-lock.json: tests/page/package.json tests/page/package-lock.json
	@infra/install-missing node nodejs
	infra/install-missing npm npm
	npm --prefix tests/page ci --no-progress
	touch $@

servers:
	@if [ -z "$${REDIS_URL:-}$${SPARSEWELL_REDIS_URL:-}" ]; then infra/install-missing redis-server redis-server; fi
	# A missing Maven is no error here, because the cache may have an OpenSearch. The launcher reports a missing OpenSearch.
	if [ -z "$${OPENSEARCH_URL:-}$${OPENSEARCH_HOME:-}" ]; then infra/install-missing mvn maven || true; fi

# The tests start their own Redis even if REDIS_URL is set, run the curl examples of the documents, drive a real browser,
# check the alerts with promtool, and build and run the images with podman. A machine without podman skips these.
test-programs:
	@infra/install-missing redis-server redis-server
	infra/install-missing curl curl
	infra/install-missing chromium chromium
	infra/install-missing promtool prometheus
	infra/install-missing "podman runc catatonit mmdebstrap iptables" "podman runc catatonit mmdebstrap iptables netavark aardvark-dns" || echo "The tests of the images are skipped."
