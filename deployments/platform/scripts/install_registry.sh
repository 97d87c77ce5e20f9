#!/bin/bash

set -eo pipefail

# Has the local registry run beside the cluster, and the node know it: https://kind.sigs.k8s.io/docs/user/local-registry/
source "$(dirname "$0")/functions.sh"

state=$(docker container inspect -f '{{.State.Running}}' "$REGISTRY_NAME" 2>/dev/null || true)
if [[ -z $state ]]; then
  docker run -d --restart always --name "$REGISTRY_NAME" --label tutorial.chapter=06 \
    -p "127.0.0.1:$REGISTRY_PORT:5000" -v tutorial-registry:/var/lib/registry "$REGISTRY_IMAGE" >/dev/null
  changed "registry localhost:$REGISTRY_PORT started"
elif [[ $state != true ]]; then
  docker start "$REGISTRY_NAME" >/dev/null
  changed "registry localhost:$REGISTRY_PORT started again"
else
  same "registry localhost:$REGISTRY_PORT"
fi

until curl -fs --noproxy localhost -o /dev/null "http://localhost:$REGISTRY_PORT/v2/"; do
  if ((SECONDS > 30)); then stop "the registry does not answer" "docker logs $REGISTRY_NAME says why"; fi
  sleep 0.3
done

if ! docker container inspect -f '{{json .NetworkSettings.Networks}}' "$REGISTRY_NAME" | grep -q '"kind"'; then
  docker network connect kind "$REGISTRY_NAME"
  changed "registry joined the network kind"
fi

folder=/etc/containerd/certs.d/localhost:$REGISTRY_PORT
wanted="[host.\"http://$REGISTRY_NAME:5000\"]"
if [[ $(docker exec "$NODE" cat "$folder/hosts.toml" 2>/dev/null) != "$wanted" ]]; then
  docker exec -i "$NODE" sh -c "mkdir -p $folder && cat >$folder/hosts.toml" <<<"$wanted"
  changed "node knows localhost:$REGISTRY_PORT"
fi
if ! on_node diff -f - <"$PLATFORM/../kind/local-registry.yaml" >/dev/null 2>&1; then
  on_node apply -f - <"$PLATFORM/../kind/local-registry.yaml"
  changed "cluster tells where its registry is"
fi
