#!/bin/bash
# The container's program: starts every service, tells that it is ready (/run/lab/ready), ends them at SIGTERM.
. /opt/lab/lab.sh
rm -f $RUN/ready $RUN/*.pid $RUN/*.sock
trap 'stop; exit 0' TERM INT
{ configure && database && keystone && placement && glance && neutron && cinder && nova && answers 180 $PORTS &&
  python3 $LAB/lib/services_up.py; } || { tail -n 30 $RUN/log/*.log; exit 1; }
touch $RUN/ready; say ready
while :; do sleep 3600 & wait $!; done
