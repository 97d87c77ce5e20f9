"""cinder-scheduler, -volume and -api in one process, so that their messages stay in memory (fake://)."""

# ruff: noqa: E402, I001
import eventlet

eventlet.monkey_patch()
import __original_module_threading as original  # what eventlet keeps of the real module
import threading

original.current_thread.__globals__["_active"] = threading._active
import shlex
import sys

import os_brick
from cinder import i18n

i18n.enable_lazy()
from cinder import objects, rpc, service, utils, version
from cinder.common import config, constants  # noqa: F401  (config registers the options)
from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import priv_context
from oslo_service import service as oslo_service

CONF = cfg.CONF
objects.register_all()
CONF(sys.argv[1:], project="cinder", version=version.version_string())
logging.setup(CONF, "cinder")
priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
utils.monkey_patch()
os_brick.setup(CONF)
rpc.init(CONF)
launcher = oslo_service.ServiceLauncher(CONF)
launcher.launch_service(service.Service.create(binary="cinder-scheduler"))
for backend in CONF.enabled_backends:
    volumes = service.Service.create(
        host=f"{CONF.host}@{backend}", service_name=backend, binary=constants.VOLUME_BINARY, coordination=True
    )
    launcher.launch_service(volumes)
launcher.launch_service(service.WSGIService("osapi_volume"))
launcher.wait()
