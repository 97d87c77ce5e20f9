"""publish.py INSIDE=OUTSIDE ...: has the catalogue name the ports that this machine's users reach the services by."""

import re
import sys

from lab_admin import connect

ports = dict(word.split("=") for word in sys.argv[1:])
identity = connect().identity
for endpoint in identity.endpoints(interface="public"):
    service = identity.get_service(endpoint.service_id)
    inside = next(e.url for e in identity.endpoints(interface="internal", service_id=service.id))
    port = re.search(r":(\d+)", inside[6:])[1]
    url = inside.replace(f":{port}", f":{ports.get(port, port)}", 1)
    if url != endpoint.url:
        identity.update_endpoint(endpoint, url=url)
