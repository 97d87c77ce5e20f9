#!/bin/bash

set -eo pipefail

# Asks what was set up: the node, its DNS, the registry, and what runs of the Forwarder.
source "$(dirname "$0")/functions.sh"

passes() { # WHAT COMMAND …
  local what=$1 said
  shift
  said=$("$@" 2>&1) || stop "the test failed: $what" "$said"
  echo "passed: $what"
}

passes "the node is ready" k wait --for=condition=Ready nodes --all --timeout=120s
passes "CoreDNS answers" k wait --for=condition=Available deployment/coredns -n kube-system --timeout=120s
if [[ $INSTALL_REGISTRY == y ]]; then
  passes "the registry answers" curl -fs --noproxy localhost "http://localhost:$REGISTRY_PORT/v2/"
fi
if [[ -n $(k get deployments -n forwarder -o name 2>/dev/null) ]]; then
  passes "the Forwarder is ready" k wait --for=condition=Available deployment --all -n forwarder --timeout=240s
fi
