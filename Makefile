# Two commands are all there is to learn: `make book` and `make test`. The rest is comfort; `make help` lists it.
PYTHON ?= # the interpreter of the environment; empty: python3, or the newest other one that fits
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
T      ?= local

export PYTHONUTF8 := 1# in any locale
unexport PYTHONHOME PYTHONPATH PYTHONINSPECT PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE# they are for other programs
.DEFAULT_GOAL := help
.PHONY: help book serve live test lint unit component notebooks e2e bench refresh doctor clean lock hooks

help: ## list the targets of this file
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(shell sh helpers/set_up.sh check)
$(READY): requirements.lock pyproject.toml
	@sh helpers/set_up.sh make "$(strip $(PYTHON))"

book: $(READY) ## run the chapters on this machine and render the book
	@$(BIN)/tutorial book

serve: $(READY) ## read the rendered book in the browser, at http://localhost:8000
	@$(BIN)/tutorial serve

live: $(READY) ## step through the notebooks in JupyterLab, at http://localhost:8888
	@$(BIN)/jupyter lab --ServerApp.root_dir="$$PWD/notebooks" --ServerApp.port=8888 --ServerApp.port_retries=0 $(LIVE)

test: lint unit component notebooks e2e ## everything: lint, types, unit, component, notebooks, the book
	@echo "make test: all green"

lint: $(READY) ## ruff, formatting, types, the notebooks' outputs policy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m helpers.notebook_outputs notebooks/*.ipynb tests/controls/*.ipynb

unit: $(READY) ## fast tests
	@$(BIN)/pytest -q -m unit --random-order

component: $(READY) ## tests with real servers on loopback (and Docker where it is)
	@$(BIN)/pytest -q -m component --random-order

notebooks: $(READY) ## each notebook by papermill, its committed outputs by nbval; the negative controls come first
	@$(BIN)/pytest -q tests/test_notebooks.py

e2e: $(READY) ## long stories, and the book in a browser
	@$(BIN)/pytest -q -m "e2e" --ignore=tests/test_notebooks.py --random-order

bench: $(READY) ## the figures of README, as ratios to the plain tool
	@for bench in tests/bench/bench_*.py; do $(BIN)/python $$bench || exit 1; done

refresh: $(READY) ## run the notebooks and write their text outputs into git's copies
	@$(BIN)/tutorial run --refresh

doctor: $(READY) ## what is here, what is missing, and what to do about it: make doctor T=local
	@$(BIN)/tutorial doctor --target $(T)

clean: $(READY) ## undo what the tutorial made: make clean T=local
	@$(BIN)/tutorial clean --target $(T)

hooks: $(READY) ## have git check each commit (pre-commit)
	@$(BIN)/pre-commit install

COMPILE = "$$root/$(BIN)/uv" pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
  --python-version 3.11 --custom-compile-command "make lock" --quiet
lock: ## resolve the dependencies of pyproject.toml and of the images anew
	@root=$$PWD; $(COMPILE) pyproject.toml --extra dev --upgrade --output-file requirements.lock
	@root=$$PWD; for part in $(patsubst %,applications/%/,$(addprefix forwarder/,beat celery fastapi flower) matmul); do (cd $$part && $(COMPILE) packages.in --no-annotate --upgrade \
	  --constraint "$$root/requirements.lock" --output-file packages.txt) || exit 1; done
	@# Airflow 3.0.6 as its release's day had it: newer versions of what it needs don't fit
	@root=$$PWD; cd applications/forwarder/airflow && $(COMPILE) packages.in --no-annotate --exclude-newer 2025-08-30 --output-file packages.txt
