#!/bin/bash

set -eo pipefail

# KubeRay's operator, and a Ray cluster with the values of deployments/ray where chapter 07 has put them.
source "$(dirname "$0")/functions.sh"

if [[ $INSTALL_RAY != y ]]; then
  echo "not needed: Ray was not asked for"
  exit
fi
wanted=$(version kuberay)
h() { helm --kube-context "kind-$CLUSTER_NAME" "$@"; }
helm repo add kuberay https://ray-project.github.io/kuberay-helm/ --force-update
for chart in kuberay-operator ray-cluster; do
  if h list -o json | grep -qF "\"$chart-$wanted\""; then
    same "$chart $wanted"
    continue
  fi
  values=()
  if [[ $chart == ray-cluster && -f $PLATFORM/../ray/values.yaml ]]; then values=(-f "$PLATFORM/../ray/values.yaml"); fi
  h upgrade --install "${chart/ray-cluster/raycluster}" "kuberay/$chart" --version "$wanted" --wait "${values[@]}"
  changed "$chart $wanted installed"
done
