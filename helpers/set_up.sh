#!/bin/sh
# Makes the environment `.venv` from requirements.lock; one that is half made, was moved or lost its Python is made again.
# Usage, in the project's folder: set_up.sh check   (before make looks at .venv/.ready)
#                                 set_up.sh make [INTERPRETER]
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV UV_SYSTEM_PYTHON UV_PYTHON UV_TARGET UV_PREFIX PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
here=$(pwd -P)
making=.venv/.making # holds the process id of a set-up; it stays where that did not finish
packages='import importlib.util, sys; sys.exit(importlib.util.find_spec("typer") is None)' # a newer Python does not see them

begin_again() {
  echo "Making .venv again: $1." >&2
  rm -rf .venv
}

check() {
  [ -e .venv/.ready ] || return 0
  recorded=$(cat .venv/.ready)
  if [ ! -x .venv/bin/tutorial ] || ! .venv/bin/python -c "$packages" 2>/dev/null || [ "${recorded:-$here}" != "$here" ]; then
    echo damaged >"$making"
    rm -f .venv/.ready
  fi
}

clear_what_is_no_use() {
  [ -e .venv ] || [ -L .venv ] || return 0
  owner=$(cat "$making" 2>/dev/null)
  case $owner in
    damaged) begin_again "its Python is gone, or the folder was moved" ;;
    [0-9]*) if kill -0 "$owner" 2>/dev/null; then
        echo "Another make sets up .venv (process $owner): waiting …" >&2
        while kill -0 "$owner" 2>/dev/null; do sleep 1; done
        clear_what_is_no_use
      else
        begin_again "the last set-up did not finish"
      fi ;;
    *) if ! .venv/bin/python -c '' 2>/dev/null; then
        begin_again "it has no Python that runs"
      elif ! sh helpers/find_python.sh .venv/bin/python >/dev/null 2>&1; then
        aside=.venv-$(.venv/bin/python -c 'import platform; print(platform.python_version())')
        echo "The Python of .venv does not fit; .venv is now $aside, which you may delete." >&2
        rm -rf "$aside" && mv .venv "$aside"
      elif [ ! -x .venv/bin/uv ] && ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        begin_again "it has neither uv nor pip"
      fi ;;
  esac
}

make_environment() {
  if [ -n "$1" ]; then sh helpers/find_python.sh "$1" >/dev/null || exit 1; fi
  clear_what_is_no_use
  if [ -e .venv/.ready ] && [ ! requirements.lock -nt .venv/.ready ] && [ ! pyproject.toml -nt .venv/.ready ]; then return; fi
  if [ ! -e .venv ]; then
    python=$(sh helpers/find_python.sh "$1") || exit 1
    mkdir .venv
  fi
  echo $$ >"$making"
  echo "Setting up .venv from requirements.lock (the first time takes a minute) …"
  set -e
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  uv=$(sed -nE 's/^(uv==[^ ]+).*/\1/p' requirements.lock)
  [ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet "$uv"
  export VIRTUAL_ENV="$here/.venv"
  .venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
  .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
  printf %s "$here" >.venv/.ready
  rm -f "$making"
}

case $1 in
  check) check ;;
  make) make_environment "$2" ;;
  *) echo "usage: set_up.sh check | make [INTERPRETER]" >&2; exit 2 ;;
esac
