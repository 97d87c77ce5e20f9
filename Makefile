# Two commands are all there is to learn: `make book` and `make test`. The rest is comfort; `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
T      ?= local

.DEFAULT_GOAL := help
.PHONY: help book serve live test lint unit component notebooks book-test bench refresh doctor clean lock hooks

help: ## list the targets of this file
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else \
	  "Python 3.11 or 3.12 is needed, this is %d.%d: name one, as in  make PYTHON=python3.12 …" % v)'
	@echo "Setting up $(VENV) from requirements.lock (the first time takes a minute) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -nE 's/^(uv==[^ ]+).*/\1/p' requirements.lock)"
	@$(UV) pip sync --quiet --require-hashes requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
