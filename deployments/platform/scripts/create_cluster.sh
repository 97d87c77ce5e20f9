#!/bin/bash

set -eo pipefail

# Has the KinD cluster of CLUSTER_CONFIG run: made now, or used as it is when it is of this configuration.
source "$(dirname "$0")/functions.sh"

remove() { kind delete cluster --name "$CLUSTER_NAME"; }

# Waits for the API; says which configuration the cluster was made from.
made_of() {
  local until=$((SECONDS + 90))
  until on_node get node "$NODE" -o 'jsonpath={.metadata.labels.tutorial-configuration}' 2>/dev/null; do
    if ((SECONDS > until)); then return 1; fi
    sleep 1
  done
}

# What kind does last is there: a network, so that the node is ready, and a storage class.
complete() {
  docker exec "$NODE" kubectl --kubeconfig /etc/kubernetes/admin.conf wait --for=condition=Ready "node/$NODE" \
    --timeout=60s >/dev/null 2>&1 && on_node get storageclass standard >/dev/null 2>&1
}

# Nothing of anybody's is in it: only the namespaces that kind makes.
empty() { ! on_node get namespaces -o name | grep -qvE '/(default|kube-.*|local-path-storage)$'; }

# A node without its control plane is what an interrupted creation leaves.
half_made() { ! docker exec "$NODE" test -f /etc/kubernetes/manifests/kube-scheduler.yaml; }

usable() {
  docker start "$NODE" >/dev/null
  if half_made; then return 1; fi
  local made
  made=$(made_of) || stop "the cluster $CLUSTER_NAME does not answer" \
    "if nothing in it is needed: kind delete cluster --name $CLUSTER_NAME"
  if [[ $made != "$(fingerprint "$CLUSTER_CONFIG")" ]]; then
    stop "there is a cluster $CLUSTER_NAME already, made from another configuration or by somebody else" \
      "keep it and change name: in $CLUSTER_CONFIG, or: kind delete cluster --name $CLUSTER_NAME"
  fi
  if complete; then return 0; fi
  empty || stop "the cluster $CLUSTER_NAME is not ready" "kubectl describe nodes says why"
  return 1
}

free_ports() {
  local port ports
  mapfile -t ports < <(sed -nE 's/.*hostPort: *([0-9]+).*/\1/p' "$CLUSTER_CONFIG")
  for port in "${ports[@]}"; do
    if [[ -n $(ss -Hltn "sport = :$port") ]]; then
      ss -Hltnp "sport = :$port"
      stop "port $port of the machine is taken" "end that program, or change hostPort in $CLUSTER_CONFIG"
    fi
  done
}

create() {
  free_ports
  # Whatever ends this: nothing half-made stays. The removal itself is not to be interrupted.
  trap 'trap "" INT TERM HUP; remove >/dev/null 2>&1' EXIT
  trap 'exit 130' INT TERM HUP
  marked "$CLUSTER_CONFIG" | kind create cluster --config - --image "$NODE_IMAGE" --wait 180s
  trap - EXIT INT TERM HUP
  changed "cluster $CLUSTER_NAME created"
}

while pgrep -f 'kind create cluster' >/dev/null; do
  if ((SECONDS > 420)); then stop "another kind create cluster runs for 7 minutes" "see what it does: pgrep -af kind"; fi
  sleep 1
done
if ! kind get clusters 2>/dev/null | grep -qx "$CLUSTER_NAME"; then
  create
elif usable; then
  kind export kubeconfig --name "$CLUSTER_NAME" >/dev/null 2>&1
  same "cluster $CLUSTER_NAME"
else
  echo "The creation of the cluster $CLUSTER_NAME was interrupted; it is made anew."
  remove
  create
fi
