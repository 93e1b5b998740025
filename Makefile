PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
# The lines of pip that setup shows: packages of 10 MB or more, and the last step. Warnings and
# errors are on stderr.
LARGE_OR_LAST := '(Downloading|Using cached) .*[0-9]{2,}(\.[0-9]+)? MB\)|^Installing collected packages'

.PHONY: help setup demo test lint format reference lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## create .venv from the pinned lock

$(READY): SHELL := bash
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"tfadv needs Python 3.11 to 3.13, this is {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	@echo "Installing the pinned packages into $(VENV): a minute or more."
	$(PYTHON) -m venv $(VENV)
	@set -o pipefail; $(BIN)/python -m pip install --progress-bar=off --disable-pip-version-check --require-hashes -r requirements.lock \
	| { grep --line-buffered -oE $(LARGE_OR_LAST) || true; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## train a protected encoder on synthetic faces, attack it, write a report
	$(BIN)/python run.py --mode=demo

test: $(READY)  ## run every test, in WORKERS processes (2)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## check form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## fix form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(READY)  ## write docs/settings.md and docs/glossary.md from the code
	$(BIN)/python -m tfadv.reporting.reference

lock:  ## renew requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock

clean:  ## remove the virtual environment and the runs
	rm -rf $(VENV) runs
