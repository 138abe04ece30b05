# Tasks for developers and CI. Needs git, a C++ compiler and Python >= 3.10; everything else is installed.

PYTHON ?= python3
VENV   := .venv
# `python -m` also works in a folder that was renamed or has spaces in its name.
PY     := $(VENV)/bin/python
# An interrupted venv has no pip: create it again.
WHOLE := $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
OVERLAY := $(shell find templates/overlay -name '*.h' -o -name '*.c' -o -name '*.cpp')

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' qlutattn_patch/__init__.py)
SCHEMA  := $(PY) -m check_jsonschema --quiet --builtin-schema vendor

SECONDS ?= 600

# Quick tests run in parallel; those that share a build run in sequence. pytest exits with 5 if ARGS selects no test.
PYTEST = $(PY) -m pytest -p tests.progress -p tests.what_runs -p tests.lanes -n auto -o console_output_style=classic \
	--durations 10 --junit-xml build/reports/$@.xml
BRIEF  := not slow and (core or not (compiler or qemu))
VENDOR = $(PY) -m qlutattn_patch vendor || echo "make $@: llama.cpp is missing; the tests that need it cannot run" >&2

.PHONY: run test test-rest test-all nightly quick check lint docs man dist arm64 fuzz mca format clean help

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: $(VENV)/.installed ## Get llama.cpp, patch it, build it, and check it with align_attn
	@$(PY) -m qlutattn_patch run $(ARGS)

test: $(VENV)/.installed-dev ## The quick tests, one build with align_attn, and the core tests of the KV cache (3 to 10 minutes)
	@$(VENDOR)
	@$(PYTEST) -m "$(BRIEF)" --left-out "more builds, slow tests; to run them: make test-rest" $(ARGS) || [ $$? = 5 ]

test-rest: $(VENV)/.installed-dev ## The tests of `make test-all` that `make test` leaves out
	@$(VENDOR)
	@$(PYTEST) -m "not ($(BRIEF))" --left-out "those of make test" $(ARGS) || [ $$? = 5 ]

test-all: $(VENV)/.installed-dev ## All tests that this machine can run
	@$(VENDOR)
	@$(PYTEST) -m "" $(ARGS) || [ $$? = 5 ]

nightly: $(VENV)/.installed-dev ## The long versions of tests: every fault, many examples, long fuzzing
	@$(VENDOR)
	@$(PYTEST) -m nightly --thorough --left-out "those of make test-all" $(ARGS) || [ $$? = 5 ]

quick: lint ## Lint and the quick tests alone: no llama.cpp, no compiler
	@$(PYTEST) -m "not (vendored or compiler or qemu or slow)" --left-out "tests that need llama.cpp, a compiler or a long time" $(ARGS) || [ $$? = 5 ]

check: lint docs ## Lint, the site, and a check that patches/ matches templates/
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
	@output=$$($(PY) -m towncrier build --draft --version next 2>&1) || { echo "$$output" >&2; exit 1; }

docs: $(VENV)/.installed-dev ## The pages in docs/ as a site, in build/site; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

man: $(VENV)/.installed ## Manual pages of all commands, in build/man
	@$(PY) scripts/man_pages.py build/man

dist: $(VENV)/.installed-dev ## In dist/: sdist, wheel, and patches/ as an archive
	@[ -z "$$(git status --porcelain)" ] || { echo "error: make dist takes what is committed, and there are changes." >&2; echo "  next: git commit" >&2; exit 3; }
	@rm -rf dist
	@$(PY) -m build --no-isolation
	@git archive --prefix=qlutattn-patches-$(VERSION)/ -o dist/qlutattn-patches-$(VERSION).tar.gz HEAD LICENSE patches vendor/llama.cpp.toml

arm64: $(VENV)/.installed ## Like run, for arm64: native on an arm64 machine, else cross-compiled and under qemu-user
	@$(PY) -m qlutattn_patch run --preset arm64 $(ARGS)

fuzz: $(VENV)/.installed ## Fuzz attention and state loading with clang's sanitizers, ten minutes each or SECONDS=N
	@$(PY) -m qlutattn_patch vendor
	@$(PY) -m qlutattn_patch apply
	@$(PY) scripts/fuzz.py --seconds $(SECONDS) $(ARGS)

mca: $(VENV)/.installed ## A table of llvm-mca's cycles of the NEON kernels' and upstream's inner loops
	@$(PY) -m qlutattn_patch vendor
	@$(PY) -m qlutattn_patch apply
	@$(PY) scripts/mca_table.py

format: $(VENV)/.installed-dev ## Format Python and C++
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@$(VENV)/bin/clang-format -i $(OVERLAY)

clean: ## Remove the builds and the virtual environment; keeps vendor/llama.cpp and the download cache
	rm -rf build dist $(VENV)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is not Python 3.10 or newer." >&2; \
		echo "  next: make PYTHON=/path/to/python3.10-or-newer" >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "error: '$(PYTHON)' has no venv module (on Debian and Ubuntu it is a separate package)." >&2; \
		echo "  next: sudo apt-get install -y python3-venv" >&2; exit 3; }
	@echo "· creating $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(PY)
	@echo "· installing qlutattn into $(VENV)" >&2
	@$(WHOLE)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[plot]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(PY)
	@echo "· installing qlutattn and its development tools into $(VENV)" >&2
	@$(WHOLE)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed
