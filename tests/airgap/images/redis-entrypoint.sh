#!/bin/sh
# The official image is built without protected mode; Debian's Redis is told.
[ "$1" = redis-server ] && set -- "$@" --protected-mode no
exec "$@"
