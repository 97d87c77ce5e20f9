#!/bin/bash

set -eo pipefail

# KubeRay's operator and a Ray cluster, as chapter 07 has them; an image that the machine's Docker has is not pulled again.
source "$(dirname "$0")/functions.sh"

if [[ $INSTALL_RAY != y ]]; then
  echo "not needed: Ray was not asked for"
  exit
fi
wanted=$(version reference)
if [[ -z $RAY_VALUES ]]; then
  case $GPU_CLUSTER in y) kind=gpu ;; *) kind=cpu ;; esac
  RAY_VALUES=$PLATFORM/../ray/$kind-kuberay-cluster-values.yaml
fi
h() { helm --kube-context "kind-$CLUSTER_NAME" "$@"; }

hand_over() { # IMAGE
  local name=$1
  case $name in *.*/*) ;; */*) name=docker.io/$name ;; *) name=docker.io/library/$name ;; esac
  if docker image inspect "$1" >/dev/null 2>&1 && ! docker exec "$NODE" crictl inspecti -q "$name" >/dev/null 2>&1; then
    docker save "$1" | docker exec -i "$NODE" ctr -n k8s.io images import --no-unpack -
  fi
}

images() { # the words of helm template
  h template "$@" | sed -nE 's/^ *image: *"?([^" ]+)"?$/\1/p' | sort -u
}

install() { # RELEASE CHART [WORDS …]
  local release=$1 chart=$2 image
  shift 2
  if h list --deployed -o json | grep -qF "\"$chart-$wanted\""; then
    same "$chart $wanted"
    return
  fi
  for image in $(images "$release" "kuberay/$chart" --version "$wanted" "$@"); do hand_over "$image"; done
  h upgrade --install "$release" "kuberay/$chart" --version "$wanted" "$@"
  changed "$chart $wanted installed"
}

helm repo add kuberay "$KUBERAY_CHARTS" --force-update ||
  stop "the chart repository $KUBERAY_CHARTS can't be had" "connect to the internet, or set KUBERAY_CHARTS"
install kuberay-operator kuberay-operator
k rollout status deployment/kuberay-operator --timeout="${RAY_SECONDS}s"
install raycluster ray-cluster -f "$RAY_VALUES"
if ! k wait --for=jsonpath='{.status.state}'=ready raycluster/raycluster-kuberay --timeout="${RAY_SECONDS}s"; then
  columns='POD:.metadata.name,STATE:.status.phase,WHY:.status.conditions[?(@.status=="False")].message'
  k get pods -l ray.io/cluster=raycluster-kuberay -o custom-columns="$columns"
  stop "the Ray cluster is not ready after $RAY_SECONDS s" "ask for less in $RAY_VALUES, uninstall raycluster and run it again"
fi
