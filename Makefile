# Telemetry Lake: everything from a bare machine with Python 3.11 and make. Paths are relative, so that the checkout
# may be anywhere, also below a folder with a space in its name.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The interpreter that environments are made from: `make PYTHON=/path/to/python3.11 setup` to choose it.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)

toolchain = "$(PYTHON)" -I telemetry_lake/toolchain.py
python = .venv/bin/python
glue_python = .tools/glue-5.1/bin/python
pytest = -m pytest -q

.PHONY: help setup main-tools demo test test-unit test-integration test-template test-e2e check mutation format lock clean

help: ## show these lines
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/^([a-z0-9-]+):[^#]*## (.*)$$/  make \1|\2/' | \
		while IFS='|' read -r name text; do printf '%-24s %s\n' "$$name" "$$text"; done

setup: check-python ## prepare all tools: environments, Java, Spark's libraries (idempotent)
	@$(toolchain) prepare

main-tools: check-python
	@$(toolchain) prepare main

.PHONY: check-python
check-python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "Error: Python 3.11 is needed (the Spark of AWS Glue 5.1 runs on no later one), and $(PYTHON) is not that." >&2; \
		echo "Install it (Debian 12: apt install python3.11 python3.11-venv) or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
		exit 1; }

demo: setup ## the whole way of a reading on this machine, with evidence at every stop
	@$(python) -m telemetry_lake demo

test: test-unit test-integration test-template test-e2e ## all tests, the cheapest layer first

test-unit: setup ## unit tests, and the embedded endpoint through plain boto3
	@$(python) $(pytest) tests/unit

test-integration: setup ## the Glue job on a real Spark, in the environment of Glue 5.1
	@$(glue_python) $(pytest) tests/integration

test-template: setup ## the template, the state machine, the roles and the judges, without AWS
	@$(python) $(pytest) tests/template tests/permissions tests/code

test-e2e: setup ## the whole system on the embedded endpoint, and what happens when parts of it fail
	@$(python) $(pytest) tests/e2e tests/faults

check: setup ## judges of the template, the state machine, the permissions and the code; each says what it judged
	@$(python) -m tests.check

mutation: setup ## plant faults, one by one, in copies of the project: each has to be caught by a judge of `make check`
	@$(python) $(pytest) -v tests/mutation

format: main-tools ## format the code and repair what ruff can repair
	@$(python) -m ruff format .
	@$(python) -m ruff check --fix .

lock: main-tools ## bring uv.lock up to date with pyproject.toml
	@$(toolchain) uv lock

clean: ## remove environments, downloaded tools and caches (data of a laptop stack: tlake down --delete-data)
	@if [ -x $(python) ]; then $(python) -m telemetry_lake down || exit 1; fi
	rm -rf .venv .tools .aws-sam .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
