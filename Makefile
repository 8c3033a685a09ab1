# Telemetry Lake: everything from a bare machine with Python 3.11 and make. Paths are relative, so that the checkout
# may be anywhere, also below a folder with a space in its name.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The interpreter that environments are made from: `make PYTHON=/path/to/python3.11 setup` to choose it.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)

toolchain = "$(PYTHON)" -I telemetry_lake/toolchain.py
python = .venv/bin/python
MINUTES ?= 5
GLUE ?= 5.1
TESTS ?= tests/integration
SEEDS ?= 1 2 3
KILLS ?= 30
clients_python = .tools/clients/bin/python
pytest = -m pytest -q

# No target is a file.
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*/\1/p' Makefile)

help: ## show these lines
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/^([a-z0-9-]+):[^#]*## (.*)$$/  make \1|\2/' | \
		while IFS='|' read -r name text; do printf '%-24s %s\n' "$$name" "$$text"; done

setup: check-python ## prepare all tools: environments, Java, Spark's libraries (idempotent)
	@$(toolchain) prepare

main-tools: check-python
	@$(toolchain) prepare main

clients-tools: check-python
	@$(toolchain) prepare clients

benchmark-tools: check-python
	@$(toolchain) prepare benchmarks

check-python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "Error: Python 3.11 is needed (the Spark of AWS Glue 5.1 runs on no later one), and $(PYTHON) is not that." >&2; \
		echo "Install it (Debian 12: apt install python3.11 python3.11-venv) or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
		exit 1; }

demo: setup ## the whole way of a reading on this machine, with evidence at every stop
	@$(python) -m telemetry_lake demo

test: setup ## every layer of tests, side by side: units, the job on a real Spark, the template, the way of a reading
	@$(MAKE) --jobs=3 $(beside)

# What starts Sparks of its own, to kill them, takes minutes: make test-integration has that too.
beside = $(addprefix beside-,unit integration template spine)
beside-integration: TESTS = $(wildcard tests/integration/test_*.py)

# A layer beside another: each line bears its name. Ctrl-C is for the tests, and what they say then is still passed on.
$(beside): beside-%:
	@$(MAKE) test-$* TESTS="$(TESTS)" 2>&1 | (trap '' INT; sed -u 's/^/$*: /')

test-unit: setup ## unit tests, and the embedded endpoint through plain boto3
	@$(python) $(pytest) tests/unit

test-integration: setup ## the Glue job on a real Spark: make test-integration GLUE=4.0 (5.0, 5.1, 6.0 or all)
	@$(python) -m tests.glue_versions $(GLUE) --tests $(TESTS)

test-template: setup ## the template, the state machine, the roles and the judges, without AWS
	@$(python) $(pytest) tests/template tests/permissions tests/code

test-spine: setup ## the way of a reading from end to end on the embedded endpoint
	@$(python) $(pytest) tests/e2e/test_spine.py

test-e2e: setup ## the whole system on the embedded endpoint, and what happens when parts of it fail
	@$(python) $(pytest) tests/e2e tests/faults

test-clients: setup clients-tools ## clients that nobody here wrote (PyAthena, awswrangler, dbt, ...) against tlake up
	@$(clients_python) $(pytest) tests/clients

trino: setup ## a real Trino (800 MB, once) over the endpoint's catalog and S3: the same rows, pruning and errors as Athena
	@$(python) -m tests.trino.installation
	@$(python) $(pytest) tests/trino

check: setup clients-tools benchmark-tools ## judges of the template, the state machine, the permissions and the code; each says what it judged
	@$(python) -m tests.check

mutation: setup clients-tools benchmark-tools ## plant faults, one by one, in copies of the project: each has to be caught by a judge of `make check`
	@$(python) $(pytest) -v tests/mutation

contract: main-tools ## write docs/contract.md anew, with an example for each reason, judged by the contract
	@$(python) -m telemetry_lake.contract_document > docs/contract.md.new && mv docs/contract.md.new docs/contract.md

fidelity: main-tools ## collect the known deviations of the embedded endpoint into docs/fidelity.md
	@$(python) -m tests.code.fidelity

corpus: main-tools ## judge thousands of odd records and print how often each verdict was given
	@$(python) -m tests.corpus.verdicts

fuzz: main-tools ## look for records that break the contract's promises: make fuzz MINUTES=5
	@$(python) -m tests.corpus.fuzz --minutes $(MINUTES)

benchmark-endpoint: setup ## time until the endpoint answers, the stack is deployed, and a first job has run, as a table
	@$(python) -m benchmarks.endpoint

load: main-tools ## ten times what a shard takes, for a minute each, and gigabytes through S3: nothing lost, memory bounded
	@$(python) -m tests.load

invoke: setup ## run every sample event of every function by `sam local invoke` in the Lambda runtime
	@$(python) -m tests.invoke $(INVOKE_OPTIONS)

report-check: main-tools ## the report in a real browser (apt install chromium), light and dark, phone and desk: make report-check REPORT=file.html
	@REPORT="$(REPORT)" $(python) $(pytest) tests/browser

benchmark-transform: main-tools ## the transform beside other handlers: time a record and time to import, as ratios
	@$(python) -m benchmarks.transform

benchmark-job: setup benchmark-tools ## the Glue job beside plain Spark, DuckDB and Polars, and what a batch costs: make benchmark-job PROFILE=--profile
	@$(python) -m benchmarks.job $(PROFILE)

crash-proof: setup ## kill the job at every step and prove that nothing is lost or doubled: make crash-proof SEEDS="1 2 3" KILLS=30
	@$(python) -m tests.crash_proof $(addprefix --seed ,$(SEEDS)) --kills $(KILLS)

format: main-tools ## format the code and repair what ruff can repair
	@$(python) -m ruff format .
	@$(python) -m ruff check --fix .

lock: check-python ## bring uv.lock up to date with pyproject.toml
	@$(toolchain) uv lock

clean: ## remove environments, downloaded tools and caches (data of a laptop stack: tlake down --delete-data)
	@if [ -x $(python) ]; then $(python) -m telemetry_lake down || exit 1; fi
	rm -rf .venv .tools .aws-sam .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
