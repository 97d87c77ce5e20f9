# Sourced by bake.sh and start.sh, in the container: how each service is started and stopped.
LAB=/opt/lab STATE=/var/lib/lab RUN=/run/lab
PORTS="5000 8778 9292 9696 8776 8774"
export PYTHONPATH=$LAB/lib PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 PYTHONWARNINGS=ignore
mkdir -p $RUN/log $STATE

say() { echo "[$(awk '{print $1}' /proc/uptime)] $*"; }
sql() { mariadb --no-defaults -uroot -S $RUN/mysql.sock "$@"; }

configure() { # the service account stands in each file where @AUTH@ is
  local name
  for name in keystone glance-api placement neutron nova cinder; do
    mkdir -p /etc/${name%-api}
    sed -e "/^@AUTH@$/{r $LAB/etc/service-account" -e 'd}' $LAB/etc/$name.conf >/etc/${name%-api}/$name.conf
  done
}

background() { # name command...
  local name=$1; shift
  setsid "$@" >>$RUN/log/$name.log 2>&1 </dev/null &
  echo $! >$RUN/$name.pid
}

database() {
  background mariadb mariadbd --no-defaults --user=root --datadir=$STATE/mysql --socket=$RUN/mysql.sock --pid-file=$RUN/mysqld.pid \
    --skip-networking --skip-grant-tables --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
    --innodb-doublewrite=0 --innodb-log-file-size=32M --performance-schema=off --max-connections=300 \
    --aria-pagecache-buffer-size=4M --key-buffer-size=1M --tmpdir=/tmp
  for _ in $(seq 150); do sql -e 'select 1' >/dev/null 2>&1 && return; sleep .2; done
  echo "mariadb did not start"; tail -20 $RUN/log/mariadb.log; return 1
}

wsgi() { # name port program
  background $1 uwsgi_python3 --http-socket 0.0.0.0:$2 --wsgi-file $3 --master --processes 1 --threads 4 --enable-threads \
    --lazy-apps --thunder-lock --need-app --die-on-term --buffer-size 65535 --disable-logging --add-header "Connection: close" \
    --hook-master-start "unix_signal:15 gracefully_kill_them_all"
}

keystone()  { wsgi keystone 5000 /usr/bin/keystone-wsgi-public; }
placement() { wsgi placement 8778 /usr/bin/placement-api; }
glance()    { background glance python3 -c 'from glance.cmd.api import main; main()' --config-file /etc/glance/glance-api.conf; }
neutron()   { background neutron neutron-server --config-file /etc/neutron/neutron.conf; }
nova()      { background nova python3 $LAB/lib/nova_all.py --config-file /etc/nova/nova.conf; }
cinder()    { background cinder python3 $LAB/lib/cinder_all.py --config-file /etc/cinder/cinder.conf; }
answers()   { python3 $LAB/lib/answers.py "$@"; }

stop() {
  local name pid file alive
  for name in nova cinder neutron glance placement keystone mariadb; do
    [ -f $RUN/$name.pid ] || continue
    pid=$(cat $RUN/$name.pid); kill -TERM -- -$pid 2>/dev/null || kill -TERM $pid 2>/dev/null
  done
  for i in $(seq 100); do
    alive=0; for file in $RUN/*.pid; do [ -f $file ] && kill -0 -- -$(cat $file) 2>/dev/null && alive=1; done
    [ $alive = 0 ] && break
    [ $i = 60 ] && for file in $RUN/*.pid; do [ $file = $RUN/mariadb.pid ] || kill -KILL -- -$(cat $file) 2>/dev/null; done
    sleep .2
  done
  rm -f $RUN/*.pid
}
