# The main commands are `make repro` and `make test`; `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --compile --require-hashes
export PATH := $(BIN):$(PATH)

.PHONY: help .dvc/.scm repro init label sweep promote serve test test-all lint format ui pretrain lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

repro: $(VENV)/.installed .dvc/.scm  ## install, then run the whole pipeline with params.yaml
	dvc repro
	@sed -n 's:.*class="verdict"><b>\(.*\)</b>.*:\1:p' outputs/report.html
	@echo "report: outputs/report.html"
	@echo "next: python -m pipeline predict IMAGE ..."

init: $(VENV)/.installed  ## install, then write a params.yaml for IMAGES (BACKBONE=..., FORCE=1)
	@test -n "$(IMAGES)" || { echo "error: no images: make init IMAGES=folder"; exit 1; }
	python -m pipeline init "$(IMAGES)" $(if $(BACKBONE),--backbone "$(BACKBONE)") $(if $(FORCE),--force)

label: $(VENV)/.installed  ## install, then label the images of a folder on a page (IMAGES=folder)
	@test -n "$(IMAGES)" || { echo "error: no images: make label IMAGES=folder"; exit 1; }
	python -m pipeline label "$(IMAGES)" $(if $(BACKBONE),--backbone "$(BACKBONE)")

sweep: $(VENV)/.installed .dvc/.scm  ## install, then search the cut and the learning rate
	python -m pipeline sweep

promote: $(VENV)/.installed  ## make the current model the champion, if it passes the gate
	python -m pipeline promote

serve: $(VENV)/.installed  ## serve the champion: a page for people, HTTP for programs (PORT=5001)
	python -m pipeline serve serve.port=$(or $(PORT),5001)

test: $(VENV)/.installed-dev .dvc/.scm  ## install, then run the quick tests
	python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.installed-dev .dvc/.scm  ## install, then run all tests, with browser, databases and servers
	python -m pytest -n 2

lint: $(VENV)/.installed-dev  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

format: $(VENV)/.installed-dev  ## format the code with ruff
	ruff check --fix .
	ruff format .

ui: $(VENV)/.installed  ## compare runs in the MLflow UI (PORT=5000)
	python -m pipeline ui tracking.port=$(or $(PORT),5000)

pretrain: $(VENV)/.installed  ## regenerate the weights of glyph_cnn, bit for bit
	python -m benchmarks.pretrain

lock: $(VENV)/.installed-dev  ## resolve pyproject.toml to requirements*.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --fork-strategy fewest --quiet -o requirements-dev.txt
	uv pip compile pyproject.toml --constraint requirements-dev.txt --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --fork-strategy fewest --quiet -o requirements.txt

clean:  ## remove outputs, keep the DVC cache and the runs
	rm -rf outputs dvc_plots .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14))' || \
	  { echo "error: Python 3.11 to 3.13 is needed, not $$($(PYTHON) --version): make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(PIP) -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@

# A downloaded archive has no .git: configure DVC to work without.
.dvc/.scm:
	@test -e .git || printf '[core]\n    no_scm = true\n' > .dvc/config.local
