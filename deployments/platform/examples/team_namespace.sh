#!/bin/bash

set -eo pipefail

# A namespace for a team, in which pods run with the least rights. An example of an added script: see scripts/added/README.md.
source "$(dirname "$0")/../functions.sh"

if k get namespace team >/dev/null 2>&1; then
  same "namespace team"
else
  k create namespace team
  k label namespace team pod-security.kubernetes.io/enforce=restricted
  changed "namespace team created"
fi
