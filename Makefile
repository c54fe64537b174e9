# `make help` lists the targets. Nothing is installed twice: the name of a stamp file inside the virtual environment holds
# the checksum of the lock files, pyproject.toml, the C sources and the path of this folder. `dev` contains all of `demo`.

VENV ?= .venv
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
ARGS ?=
ON_EVERY_CORE ?= --numprocesses auto --maxprocesses 8 --dist worksteal
SUDO ?= $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export OMP_WAIT_POLICY ?= PASSIVE

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
C_SOURCES := $(wildcard models/recommend/ranking/_*.[ch])
DEMO_KEY := $(shell (pwd; cat requirements.lock pyproject.toml $(C_SOURCES)) | cksum | cut -d ' ' -f 1)
DEV_KEY := $(shell (pwd; cat requirements.lock requirements-dev.lock pyproject.toml $(C_SOURCES)) | cksum | cut -d ' ' -f 1)
DEV_STAMP := $(VENV)/.installed-dev-$(DEV_KEY)
DEMO_STAMP := $(or $(wildcard $(DEV_STAMP)),$(VENV)/.installed-demo-$(DEMO_KEY))
DEMO_ONLY := $(filter-out $(DEV_STAMP),$(DEMO_STAMP))

.DEFAULT_GOAL := help
.PHONY: help install servers demo lint audit test test-all bench serve notebooks lock bento clean

help: ## show this list
	@echo "Qianmian needs Python 3.11 or newer (PYTHON=... selects one) and a C compiler."
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO_STAMP) ## install the product, then run it end to end on Complete Journey: data, models, HTTP responses
	"$(VENV)/bin/qianmian" demo $(ARGS)

install: $(DEV_STAMP) ## create .venv with all dependencies: the product, Spark and the test tools
	@echo "$(VENV) is up to date. Next: . $(VENV)/bin/activate && qianmian --help"

servers: ## install PostgreSQL and Redis with apt-get: tests start servers of their own, and skip what is not installed
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql redis-server

lint: $(DEV_STAMP) ## check with ruff (lint and format), mypy (strict), import-linter (layers) and pip-audit (known vulnerabilities)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
	@$(PY) .ci/audit.py

audit: $(DEV_STAMP) ## look up known vulnerabilities of all locked packages; says so where there is no advisory service
	@$(PY) .ci/audit.py

test: lint ## lint, then run the fast tests and all doctests
	$(PY) -m pytest $(ON_EVERY_CORE) $(ARGS)

test-all: lint ## lint, then run all tests, including the slow ones
	QIANMIAN_ALL_EXAMPLES=1 $(PY) -m pytest $(ON_EVERY_CORE) -m "" $(ARGS)

bench: $(DEV_STAMP) ## run all benchmarks, which measure every published figure (ARGS=--quick for a short run)
	@status=0; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(PY) "$$file" $(ARGS) || status=1; done; exit $$status

serve: $(DEMO_STAMP) ## serve HTTP requests on port 3000 (ARGS="--port 8080" for another port)
	"$(VENV)/bin/qianmian" serve $(ARGS)

notebooks: $(DEV_STAMP) ## run every notebook from top to bottom; a failing cell fails the target
	$(PY) -c "import sys; from nbclient.cli import main; sys.exit(main())" notebooks/*.ipynb

bento: $(DEV_STAMP) ## build a Bento of the service and its champion models
	"$(VENV)/bin/qianmian" models export
	$(PY) -m bentoml build

lock: $(DEV_STAMP) ## resolve the three lock files again from pyproject.toml
	@$(PY) -c "import uv" 2>/dev/null || $(PIP) install uv
	$(PY) -m uv pip compile pyproject.toml --extra demo $(LOCK_OPTIONS) -o requirements.lock
	$(PY) -m uv pip compile pyproject.toml --extra dev --constraint requirements.lock $(LOCK_OPTIONS) -o requirements-dev.lock
	$(PY) -m uv pip compile --group serving --constraint requirements.lock $(LOCK_OPTIONS) -o requirements-serving.lock

clean: ## remove caches and build output; keep .venv and the workspace
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -type d -prune -exec rm -rf {} +

LOCK_OPTIONS := --quiet --upgrade --python-version 3.11 --no-emit-index-url --no-emit-find-links --generate-hashes \
	--custom-compile-command "make lock"

# ---- installation -------------------------------------------------------------------------------------------------------

# the requirements of an installation are checked before anything is downloaded
define CHECK_TOOLS
	@test -n "$(PYTHON)" || { echo "Qianmian needs Python 3.11 or newer, which was not found." >&2; \
		echo "Install it (python.org, pyenv, or your package manager), or pass its path: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Qianmian needs Python 3.11 or newer; '$(PYTHON)' is older. Pass another: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot create virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@command -v "$${CC:-cc}" >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
		echo "Qianmian needs a C compiler (rectools-lightfm and an extension are built from source), which was not found." >&2; \
		echo "Debian and Ubuntu: apt-get install build-essential. Fedora: dnf install gcc. macOS: xcode-select --install" >&2; exit 2; }
	@"$(PYTHON)" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || { \
		echo "'$(PYTHON)' has no C headers (Python.h); rectools-lightfm needs them to build." >&2; \
		echo "Debian and Ubuntu: apt-get install python3-dev. Fedora: dnf install python3-devel" >&2; exit 2; }
endef

$(PY):
	$(CHECK_TOOLS)
	"$(PYTHON)" -m venv $(VENV)

$(DEV_STAMP): | $(PY)
	$(CHECK_TOOLS)
	@echo "Installing requirements-dev.lock into $(VENV); the first time takes some minutes."
	@rm -f $(VENV)/.installed-*
	$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

ifneq ($(DEMO_ONLY),)
$(DEMO_ONLY): | $(PY)
	$(CHECK_TOOLS)
	@echo "Installing requirements.lock into $(VENV); the first time takes some minutes."
	@rm -f $(VENV)/.installed-*
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
endif
