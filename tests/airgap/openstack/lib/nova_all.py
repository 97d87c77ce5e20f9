"""nova-conductor, -scheduler, -compute and -api in one process, so that their messages stay in memory (fake://)."""

# ruff: noqa: I001
import nova.monkey_patch  # eventlet's, before all else
import shlex
import sys

import nova.conf
import os_vif
from nova import config, objects, service, utils
from nova.compute import rpcapi as compute_rpcapi
from nova.conductor import rpcapi as conductor_rpcapi
from nova.scheduler import rpcapi as scheduler_rpcapi
from oslo_log import log as logging
from oslo_privsep import priv_context
from oslo_service import service as oslo_service

config.parse_args(sys.argv)
CONF = nova.conf.CONF
logging.setup(CONF, "nova")
priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
objects.register_all()
os_vif.initialize()
objects.Service.enable_min_version_cache()
launcher = oslo_service.ServiceLauncher(CONF)
for binary, topic in (
    ("nova-conductor", conductor_rpcapi.RPC_TOPIC),
    ("nova-scheduler", scheduler_rpcapi.RPC_TOPIC),
    ("nova-compute", compute_rpcapi.RPC_TOPIC),
):
    launcher.launch_service(service.Service.create(binary=binary, topic=topic))
launcher.launch_service(service.WSGIService("osapi_compute"))
launcher.wait()
