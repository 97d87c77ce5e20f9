#!/bin/sh
# Prints the path of a Python that fits the locked environment; says on standard error which, where it is not `python3`.
# Usage: find_python.sh [INTERPRETER], from the project's folder. A named interpreter is taken, or refused.
# FIND_PYTHON_ROOT: the folder that has /usr, /opt and so on; tests set it.
fits() {
  [ "$("$1" -c 'import sys, ensurepip, ssl, venv, zlib, ctypes
print((3, 11) <= sys.version_info[:2] <= (3, 12) and sys.implementation.name == "cpython" and "fits")' 2>/dev/null)" = fits ]
}
version() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "not there"; }
take() {
  if [ "$1" != python3 ]; then echo "Taking $1 ($(version "$1")): python3 is $(version python3), which does not fit." >&2; fi
  echo "$1"
  exit 0
}
local=$(pwd)/.python # what uv installs for this project, and uv itself

# Each place in which an interpreter of one minor version may be. A pattern that matches nothing is no program.
places() {
  (IFS=:; for folder in $PATH; do echo "$folder/python$1"; done)
  root=${FIND_PYTHON_ROOT:-}
  shared=${XDG_DATA_HOME:-$HOME/.local/share}
  for folder in "$root/usr/local/bin" "$root/usr/bin" "$HOME/.local/bin" "$root/opt/homebrew/bin" "$root/opt/local/bin" "$root/home/linuxbrew/.linuxbrew/bin" \
    "$root/usr/local/python$1"*/bin "$root/opt/python$1"*/bin "$root/opt/python/$1"*/bin "$root/opt/python/cp$(echo "$1" | tr -d .)"*/bin \
    "$root/Library/Frameworks/Python.framework/Versions/$1/bin" "$root/opt/homebrew/opt/python@$1"/bin "$root/usr/local/opt/python@$1"/bin \
    "$local/cpython-$1"*/bin "${UV_PYTHON_INSTALL_DIR:-$shared/uv/python}/cpython-$1"*/bin \
    "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1"*/bin "${ASDF_DATA_DIR:-$HOME/.asdf}/installs/python/$1"*/bin \
    "${MISE_DATA_DIR:-$shared/mise}/installs/python/$1"*/bin "${CONDA_PREFIX:-/nowhere}/bin" \
    "$HOME"/*conda3/bin "$HOME"/*conda3/envs/*/bin "$HOME"/miniforge3/bin "$root"/opt/*conda*/bin; do
    echo "$folder/python$1"
  done
}

newest() {
  { places 3.12; places 3.11; } | awk '!seen[$0]++' |
    while IFS= read -r path; do if [ -x "$path" ] && fits "$path"; then echo "$(version "$path") $path"; fi; done |
    sort -s -t. -k2,2nr -k3,3nr | sed -n '1s/^[^ ]* //p'
}

# uv from PATH, or from the package index into the project's folder: into a small environment, or beside it.
bootstrap_uv() {
  command -v uv && return
  if [ ! -x "$local/uv/bin/uv" ]; then
    pin=$(sed -nE 's/^(uv==[^ ]+).*/\1/p' requirements.lock)
    echo "No Python 3.11 or 3.12 was found: installing uv into .python to get one …" >&2
    { python3 -m venv --clear "$local/uv" && "$local/uv/bin/python" -m pip install --quiet "$pin"; } >&2 ||
      { rm -rf "$local/uv"; python3 -m pip install --quiet --target "$local/uv" "$pin" >&2; } || return 1
  fi
  echo "$local/uv/bin/uv"
}

if [ -n "$1" ]; then
  if fits "$1"; then echo "$1"; exit 0; fi
  why="$1 is $(version "$1"), or lacks the modules venv, ensurepip or ssl"
else
  if fits python3; then take python3; fi
  found=$(newest)
  if [ -n "$found" ]; then take "$found"; fi
  why="python3 is $(version python3), no other was found, and uv could not install one"
  if uv=$(bootstrap_uv) && UV_PYTHON_INSTALL_DIR=$local "$uv" python install --quiet --no-bin 3.12 >&2; then
    found=$(newest)
    if [ -n "$found" ]; then take "$found"; fi
  fi
fi
cat >&2 <<END
Python 3.11 or 3.12 is needed: $why.
Install one, for example: sudo apt install python3.12 python3.12-venv   or: uv python install 3.12
Then run make again, or name it: make PYTHON=/path/to/python3.12 …
END
exit 1
