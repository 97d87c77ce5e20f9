#!/bin/sh
# fetch_key.sh ADDRESS FINGERPRINT KEYRING: fetch an armoured key, and write it as a keyring if it is the expected one.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
curl -fsSL --retry 2 --connect-timeout 20 -o "$work/key" "$1" || { echo "no key at $1" >&2; exit 1; }
gpg --homedir "$work" --batch --quiet --dearmor -o "$work/key.gpg" "$work/key"
found=$(gpg --homedir "$work" --batch --show-keys --with-colons "$work/key.gpg" | awk -F: '/^pub/{p=1} /^fpr/&&p{print $10; p=0}')
if [ "$found" != "$2" ]; then
  echo "the key at $1 is not the expected one: its fingerprint is $found, not $2" >&2
  exit 1
fi
install -D -m 644 "$work/key.gpg" "$3"
