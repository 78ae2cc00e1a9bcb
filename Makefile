# Every target is safe to run again; `make` alone lists them. Builds are kept in ~/.cache/countersign.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup packages e2e-packages demo test soak lint format types contracts crds chart lock bench image root nodes e2e e2e-down clean

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := faketime gcc libc6-dev libtss2-dev libtss2-tcti-device0 libtss2-tcti-swtpm0 pkg-config python3-venv redis-tools swtpm swtpm-tools tzdata
# What each package is looked for by; a package manager is asked only where one of these is missing.
HAVE := (for tool in faketime gcc pkg-config redis-check-rdb swtpm swtpm_setup; do command -v $$tool >/dev/null || exit 1; done) && pkg-config --exists tss2-esys tss2-fapi \
	&& $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && ldconfig -p | grep libtss2-tcti-swtpm >/dev/null \
	&& test -e /usr/share/zoneinfo/Europe/Berlin \
	&& ldconfig -p | grep libtss2-tcti-device >/dev/null

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

packages: ## install the Debian packages that are missing (root or sudo)
	@if $(HAVE); then exit 0; fi; \
	install="apt-get install -y --no-install-recommends $(PACKAGES)"; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v 2>/dev/null; }; then sudo=sudo; else \
	  echo "Debian packages are missing. Run this as root, then make again:"; echo "  apt-get update && $$install"; exit 1; fi; \
	echo "==> installing Debian packages (about a minute): $(PACKAGES)"; \
	log=$$(mktemp); \
	if ! { $$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive $$install; } >"$$log" 2>&1; then \
	  tail -20 "$$log"; rm -f "$$log"; exit 1; fi; rm -f "$$log"

.venv/.ready: pyproject.toml requirements/build.txt requirements/dev.txt | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) -V)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "==> installing pinned Python packages (about a minute; tpm2-pytss is compiled)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/build.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps --no-build-isolation -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/.ready ## make .venv and build the local control plane (about 8 minutes the first time)
	@$(BIN)/countersign dev build

demo: setup ## run the main job end to end, then attack it
	@$(BIN)/countersign demo

test: setup nodes lint types contracts ## run everything that CI runs
	@echo "==> tests"
	@$(BIN)/python -m pytest

# SEED=… does a run again; WHAT=fuzz|decisions|kills is one of the three; JOBS=1 leaves a core to others; FIRST= goes on from there.
JOBS ?= 2
WHAT ?= all
soak: setup ## the long runs: a million inputs, a million decisions, a hundred kill -9 (about an hour on 2 cores)
	@PYTHONPATH=tests:operator:webhook $(BIN)/python -m support.soak $(WHAT) --jobs $(JOBS) $(if $(SEED),--seed $(SEED)) \
	  $(if $(FIRST),--first $(FIRST)) $(if $(COUNT),--count $(COUNT))

lint: .venv/.ready ## ruff: style and formatting
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

format: .venv/.ready ## let ruff rewrite what it can
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

types: .venv/.ready ## mypy, strict
	@echo "==> mypy"
	@$(BIN)/mypy --no-error-summary operator/countersign webhook/countersign_webhook

contracts: .venv/.ready ## import contracts, and generated files as they would be generated now
	@echo "==> import contracts and generated files"
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports
	@$(BIN)/countersign crds --check
	@PYTHONPATH=tests $(BIN)/python -m support.values_table --check

crds: .venv/.ready ## write crds/ and the chart's copy from the models
	@$(BIN)/countersign crds

chart: .venv/.ready ## write the chart's table of values from the comments in values.yaml
	@PYTHONPATH=tests $(BIN)/python -m support.values_table

bench: setup ## measure, print and write docs/benchmarks.md (ONLY="decisions …": print these parts alone)
	@$(BIN)/python bench/run.py $(if $(ONLY),--only $(ONLY))

# What real nodes and images need beside the packages above.
E2E_PACKAGES := buildah conntrack containerd containernetworking-plugins iproute2 iptables mmdebstrap runc
E2E_HAVE := command -v buildah conntrack containerd ip iptables mmdebstrap runc >/dev/null && test -x /usr/lib/cni/ptp

e2e-packages: root
	@if $(E2E_HAVE); then exit 0; fi; log=$$(mktemp); \
	echo "==> installing Debian packages (about a minute): $(E2E_PACKAGES)"; \
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(E2E_PACKAGES); } >"$$log" 2>&1; then \
	  tail -20 "$$log"; rm -f "$$log"; exit 1; fi; rm -f "$$log"

root:
	@test "$$(id -u)" = 0 || { echo "This needs root: nodes are namespaces, cgroups and mounts, images are built in a chroot. Nothing was done."; exit 1; }

# What the short form of the end-to-end tests needs, where this machine may make nodes: else pytest skips them and says why.
nodes: .venv/.ready
	@if PYTHONPATH=tests $(BIN)/python -m support.e2e able; then \
	  $(MAKE) --no-print-directory e2e-packages && PYTHONPATH=tests $(BIN)/python -m support.e2e prepare; fi

image: e2e-packages .venv/.ready ## build our images without a registry, with a bill of materials (root)
	@PYTHONPATH=tests $(BIN)/python -m support.image

e2e: e2e-packages .venv/.ready ## two real nodes on this machine, Helm install, real pods (root; the cluster stays)
	@PYTHONPATH=tests $(BIN)/python -m support.e2e up
	@echo "==> end-to-end tests"
	@$(BIN)/python -m pytest -m e2e tests/e2e

e2e-down: .venv/.ready ## take the nodes of `make e2e` away
	@PYTHONPATH=tests $(BIN)/python -m support.e2e down

lock: .venv/.ready ## resolve the dependencies again into requirements/*.txt
	@compile="$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --universal --python-version 3.11"; \
	export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	$$compile --extra dev pyproject.toml -o requirements/dev.txt >/dev/null; \
	$$compile -c requirements/dev.txt --extra operator --extra webhook --extra authority --extra signer --extra node --extra verifier pyproject.toml -o requirements/runtime.txt >/dev/null; \
	$$compile -c requirements/dev.txt requirements/build.in -o requirements/build.txt >/dev/null

clean: ## remove the virtual environment and caches of tools (not ~/.cache/countersign)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
