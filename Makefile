# Siyu's commands. `make` alone lists them. The first that needs it sets everything up: uv into .tools, the pinned and
# hashed requirements into .venv. A second call finds both and starts at once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first interpreter that is new enough; uv never downloads one.
PYTHON := $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$python"; break; }; done)

export UV_PYTHON_DOWNLOADS := never
# uv brings certificates of its own; where the system has some (a company's proxy, say), those count.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := 1
endif

VENV := .venv/bin
UV := .tools/bin/uv

# A stamp is named by what it stands for: other requirements, another interpreter or a moved checkout make another name,
# and so another set-up. (Times would not do: git gives every file a new one.)
key = $(shell { echo "$(CURDIR) $(PYTHON)"; "$(PYTHON)" -V || true; cat requirements/uv.txt $(1); } 2>/dev/null | sha256sum | cut -c1-16)
UV_STAMP := .tools/.uv-$(call key)
LOCAL := .venv/.local-$(call key,requirements/local.txt)
DEV := .venv/.dev-$(call key,requirements/dev.txt)
# What runs the stack also runs beside the developers' tools, which are a superset: don't take those away.
RUN := $(if $(wildcard .venv/.dev-*),$(DEV),$(LOCAL))

# The contracts that clients were built against: what they know never breaks.
RELEASED := proto/released.binpb

.PHONY: help run demo test unit check fix proto lock bench audit gate setup

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(RUN) ## start all of Siyu, replay a fortnight (WEEKS=all: the year), report, audit, stay up
	@$(VENV)/siyu demo $(if $(WEEKS),--weeks '$(WEEKS)')

demo: $(RUN) ## the same, but stop at the end with the audit's verdict
	@$(VENV)/siyu demo --exit $(if $(WEEKS),--weeks '$(WEEKS)')

test: $(DEV) ## every test: unit, store, contract, e2e, k8s, faults (ONLY=path for some)
	@$(VENV)/pytest $(or $(ONLY),tests)

unit: $(DEV) ## the tests that need no server; seconds
	@$(VENV)/pytest tests/unit

check: $(DEV) ## format, lint, types, import contracts, contracts of the API, generated code, unit tests
	@echo "check: format"    && $(VENV)/ruff format --check --quiet .
	@echo "check: lint"      && $(VENV)/ruff check --quiet .
	@echo "check: types"     && $(VENV)/mypy
	@echo "check: imports"   && $(VENV)/lint-imports
	@echo "check: generated" && $(VENV)/python proto/generate.py --check
	@echo "check: contracts" && mkdir -p build && $(VENV)/python proto/generate.py --image build/siyu.binpb
	@$(VENV)/buf lint build/siyu.binpb --config proto/buf.yaml
	@$(if $(wildcard $(RELEASED)),$(VENV)/buf breaking build/siyu.binpb --against $(RELEASED) --config proto/buf.yaml)
	@echo "check: unit"      && $(VENV)/pytest -q tests/unit

fix: $(DEV) ## format, and mend what a tool can mend
	@$(VENV)/ruff check --fix --quiet . || true
	@$(VENV)/ruff format .

proto: $(DEV) ## generate proto/gen anew from proto/siyu
	@$(VENV)/python proto/generate.py

lock: $(UV_STAMP) ## resolve requirements/*.in anew into pinned, hashed *.txt
	@for name in uv runtime local dev; do \
		$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
			requirements/$$name.in --output-file requirements/$$name.txt; done

bench: $(DEV) ## the measurements, as a table and build/bench.json (ONLY=name for one)
	@$(VENV)/siyu bench $(if $(ONLY),--only $(ONLY))

audit: $(RUN) ## check the books of the running stack
	@$(VENV)/siyu audit

gate: $(RUN) ## say what a rollout of k8s/ would break (FILES=folder; without it the dev overlay)
	@$(VENV)/siyu gate check --files $(or $(FILES),k8s/overlays/dev)

setup: $(DEV) ## only set up: .tools and .venv with everything that develops and tests Siyu
	@:

# --- set-up ------------------------------------------------------------------------------------------------------------

$(UV_STAMP): export PIP_ROOT_USER_ACTION := ignore
$(UV_STAMP): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(UV_STAMP): export PIP_USER := 0
$(UV_STAMP):
	@if [ -z "$(PYTHON)" ]; then \
		echo "Siyu needs Python 3.11 or newer as python3 (on Debian: apt-get install python3)" >&2; exit 1; fi
	@echo "set-up: uv into .tools"
	@rm -rf .tools
	@if "$(PYTHON)" -m pip --version >/dev/null 2>&1; then pip="$(PYTHON)"; \
	elif "$(PYTHON)" -m venv .tools/bootstrap >/dev/null 2>&1; then pip=.tools/bootstrap/bin/python; \
	else echo "Siyu needs pip once, to fetch its installer (on Debian: apt-get install python3-pip)" >&2; exit 1; fi; \
	"$$pip" -m pip install -qq --target .tools --require-hashes --only-binary :all: --requirement requirements/uv.txt
	@touch $@

define install
@echo "set-up: $(1) into .venv"
@$(VENV)/python -c '' 2>/dev/null || $(UV) venv --quiet --clear --python "$(PYTHON)" .venv
@rm -f .venv/.local-* .venv/.dev-*
@$(UV) pip sync --quiet --compile-bytecode --python $(VENV)/python --require-hashes $(1)
@printf '%s\n' "$(CURDIR)" "$(CURDIR)/proto/gen" > "$$($(VENV)/python -c 'import site; print(site.getsitepackages()[0])')/siyu.pth"
@printf '#!/bin/sh\nexec "%s" -P -m services.console "$$@"\n' "$(CURDIR)/$(VENV)/python" > $(VENV)/siyu && chmod +x $(VENV)/siyu
@touch $@
endef

$(LOCAL): | $(UV_STAMP)
	$(call install,requirements/local.txt)

$(DEV): | $(UV_STAMP)
	$(call install,requirements/dev.txt)
