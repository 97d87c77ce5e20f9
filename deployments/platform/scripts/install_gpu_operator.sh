#!/bin/bash

set -eo pipefail

# NVIDIA's GPU operator and nvshare, which makes ten shares of a GPU. The driver is the machine's own (chapter 04); the
# container toolkit is the operator's: the node, a container, has none.
source "$(dirname "$0")/functions.sh"

if [[ $GPU_CLUSTER != y ]]; then
  echo "not needed: no GPU cluster was asked for"
  exit
fi
wanted=$(version operator gpu/versions.toml)
if helm --kube-context "kind-$CLUSTER_NAME" list -n gpu-operator -o json | grep -qF "gpu-operator-$wanted\""; then
  same "GPU operator $wanted"
else
  helm repo add nvidia https://helm.ngc.nvidia.com/nvidia --force-update
  helm --kube-context "kind-$CLUSTER_NAME" upgrade --install gpu-operator nvidia/gpu-operator --version "$wanted" \
    -n gpu-operator --create-namespace --set driver.enabled=false --wait --timeout 15m
  changed "GPU operator $wanted installed"
fi
for name in nvshare-system nvshare-system-quotas device-plugin scheduler; do
  if k diff -f "$NVSHARE_MANIFESTS/$name.yaml" >/dev/null 2>&1; then
    same "nvshare: $name"
  else
    k apply -f "$NVSHARE_MANIFESTS/$name.yaml"
    changed "nvshare: $name applied"
  fi
done
