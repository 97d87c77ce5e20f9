#!/bin/bash

set -eo pipefail

# Installs Helm where it is needed and missing; the archive is checked by its published checksum.
source "$(dirname "$0")/functions.sh"

if [[ $GPU_CLUSTER != y && $INSTALL_RAY != y ]]; then
  echo "not needed: neither GPUs nor Ray were asked for"
  exit
fi
if command -v helm >/dev/null; then
  same "helm $(helm version --short)"
  exit
fi
case $(uname -m) in x86_64) architecture=amd64 ;; *) architecture=arm64 ;; esac
archive=helm-$(version helm)-linux-$architecture.tar.gz
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
curl -fsSLO "https://get.helm.sh/$archive" || stop "Helm can't be downloaded" "put helm $(version helm) on PATH"
curl -fsSL "https://get.helm.sh/$archive.sha256sum" | sha256sum -c --quiet - || stop "$archive is not what was published" \
  "run it again; if it stays so, tell Helm's authors"
tar -xzf "$archive"
sudo install -m 755 "linux-$architecture/helm" /usr/local/bin/helm
changed "helm $(version helm) installed"
