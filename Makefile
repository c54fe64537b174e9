# Everything a person needs, explained by `make help`. Nothing is installed twice: a stamp inside the virtual environment
# carries the checksum of the lock files, pyproject.toml and this folder's path, and `dev` contains all of `demo`.

VENV ?= .venv
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
ARGS ?=
ON_EVERY_CORE ?= --numprocesses auto --maxprocesses 8 --dist worksteal
export OMP_WAIT_POLICY ?= PASSIVE

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
DEMO_KEY := $(shell (pwd; cat requirements.lock pyproject.toml) | cksum | cut -d ' ' -f 1)
DEV_KEY := $(shell (pwd; cat requirements.lock requirements-dev.lock pyproject.toml) | cksum | cut -d ' ' -f 1)
DEV_STAMP := $(VENV)/.installed-dev-$(DEV_KEY)
DEMO_STAMP := $(or $(wildcard $(DEV_STAMP)),$(VENV)/.installed-demo-$(DEMO_KEY))
DEMO_ONLY := $(filter-out $(DEV_STAMP),$(DEMO_STAMP))

.DEFAULT_GOAL := help
.PHONY: help install demo lint test test-all bench serve notebooks lock bento clean

help: ## this list
	@echo "Qianmian. Needs Python 3.11 or newer (PYTHON=... names one) and a C compiler."
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO_STAMP) ## install what the product needs, then the whole way on Complete Journey: data, models, HTTP answers
	"$(VENV)/bin/qianmian" demo $(ARGS)

install: $(DEV_STAMP) ## make .venv with everything: the product, Spark and the test tools
	@echo "$(VENV) is up to date; next: . $(VENV)/bin/activate && qianmian --help"

lint: $(DEV_STAMP) ## ruff, mypy strict, and the floors (import-linter)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"

test: lint ## lint, then the fast tests and all doctests
	$(PY) -m pytest $(ON_EVERY_CORE) $(ARGS)

test-all: lint ## lint, then all tests, the slow ones too
	$(PY) -m pytest $(ON_EVERY_CORE) -m "" $(ARGS)

bench: $(DEV_STAMP) ## every benchmark: each published number and speed claim (ARGS=--quick for a short look)
	@status=0; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(PY) "$$file" $(ARGS) || status=1; done; exit $$status

serve: $(DEMO_STAMP) ## answer HTTP requests on port 3000 (ARGS="--port 8080" for another)
	"$(VENV)/bin/qianmian" serve $(ARGS)

notebooks: $(DEV_STAMP) ## run every notebook from top to bottom; a failing cell fails
	$(PY) -c "import sys; from nbclient.cli import main; sys.exit(main())" notebooks/*.ipynb

bento: $(DEV_STAMP) ## pack the service and its champions with `bentoml build`
	"$(VENV)/bin/qianmian" models export
	$(PY) -m bentoml build

lock: $(DEV_STAMP) ## resolve requirements.lock and requirements-dev.lock anew from pyproject.toml
	@$(PY) -c "import uv" 2>/dev/null || $(PIP) install uv
	$(PY) -m uv pip compile pyproject.toml --extra demo $(LOCK_OPTIONS) -o requirements.lock
	$(PY) -m uv pip compile pyproject.toml --extra dev --constraint requirements.lock $(LOCK_OPTIONS) -o requirements-dev.lock

clean: ## remove caches and build output; .venv and the workspace stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -type d -prune -exec rm -rf {} +

LOCK_OPTIONS := --quiet --upgrade --python-version 3.11 --no-emit-index-url --no-emit-find-links --generate-hashes \
	--custom-compile-command "make lock"

# ---- installing ---------------------------------------------------------------------------------------------------------

# what an installation needs, asked before anything is downloaded
define CHECK_TOOLS
	@test -n "$(PYTHON)" || { echo "Qianmian needs Python 3.11 or newer, and none was found." >&2; \
		echo "Install one (python.org, pyenv, or your package manager), or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Qianmian needs Python 3.11 or newer; '$(PYTHON)' is not. Name another: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@command -v "$${CC:-cc}" >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
		echo "Qianmian needs a C compiler (rectools-lightfm is built from source), and none was found." >&2; \
		echo "Debian and Ubuntu: apt-get install build-essential. Fedora: dnf install gcc. macOS: xcode-select --install" >&2; exit 2; }
	@"$(PYTHON)" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || { \
		echo "'$(PYTHON)' has no C headers (Python.h), which rectools-lightfm is built with." >&2; \
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
