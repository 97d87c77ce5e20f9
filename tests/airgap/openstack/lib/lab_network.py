"""ML2 mechanism driver of a lab without agents: it binds every port at once, and reports what the L3 agent would.

An associated floating IP is ACTIVE, a free one DOWN.
"""

import threading

from neutron_lib import context
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins import constants, directory
from neutron_lib.plugins.ml2 import api


class BindAll(api.MechanismDriver):
    def initialize(self):
        registry.subscribe(self._later, resources.FLOATING_IP, events.AFTER_CREATE)
        registry.subscribe(self._later, resources.FLOATING_IP, events.AFTER_UPDATE)

    def bind_port(self, port):
        for segment in port.segments_to_bind:
            port.set_binding(segment[api.ID], "ovs", {"port_filter": True}, status="ACTIVE")
            return

    def _later(self, resource, event, trigger, payload=None):
        """Report in a moment, as an agent does: now, a transaction may hold the row that would be written."""
        latest = payload.latest_state if payload.states else {}
        threading.Timer(0.2, self._report, (payload.resource_id or latest.get("id"),)).start()

    def _report(self, identity):
        admin, router = context.get_admin_context(), directory.get_plugin(constants.L3)
        bound = router.get_floatingip(admin, identity)["port_id"]
        router.update_floatingip_status(admin, identity, "ACTIVE" if bound else "DOWN")
