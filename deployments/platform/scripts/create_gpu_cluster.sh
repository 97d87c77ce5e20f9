#!/bin/bash

set -eo pipefail

# The same cluster with the GPUs of the machine: NVIDIA's runtime must be Docker's default there (chapter 04).
source "$(dirname "$0")/functions.sh"

runtime=$(docker info -f '{{.DefaultRuntime}}')
[[ $runtime == nvidia ]] || stop "Docker's default runtime is $runtime, not nvidia" \
  "sudo nvidia-ctk runtime configure --runtime=docker --set-as-default, and restart Docker (chapter 04)"
CLUSTER_CONFIG=$GPU_CLUSTER_CONFIG exec "$(dirname "$0")/create_cluster.sh"
