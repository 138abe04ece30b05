# Everything that a person or a CI job does here. Needs git, a C++ compiler and Python >= 3.10; the rest comes by itself.

PYTHON ?= python3
VENV   := .venv
# Through `python -m`, so that a folder that was renamed, or has spaces in its name, works.
PY     := $(VENV)/bin/python
# An interrupted venv has no pip: make it anew.
WHOLE := $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
OVERLAY := $(shell find templates/overlay -name '*.h' -o -name '*.c' -o -name '*.cpp')

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' qlutattn_patch/__init__.py)
SCHEMA  := $(PY) -m check_jsonschema --quiet --builtin-schema vendor

SECONDS ?= 600

# Quick tests run side by side, beside those that share a build and run one after another. 5: ARGS selects no test.
PYTEST = $(PY) -m pytest -p tests.progress -p tests.what_runs -p tests.lanes -n auto -o console_output_style=classic \
	--durations 10 --junit-xml build/reports/$@.xml
BRIEF  := not slow and (core or not (compiler or qemu))
VENDOR = $(PY) -m qlutattn_patch vendor || echo "make $@: llama.cpp is not there; the tests that need it cannot run" >&2

.PHONY: run test test-rest test-all nightly quick check lint docs dist arm64 fuzz mca format clean help

help: ## Say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: $(VENV)/.installed ## Get llama.cpp, patch it, build it, and prove it with align_attn
	@$(PY) -m qlutattn_patch run $(ARGS)

test: $(VENV)/.installed-dev ## The quick tests, one build with align_attn, and the core tests of the KV cache (5 to 10 minutes)
	@$(VENDOR)
	@$(PYTEST) -m "$(BRIEF)" --left-out "more builds, slow tests; to run them: make test-rest" $(ARGS) || [ $$? = 5 ]

test-rest: $(VENV)/.installed-dev ## What `make test-all` runs beside those of `make test`
	@$(VENDOR)
	@$(PYTEST) -m "not ($(BRIEF))" --left-out "those of make test" $(ARGS) || [ $$? = 5 ]

test-all: $(VENV)/.installed-dev ## All tests that can run here
	@$(VENDOR)
	@$(PYTEST) -m "" $(ARGS) || [ $$? = 5 ]

nightly: $(VENV)/.installed-dev ## The tests that only sample in the others, in full: each fault, many examples, long fuzzing
	@$(VENDOR)
	@$(PYTEST) -m nightly --thorough --left-out "those of make test-all" $(ARGS) || [ $$? = 5 ]

quick: lint ## Lint and the quick tests alone: no llama.cpp, no compiler
	@$(PYTEST) -m "not (vendored or compiler or qemu or slow)" --left-out "all that need llama.cpp, a compiler or long" $(ARGS)

check: lint docs ## Lint, the site, and that patches/ is what templates/ say
	@$(PY) -m qlutattn_patch vendor
	@$(PY) -m qlutattn_patch generate --check

lint: $(VENV)/.installed-dev ## Style, formatting and types of Python and C++; workflows, forms and changelog fragments
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports >/dev/null || $(VENV)/bin/lint-imports
	@$(VENV)/bin/clang-format --dry-run -Werror $(OVERLAY)
	@$(SCHEMA).github-workflows .github/workflows/*.yml
	@$(SCHEMA).github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	@$(SCHEMA).github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(SCHEMA).dependabot .github/dependabot.yml
	@said=$$($(PY) -m towncrier build --draft --version next 2>&1) || { echo "$$said" >&2; exit 1; }

docs: $(VENV)/.installed-dev ## The pages in docs/ as a site, in build/site; any link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

dist: $(VENV)/.installed-dev ## In dist/: sdist, wheel, and patches/ as an archive
	@rm -rf dist
	@$(PY) -m build --no-isolation
	@git archive --prefix=qlutattn-patches-$(VERSION)/ -o dist/qlutattn-patches-$(VERSION).tar.gz HEAD LICENSE patches vendor/llama.cpp.toml

arm64: $(VENV)/.installed ## As run, for arm64: native on an arm64 machine, else cross-compiled and under qemu-user
	@$(PY) -m qlutattn_patch run --preset arm64 $(ARGS)

fuzz: $(VENV)/.installed ## Fuzz attention and the loading of states under clang's sanitizers, each for ten minutes or SECONDS=N
	@$(PY) -m qlutattn_patch vendor
	@$(PY) -m qlutattn_patch apply
	@$(PY) scripts/fuzz.py --seconds $(SECONDS) $(ARGS)

mca: $(VENV)/.installed ## What llvm-mca makes of the NEON kernels' inner loops beside upstream's, as a table
	@$(PY) -m qlutattn_patch vendor
	@$(PY) -m qlutattn_patch apply
	@$(PY) scripts/mca_table.py

format: $(VENV)/.installed-dev ## Format Python and C++
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@$(VENV)/bin/clang-format -i $(OVERLAY)

clean: ## Remove the builds and the virtual environment; vendor/llama.cpp and the download cache stay
	rm -rf build dist $(VENV)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is no Python 3.10 or newer." >&2; \
		echo "  next: make PYTHON=/path/to/python3.10-or-newer" >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "error: '$(PYTHON)' has no venv module (Debian and Ubuntu have it in a package of its own)." >&2; \
		echo "  next: sudo apt-get install -y python3-venv" >&2; exit 3; }
	@echo "· making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(PY)
	@echo "· installing qlutattn into $(VENV)" >&2
	@$(WHOLE)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(PY)
	@echo "· installing qlutattn and its development tools into $(VENV)" >&2
	@$(WHOLE)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed
