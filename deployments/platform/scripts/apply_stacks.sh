#!/bin/bash

set -eo pipefail

# Applies the course's stacks, by deployment option: 1 none, 2 stack, 3 stack and scheduler, 4 what has its images.
source "$(dirname "$0")/functions.sh"

# missing KUSTOMIZATION: its images of the local registry that are not there.
missing() {
  local repository tag
  kubectl kustomize "$1" | sed -nE "s|.*image: localhost:$REGISTRY_PORT/(.+):(.+)|\1 \2|p" | sort -u |
    while read -r repository tag; do
      if ! curl -fs --noproxy localhost "http://localhost:$REGISTRY_PORT/v2/$repository/tags/list" | grep -qF "\"$tag\""; then
        echo "$repository:$tag"
      fi
    done
}

apply() { # KUSTOMIZATION NAME
  local wanting
  wanting=$(missing "$1")
  wanting=${wanting%%$'\n'*}
  if [[ -n $wanting && $DEPLOYMENT_OPTION == 4 ]]; then
    echo "not applied yet: $2 (chapter 09 builds its image ${wanting#*:})"
  elif [[ -n $wanting ]]; then
    stop "$2 can't be applied: its image $wanting is not in the registry" "chapter 09 builds and pushes it; option 4 waits"
  elif k diff -k "$1" >/dev/null 2>&1; then
    same "$2"
  else
    k apply -k "$1"
    changed "$2 applied"
  fi
}

if [[ $DEPLOYMENT_OPTION == 1 ]]; then
  echo "none: option 1 is the cluster alone"
  exit
fi
apply "$PLATFORM/../forwarder/stack" "the Forwarder's stack"
if [[ $DEPLOYMENT_OPTION != 2 ]]; then apply "$PLATFORM/../forwarder/scheduler" "the Forwarder's scheduler"; fi
