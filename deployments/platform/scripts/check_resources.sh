#!/bin/bash

set -eo pipefail

# Compares what the machine has with what a cluster needs; too low inotify limits are raised until it restarts.
source "$(dirname "$0")/functions.sh"

need() { # WHAT HAS NEEDED
  echo "$1: $2, needed: $3"
  (($2 >= $3)) || stop "not enough: $1 (has $2, needs $3)" "use a larger machine, or a smaller need in config.env"
}

limit() { # SETTING NEEDED
  local path=/proc/sys/fs/inotify/$1
  if (($(<"$path") < $2)) && sudo -n sysctl -q -w "fs.inotify.$1=$2" 2>/dev/null; then
    changed "fs.inotify.$1 raised to $2"
  fi
  (($(<"$path") >= $2)) || stop "fs.inotify.$1 is $(<"$path"), needed: $2" "sudo sysctl -w fs.inotify.$1=$2"
}

need cores "$(nproc)" "$NEED_CORES"
need "memory (GiB)" "$(awk '/MemTotal/{print int($2/1048576+0.5)}' /proc/meminfo)" "$NEED_MEMORY"
folder=$(docker info -f '{{.DockerRootDir}}' 2>/dev/null || true)
need "disk (GiB)" "$(df -Pk "${folder:-/}" | awk 'NR==2{print int($4/1048576)}')" "$NEED_DISK"
limit max_user_watches "$NEED_WATCHES"
limit max_user_instances "$NEED_INSTANCES"
