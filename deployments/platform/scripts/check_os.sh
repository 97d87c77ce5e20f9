#!/bin/bash

set -eo pipefail

# Makes sure that this is a Linux with Docker, kind and kubectl.
source "$(dirname "$0")/functions.sh"

[[ $(uname -s) == Linux ]] || stop "this is $(uname -s)" "run it on Linux, such as the VM of chapter 02"
echo "$(. /etc/os-release && echo "$PRETTY_NAME"), $(uname -m)"
for program in docker kind kubectl curl; do
  command -v "$program" >/dev/null || stop "$program is not installed" "kind and kubectl: deployments/README.md says how"
done
docker info >/dev/null 2>&1 || stop "no Docker engine answers" "sudo systemctl start docker; are you in the group docker?"
echo "docker $(docker version -f '{{.Server.Version}}'), $(kind version | cut -d' ' -f1-2)"
