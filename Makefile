# Everything a checkout can do. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := setup
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONPATH := $(CURDIR)/.collections
# Without compiled bytecode every start of the agent service takes seconds more.
unexport PYTHONDONTWRITEBYTECODE
# Debian keeps the system's certificates here; a company's own authority is in it too.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export SSL_CERT_FILE ?= /etc/ssl/certs/ca-certificates.crt
export PIP_CERT ?= $(SSL_CERT_FILE)
endif

# The lab that `make test` boots; a demo's lab (lab, 10.77.0.0/24) is left alone.
TEST_LAB := -e lab_name=test -e lab_network=10.78.0.0/24
LAB := -i inventories/lab

LANES ?= 2
# The fleet tests look at what these give a host as well: their scenarios are soak's.
SOAK_ROLES := alertmanager backup balancer exporters grafana logs postgres prometheus redis routine
ROLES := $(sort $(notdir $(patsubst %/,%,$(dir $(wildcard molecule/*/molecule.yml)))))

.PHONY: help setup lint unit app-test coverage role roles lab-up lab-down demo fleet test soak bench docs lock collection clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Install what is missing: the locked Python environment in .venv (the default)

$(VENV)/.ready: requirements/uv.txt requirements/dev.txt
	@tests/tools/setup-environment "$(PYTHON)" "$(VENV)" requirements/dev.txt
	@touch $@

$(VENV)/.bench-ready: $(VENV)/.ready requirements/bench.txt
	@uv pip install --quiet --python $(VENV) --require-hashes -r requirements/bench.txt
	@touch $@

app/.venv/.ready: $(VENV)/.ready app/requirements-dev.txt
	@echo "setup: the agent service's own environment in app/.venv"
	@uv venv --quiet --clear --python "$(PYTHON)" app/.venv
	@uv pip install --quiet --compile-bytecode --python app/.venv --require-hashes -r app/requirements-dev.txt
	@touch $@

lint: setup app/.venv/.ready ## yamllint, ansible-lint (production), ruff, mypy
	yamllint --strict .
	ruff check .
	ruff format --check .
	mypy plugins
	cd app && .venv/bin/mypy src
	ansible-lint --offline

unit: setup ## Unit tests of plugins, roles' specifications and templates
	@tests/tools/apt-install prometheus
	pytest -q -n $(LANES) tests/unit

app-test: app/.venv/.ready ## The agent service's tests, on a real PostgreSQL and Redis
	@tests/tools/apt-install postgresql redis-server chromium chromium-driver
	cd app && .venv/bin/pytest -q -n 3 --dist loadfile tests -m "not soak"

coverage: app/.venv/.ready ## Branches of the agent service that its tests run: at least 90 %
	@tests/tools/apt-install postgresql redis-server chromium chromium-driver
	cd app && rm -f .coverage .coverage.*
	cd app && .venv/bin/coverage run -m pytest -q -n 3 --dist loadfile tests $(if $(SOAK),,-m "not soak")
	cd app && .venv/bin/coverage combine --quiet && .venv/bin/coverage report
	cd app && .venv/bin/coverage json --quiet -o - | .venv/bin/python tests/branches.py

role: setup ## One role's scenario on Debian 12 and 13: make role ROLE=redis
	@test -n "$(ROLE)" || { echo "name the role: make role ROLE=<$(ROLES)>"; exit 2; }
	@tests/tools/run-scenario $(ROLE)

# Each in a lab and network of its own, so that two of them may run at the same time.
roles: setup ## The roles' scenarios, two at a time (make roles SOAK_ROLES= has all of them)
	@number=60; for role in $(filter-out $(SOAK_ROLES),$(ROLES)); do number=$$((number + 1)); echo $$role mol$$number 10.$$number.0.0/24; done \
	  | xargs -P $(LANES) -L 1 bash -c 'LAB_NAME=$$1 LAB_NETWORK=$$2 exec tests/tools/run-scenario $$0'

lab-up: setup ## Boot the local hosts of inventories/lab
	ansible-playbook $(LAB) playbooks/lab.yml -e lab_state=up

lab-down: setup ## End the local hosts
	ansible-playbook $(LAB) playbooks/lab.yml -e lab_state=down

demo: setup ## Local hosts, provisioned, the agent service deployed, a conversation over HTTPS
	@tests/tools/demo

fleet: setup app/.venv/.ready ## Fleet tests against a lab of their own (left up: KEEP=1)
	$(if $(ONLY),pytest tests/fleet -k "$(ONLY)",python tests/tools/lanes.py) -q --durations=20 -m "not soak"

soak: setup app/.venv/.ready ## The whole matrix of scenarios, fleet tests and the service's tests; run before a release
	$(if $(ONLY),,@$(MAKE) roles SOAK_ROLES=)
	$(if $(ONLY),,@$(MAKE) coverage SOAK=1)
	$(if $(ONLY),pytest tests/fleet -k "$(ONLY)",python tests/tools/lanes.py) -q --durations=20

test: lint unit app-test roles fleet ## All of it: the same that CI runs

bench: $(VENV)/.bench-ready ## Measure: figures for docs/benchmarks.md (ONLY=deploy for one)
	ONLY="$(ONLY)" PEER="$(PEER)" $(BIN)/python tests/bench/run.py

docs: setup ## Regenerate the reference from the roles' specifications, and the example inventories
	$(BIN)/python tests/tools/reference.py
	$(BIN)/python tests/tools/examples.py

lock: setup ## Compile the requirement locks anew
	@tests/tools/compile-locks

collection: setup ## Build the collection's archive into .build/
	ansible-galaxy collection build --force --output-path .build .

clean: lab-down ## End the lab; remove environments, caches and builds
	rm -rf $(VENV) app/.venv .build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .ansible app/.coverage*
