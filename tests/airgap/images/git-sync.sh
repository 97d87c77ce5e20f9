#!/bin/bash
# What git-sync v4 does with the variables that Airflow's chart sets: the commit of GITSYNC_REF is checked out in a folder of
# its own below GITSYNC_ROOT, and the link GITSYNC_LINK then leads to it in one step; every GITSYNC_PERIOD once more.
# Source: https://github.com/kubernetes/git-sync/blob/v4.3.0/README.md
set -uo pipefail
root=${GITSYNC_ROOT:-/git} link=${GITSYNC_LINK:-repo} ref=${GITSYNC_REF:-HEAD} period=${GITSYNC_PERIOD:-10s}
once=${GITSYNC_ONE_TIME:-false} depth=${GITSYNC_DEPTH:-1} allowed=${GITSYNC_MAX_FAILURES:-0} failures=0
export HOME=/tmp GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' GIT_TERMINAL_PROMPT=0
trap 'exit 0' TERM INT

sync() {
  local hash
  [[ -d $root/.git ]] || git init --quiet "$root" || return 1
  git -C "$root" fetch --quiet --depth "$depth" "$GITSYNC_REPO" "$ref" || return 1
  hash=$(git -C "$root" rev-parse FETCH_HEAD) || return 1
  [[ $(readlink "$root/$link") == ".worktrees/$hash" ]] && return 0
  git -C "$root" worktree prune && rm -rf "$root/.worktrees/$hash"
  git -C "$root" worktree add --quiet --force --detach "$root/.worktrees/$hash" "$hash" || return 1
  ln -sfn ".worktrees/$hash" "$root/.$link.new" && mv -fT "$root/.$link.new" "$root/$link" || return 1
  find "$root/.worktrees" -mindepth 1 -maxdepth 1 ! -name "$hash" -exec rm -rf {} +
  echo "updated successfully: $ref is $hash"
}

while true; do
  if sync; then
    failures=0
    [[ $once == true ]] && exit 0
  else
    failures=$((failures + 1))
    echo "error syncing repo: $GITSYNC_REPO, $ref (failure $failures)" >&2
    if ((allowed >= 0 && failures > allowed)); then exit 1; fi
  fi
  sleep "$period" & wait $!
done
