#!/bin/sh
# Makes the environment `.venv` from requirements.lock; one that is half made, was moved or lost its Python is made again.
# Usage, in the project's folder: set_up.sh check   (before make looks at .venv/.ready)
#                                 set_up.sh make [INTERPRETER]
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV UV_SYSTEM_PYTHON UV_PYTHON UV_TARGET UV_PREFIX PIP_TARGET PIP_PREFIX
# The lock says which packages: no version and no place of the reader's own projects counts here.
unset PYTHONINSPECT PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE PIP_PYTHON PIP_ROOT PIP_CONSTRAINT PIP_REQUIRE_HASHES \
  PIP_NO_BINARY PIP_DRY_RUN PIP_REQUIRE_VIRTUALENV UV_CONSTRAINT UV_BUILD_CONSTRAINT UV_OVERRIDE UV_EXCLUDE UV_NO_BUILD \
  UV_NO_BINARY UV_REQUIRE_HASHES UV_EXCLUDE_NEWER UV_PROJECT UV_WORKING_DIR UV_WORKING_DIRECTORY UV_FORK_STRATEGY UV_DRY_RUN
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUTF8=1
here=$(pwd -P)
making=.venv-making # holds the process id of a set-up; it stays where that did not finish
packages='import importlib.util, sys; sys.exit(importlib.util.find_spec("typer") is None)' # a newer Python does not see them

begin_again() {
  echo "Making .venv again: $1." >&2
  rm -rf .venv
}

check() {
  [ -e .venv/.ready ] || return 0
  recorded=$(cat .venv/.ready)
  if [ ! -x .venv/bin/tutorial ] || ! .venv/bin/python -c "$packages" 2>/dev/null || [ "${recorded:-$here}" != "$here" ]; then
    rm -f .venv/.ready
    touch .venv/.damaged
  fi
}

# Whether a process is a set-up: after a restart of the machine another program may have its process id.
sets_up() {
  kill -0 "$1" 2>/dev/null && { ! command -v ps >/dev/null || ps -p "$1" -o args= | grep -q set_up.sh; }
}

# Only one set-up at a time: the file is made by one of them alone (set -C). Sets `unfinished` where an earlier one died.
begin() {
  until (set -C && echo $$ >"$making") 2>/dev/null; do
    owner=$(cat "$making" 2>/dev/null)
    if sets_up "${owner:-0}"; then
      [ -n "$told" ] || echo "Another make sets up .venv (process $owner): waiting …" >&2
      told=yes
      sleep 1
    else
      unfinished=yes
      rm -f "$making"
    fi
  done
}

clear_what_is_no_use() {
  if [ ! -e .venv ] && [ ! -L .venv ]; then return
  elif [ -n "$unfinished" ]; then begin_again "the last set-up did not finish"
  elif [ -e .venv/.damaged ]; then begin_again "its Python is gone, or the folder was moved"
  elif ! .venv/bin/python -c '' 2>/dev/null; then begin_again "it has no Python that runs"
  elif ! sh helpers/find_python.sh .venv/bin/python >/dev/null 2>&1; then
    aside=.venv-$(.venv/bin/python -c 'import platform; print(platform.python_version())')
    echo "The Python of .venv does not fit; .venv is now $aside, which you may delete." >&2
    rm -rf "$aside" && mv .venv "$aside"
  elif [ ! -x .venv/bin/uv ] && ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    begin_again "it has neither uv nor pip"
  fi
}

is_ready() {
  [ -e .venv/.ready ] && [ ! requirements.lock -nt .venv/.ready ] && [ ! pyproject.toml -nt .venv/.ready ]
}

make_environment() {
  if [ -n "$1" ]; then sh helpers/find_python.sh "$1" >/dev/null || exit 1; fi
  begin
  if is_ready; then
    rm -f "$making"
    return
  fi
  clear_what_is_no_use
  if [ ! -e .venv ]; then
    python=$(sh helpers/find_python.sh "$1") || { rm -f "$making"; exit 1; }
  fi
  echo "Setting up .venv from requirements.lock (the first time takes a minute) …"
  set -e
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  uv=$(sed -nE 's/^(uv==[^ ]+).*/\1/p' requirements.lock)
  [ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet "$uv"
  export VIRTUAL_ENV="$here/.venv"
  .venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
  .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
  # The way to this folder as a relative one: Python reads it in the locale's encoding, which a name need not fit.
  for way in .venv/lib/python3*/site-packages/_editable_impl_*.pth; do [ ! -e "$way" ] || echo ../../../.. >"$way"; done
  printf %s "$here" >.venv/.ready
  rm -f "$making"
}

case $1 in
  check) check ;;
  make) make_environment "$2" ;;
  *) echo "usage: set_up.sh check | make [INTERPRETER]" >&2; exit 2 ;;
esac
