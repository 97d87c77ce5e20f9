#!/bin/bash
# Once, while the image is built: databases, service accounts, catalogue, flavors, images, networks, quotas.
set -e; . /opt/lab/lab.sh
rm -rf ${STATE:?}/* ${RUN:?}/*; mkdir -p $RUN/log $STATE/{images,glance-tasks,glance-staging,neutron,nova/instances,cinder/coord}
configure
mariadb-install-db --no-defaults --user=root --datadir=$STATE/mysql --skip-test-db --auth-root-authentication-method=normal >$RUN/log/installdb.log 2>&1
database; say mariadb up
for name in keystone glance placement neutron nova_api nova_cell0 nova_cell1 cinder; do
  sql -e "create database $name character set utf8mb3"
done
cell=mysql+pymysql://root@localhost socket="unix_socket=$RUN/mysql.sock" url=http://127.0.0.1:5000/v3
step() { say "$*"; "$@" >>$RUN/log/bake.log 2>&1 || { tail -30 $RUN/log/bake.log; exit 1; }; }
step keystone-manage db_sync
step keystone-manage fernet_setup --keystone-user root --keystone-group root
step keystone-manage credential_setup --keystone-user root --keystone-group root
step keystone-manage bootstrap --bootstrap-password admin --bootstrap-region-id RegionOne \
  --bootstrap-admin-url $url --bootstrap-public-url $url --bootstrap-internal-url $url
step glance-manage --config-file /etc/glance/glance-api.conf db_sync
step placement-manage db sync
step neutron-db-manage --config-file /etc/neutron/neutron.conf upgrade heads
step nova-manage api_db sync
step nova-manage cell_v2 map_cell0 --database_connection "$cell/nova_cell0?$socket"
step nova-manage cell_v2 create_cell --name cell1 --transport-url fake:// --database_connection "$cell/nova_cell1?$socket"
step nova-manage db sync
step cinder-manage db sync
keystone; answers 60 5000
step python3 $LAB/lib/seed.py identity
placement; glance; neutron; cinder; answers 120 8778 9292 9696 8776
nova; answers 120 8774
sleep 5; step nova-manage cell_v2 discover_hosts --verbose
step python3 $LAB/lib/seed.py resources
# Since 2023.1 nova refuses a second start without this file, and its simulated driver does not write it.
sql -N -e 'select uuid from nova_cell1.compute_nodes' | tr -d '\n' >$STATE/nova/compute_id
say baked; stop
