#!/bin/bash

set -eo pipefail

# Sourced by every script: the configuration, the versions, and how to say what changed or why it stops.
PLATFORM=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../config.env
source "$PLATFORM/config.env"

# version NAME [FILE]: the first of that name, from the table of pinned versions or from chapter 04's.
version() { sed -nE "/^$1 = /{s/^$1 = \"([^\"]+)\".*/\1/p;q}" "$PLATFORM/../${2:-versions.toml}"; }

NODE_IMAGE=kindest/node:$(version kubernetes)
REGISTRY_IMAGE=registry:$(version registry)
CLUSTER_NAME=$(sed -nE "s/^name: *[\"']?([a-z0-9.-]+).*/\1/p" "$CLUSTER_CONFIG")
CLUSTER_NAME=${CLUSTER_NAME:-kind} # as kind calls a cluster without a name
NODE=$CLUSTER_NAME-control-plane
export NODE_IMAGE REGISTRY_IMAGE

changed() {
  echo "changed: $*"
  if [[ -n $CHANGES ]]; then echo "$*" >>"$CHANGES"; fi
}

same() { echo "as it was: $*"; }

# stop WHAT REMEDY
stop() {
  echo "stop: $1" >&2
  echo "remedy: $2" >&2
  exit 1
}

k() { kubectl --context "kind-$CLUSTER_NAME" "$@"; }

# kubectl in the node, where its administrator's configuration is.
on_node() { docker exec -i "$NODE" kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=5s "$@"; }

# Which configuration a cluster is made from; comments do not count. helpers/kind.py (fingerprint) says the same.
fingerprint() {
  { LC_ALL=C sed -E 's/(^|[[:space:]]+)#.*$//; s/[[:space:]]+$//; /^$/d' "$1"; echo "$NODE_IMAGE"; } |
    sha256sum | sed -E 's/^(.{16}).*/sha256-\1/'
}

# The configuration with that as a label of its node: so a cluster tells what it was made from.
marked() {
  awk -v label="labels: {tutorial-configuration: $(fingerprint "$1")}" '
    { print }
    !found && match($0, /^ *(- )?role: control-plane/) {
      found = 1
      sub(/role:.*/, "")
      gsub(/-/, " ")
      print $0 label
    }' "$1"
}
