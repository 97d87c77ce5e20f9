#!/bin/sh
# Writes the stack's secrets, each unless it is there: random passwords, readable only by you. Edit them before the first apply.
set -eu
umask 077
cd "$(dirname "$0")"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
make() { if [ ! -e "$1.env" ]; then printf '%s\n' "$2" >"$1.part" && mv "$1.part" "$1.env"; fi; }
make redis "password=$(random)"
make flower "username=flower123
password=$(random)"
make airflow "username=admin
password=$(random)"
make postgres "user=airflow
password=$(random)
database=airflow"
