"""Waits until Nova's and Cinder's own lists say that their services are up."""

import time

from lab_admin import connect

WANTED = {"nova-compute", "nova-scheduler", "nova-conductor", "cinder-volume", "cinder-scheduler"}
cloud, seen, end = connect(), "nothing", time.time() + 60
while time.time() < end:
    try:
        lists = [api.get("/os-services").json()["services"] for api in (cloud.compute, cloud.block_storage)]
        seen = {service["binary"] for found in lists for service in found if service["state"] == "up"}
        if seen >= WANTED:
            break
    except Exception as error:  # not there yet
        seen = repr(error)
    time.sleep(0.3)
else:
    raise SystemExit(f"services not up: {seen}")
