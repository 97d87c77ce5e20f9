#!/bin/sh
# docker_data.sh WHAT …: print facts of Docker's data as `name=value` lines, as root; nothing is changed but by `delete`.
#   daemon_json FILE          a file: what kind it is, where it really is, whose, and its content in base64
#   engine                    the engine that answers, and how its unit starts dockerd
#   folders OLD NEW           what is in the old folder, and what there is room for in the new one
#   old                       what a move left behind
#   delete FOLDER ENTRY …     delete entries of a folder; never through a symbolic link, never across a mount
LC_ALL=C; export LC_ALL
say() { printf '%s=%s\n' "$1" "$(printf %s "$2" | tr '\n' '\036')"; }
info() { timeout -k 1 30 docker info -f "$1" 2>/dev/null </dev/null || true; }

daemon_json() {
  say real "$(readlink -m -- "$1")"
  if [ -f "$1" ]; then
    say kind file; say owner "$(stat -L -c '%a %U %G' -- "$1")"
    content=$(base64 -w0 -- "$1") && say content "$content" && say read yes
  elif [ -e "$1" ]; then say kind "$(stat -L -c %F -- "$1")"
  elif [ -L "$1" ]; then say kind dangling
  else say kind none; fi
}

engine() {
  live=$(info '{{.DockerRootDir}}')
  case $live in /*) ;; *) live= ;; esac
  say live "$live"; say live_real "${live:+$(readlink -m -- "$live")}"
  [ -n "$live" ] && {
    say driver "$(info '{{.Driver}}')"; say status "$(info '{{json .DriverStatus}}')"
    say live_restore "$(info '{{.LiveRestoreEnabled}}')"; say security "$(info '{{.SecurityOptions}}')"
  }
  say active "$(systemctl is-active docker 2>/dev/null)"
  pid=$(systemctl show docker -p MainPID 2>/dev/null | cut -d= -f2)
  files=$(systemctl show docker -p EnvironmentFiles 2>/dev/null | sed -n 's/^EnvironmentFiles=\([^ ]*\).*/\1/p')
  started=$(systemctl show docker -p ExecStart -p Environment 2>/dev/null)
  case $started in *'$'*) started="$started $(cat $files 2>/dev/null | grep -v '^ *#')" ;; esac  # $DOCKER_OPTS
  case $pid in ''|0|*[!0-9]*) ;; *) started="$started $(tr '\0' ' ' 2>/dev/null </proc/"$pid"/cmdline)" ;; esac
  say started "$started"
  say machine "$(cat /etc/machine-id 2>/dev/null)"
}

folders() {
  say old_real "$(readlink -m -- "$1")"; say new_real "$(readlink -m -- "$2")"
  old=$(readlink -m -- "$1"); new=$(readlink -m -- "$2"); base=$new
  while [ ! -d "$base" ] && [ "$base" != / ]; do base=$(dirname -- "$base"); done
  say base "$base"; say mounts "$(cat /proc/self/mountinfo)"
  [ -d "$old" ] && say old_there yes
  [ -e "$new" ] && [ ! -d "$new" ] && say not_a_folder yes
  say moving "$(sed -n 1p "$new/.tutorial-moving" 2>/dev/null)"
  say there "$(ls -A "$new" 2>/dev/null | head -n 100)"
  [ "$old" = "$new" ] && return
  say need_kib "$(du -skx -- "$old" 2>/dev/null | cut -f1)"; say files "$(du -sx --inodes -- "$old" 2>/dev/null | cut -f1)"
  say has_kib "$(du -skx -- "$new" 2>/dev/null | cut -f1)"; say has_files "$(du -sx --inodes -- "$new" 2>/dev/null | cut -f1)"
  set -- $(stat -f -c '%a %S %d %c' -- "$base")
  say free_kib "$(($1 * ($2 / 512) / 2))"; say free_files "$3"; say all_files "$4"
  [ -w "$base" ] && say writable yes
  xfs_info "$base" 2>/dev/null | grep -q 'ftype=0' && say no_d_type yes
  # The copy stays on one file system. Docker mounts some volumes itself while they are used: those have an opts.json.
  own=$(stat -c %d -- "$old" 2>/dev/null)
  for part in "$old"/* "$old"/volumes/* "$old"/volumes/*/_data; do
    [ -d "$part" ] && [ ! -L "$part" ] && [ "$(stat -c %d -- "$part")" != "$own" ] || continue
    [ -e "${part%/_data}/opts.json" ] || { say parts "$part"; break; }
  done
}

old() {
  live=$(info '{{.DockerRootDir}}')
  case $live in /*) ;; *) return ;; esac
  say live_real "$(readlink -e -- "$live")"; say mounts "$(cat /proc/self/mountinfo)"
  say recorded "$(sed -n 1p "$live/.tutorial-moved" 2>/dev/null)"
  say recorded_on "$(sed -n 2p "$live/.tutorial-moved" 2>/dev/null)"; say machine "$(cat /etc/machine-id 2>/dev/null)"
  old=$(readlink -e -- "$(sed -n 1p "$live/.tutorial-moved" 2>/dev/null)" 2>/dev/null)
  [ -d "$old" ] || return
  say old_real "$old"
  # Entries and volumes may be links into the old folder, and containers may write there by a bind mount.
  say links "$(find "$live/" -mindepth 1 -maxdepth 1 -type l -exec readlink -e -- {} \;
    find "$live/volumes/" -mindepth 1 -maxdepth 2 -type l -exec readlink -e -- {} \; 2>/dev/null
    timeout -k 1 30 docker ps -aq 2>/dev/null </dev/null | xargs -r timeout -k 1 30 docker inspect \
      -f '{{range .Mounts}}{{if .RW}}{{println .Source}}{{end}}{{end}}' 2>/dev/null | while IFS= read -r source; do
      case $source in /*) readlink -e -- "$source" ;; esac
    done)"
  say entries "$(for path in "$old"/* "$old"/.[!.]* "$old"/..?*; do
    name=$(printf %s "${path##*/}" | tr '\n' '?')
    if [ -L "$path" ]; then printf 'link %s\n' "$name"; elif [ -e "$path" ]; then printf 'plain %s\n' "$name"; fi
  done)"
}

delete() {
  cd -P -- "$1" && [ "$(pwd -P)" = "$1" ] && [ "$1" != / ] || { echo "$1 is not the folder that it was" >&2; exit 1; }
  shift
  for name; do
    [ -L "./$name" ] || [ ! -e "./$name" ] || find "./$name" -xdev -delete
  done
}

what=$1; shift
"$what" "$@"
[ "$what" = delete ] || echo end=yes
