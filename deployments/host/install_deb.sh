#!/bin/sh
# install_deb.sh ADDRESS SUMS: fetch a package, compare it with the list of MD5 sums published beside it, and install it.
# It may be gigabytes: what has come so far is kept for the next attempt.
set -eu
file=/var/tmp/$(basename "$1")
sums=$(curl -fsSL --retry 2 --connect-timeout 20 "$2") || { echo "no list of checksums at $2" >&2; exit 1; }
expected=$(echo "$sums" | awk -v name="$(basename "$1")" '{sub(/^[*]/, "", $2)} $2 == name {print $1}')
[ -n "$expected" ] || { echo "$2 does not name $(basename "$1")" >&2; exit 1; }
curl -fsSL --retry 5 --connect-timeout 20 -C - -o "$file" "$1" || {
  code=$?
  [ $code -eq 33 ] || [ $code -eq 36 ] && rm -f "$file"  # this server can't go on in the middle
  echo "$1 was not fetched: curl ended with $code" >&2
  exit 1
}
if [ "$(md5sum <"$file" | cut -d' ' -f1)" != "$expected" ]; then
  rm -f "$file"
  echo "$(basename "$1") does not have the published checksum $expected; it was deleted" >&2
  exit 1
fi
dpkg -i "$file"
rm -f "$file"
