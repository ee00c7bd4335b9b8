# Every target makes .venv by itself when pyproject.toml is newer than the last installation.
# Overridable: PYTHON (interpreter for .venv), PORT (of the UI), RLHI_SOURCE (another source than the bundled sample).

.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3.11
PORT ?= 3000
BIN := .venv/bin
INSTALLED := .venv/.installed

# Everything that a run writes, apart from the event log in the Dagster homes.
OUTPUTS := data/lake data/responses data/work data/tensorboard data/sources data/profiles data/rlhi.duckdb

.PHONY: help install demo data ui test test-vllm lint format check clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED) ## make .venv and install the project with its development tools

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"   # older ones do not know --group
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

demo: $(INSTALLED) ## the whole pipeline on the bundled sample, then the score table
	@DAGSTER_HOME=$$($(BIN)/rlhi home); export DAGSTER_HOME
	months=$$($(BIN)/rlhi months)
	$(BIN)/dg launch --job preference_data --partition-range "$$months"
	recipes=$$($(BIN)/rlhi recipes)
	$(BIN)/dg launch --job training --partition-range "$$recipes"
	$(BIN)/rlhi summary

data: $(INSTALLED) ## preference data from your own source: make data RLHI_SOURCE=... (or RLHI_PROFILE=..., from that profile's source)
	@if [[ -z "$${RLHI_SOURCE:-}" && "$${RLHI_PROFILE:-sample}" == sample ]]; then
	  echo "usage: make data RLHI_SOURCE='path/to/*.parquet'" >&2; exit 2
	fi
	DAGSTER_HOME=$$($(BIN)/rlhi home); export DAGSTER_HOME
	months=$$($(BIN)/rlhi months)
	$(BIN)/dg launch --job preference_data --partition-range "$$months"
	$(BIN)/rlhi summary

ui: $(INSTALLED) ## the Dagster UI at http://127.0.0.1:$(PORT), with its daemon
	@DAGSTER_HOME=$$($(BIN)/rlhi home); export DAGSTER_HOME
	exec $(BIN)/dg dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

test: $(INSTALLED) lint ## lint, types and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile   # a thread for each of two processes

test-vllm: $(INSTALLED) .venv-vllm/.installed ## the engines on vLLM and on its server, on the CPU, in an environment of its own (.venv-vllm, 4 GB)
	.venv-vllm/bin/python -m pytest tests/vllm

.venv-vllm/.installed: tests/vllm/requirements.txt pyproject.toml
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --no-deps --requirement $<
	.venv-vllm/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## reformat the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(INSTALLED) ## load the code location as Dagster does
	@DAGSTER_HOME=$$($(BIN)/rlhi home); export DAGSTER_HOME
	$(BIN)/dg check defs

clean: ## remove what runs have written: tables, artefacts, responses and Dagster's own records
	@shopt -s nullglob dotglob
	for path in $(OUTPUTS) data/dagster_home/*; do
	  if [[ -e "$$path" && "$$path" != data/dagster_home/dagster.yaml ]]; then echo "removing $$path"; rm -rf -- "$$path"; fi
	done
	rm -rf .pytest_cache .mypy_cache .ruff_cache
