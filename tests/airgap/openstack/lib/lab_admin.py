"""The administrator's connection, in the container."""

import openstack
from openstack.connection import Connection


def connect() -> Connection:
    return openstack.connect(
        auth_url="http://127.0.0.1:5000/v3",
        username="admin",
        password="admin",
        project_name="admin",
        user_domain_name="Default",
        project_domain_name="Default",
        region_name="RegionOne",
        interface="internal",
    )
