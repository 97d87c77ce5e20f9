"""The Celery worker: its configuration, its two tasks, and what is started around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from celery import Celery, signals
from prometheus_client import start_http_server

from . import heartbeat, housekeeping, keys, metrics, runs
from .cluster import connect
from .effects import effect
from .logs import logger, start_logging
from .reconcile import LockLost, reconcile
from .settings import TASK_SECONDS, VISIBILITY_SECONDS, Settings

_clients: dict[int, Any] = {}  # Redis clients by process id: connections must not be shared across a fork
_airflows: dict[int, runs.Ask] = {}  # likewise
_metrics_server: list[WSGIServer] = []


def create(settings: Settings) -> Celery:
    """Make the Celery app with both tasks.

    Args:
        settings: What the environment said.
    """
    app = Celery("tasks", broker=settings.redis_url)
    app.conf.update(
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts_level="WARNING",
        worker_soft_shutdown_timeout=5,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_send_sent_event=True,
        task_time_limit=TASK_SECONDS,
        task_soft_time_limit=TASK_SECONDS - 60,
        result_expires=3600,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever
        broker_connection_timeout=4,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": 4,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    app.steps["consumer"].add(heartbeat.LoopWatch)
    _tasks(app, settings)
    _signals(app, settings)
    return app


def _redis(settings: Settings) -> Any:
    return _clients.setdefault(os.getpid(), settings.redis())


def _airflow(settings: Settings) -> runs.Ask:
    if os.getpid() not in _airflows:
        _airflows[os.getpid()] = runs.connect(settings.airflow)
    return _airflows[os.getpid()]


def _tasks(app: Celery, settings: Settings) -> None:
    def counted(name: str, work: Callable[[Any], object]) -> None:
        started, outcome = time.perf_counter(), "FAILURE"
        try:
            work(_redis(settings))
            outcome = "SUCCESS"
        finally:
            metrics.TASKS.labels(name, outcome).inc()
            metrics.SECONDS.labels(name).observe(time.perf_counter() - started)

    def settle(client: Any) -> None:
        try:
            metrics.CHANGES.inc(reconcile(client, connect(settings.cluster, client)))
        except LockLost:
            logger.warning("the reconciler's lock was lost; the next trigger goes on")

    @app.task(name=keys.TASK_REQUESTS)
    def forwarder_requests(identity: str) -> None:
        """Give one accepted request its effect, once, then reconcile; a run is handed over to Airflow."""

        def work(client: Any) -> None:
            if client.hmget(keys.request(identity), "state", "type") == ["accepted", "submit"]:
                outcome = runs.hand_over(client, _airflow(settings), identity)
                logger.info("run %s: %s", identity, outcome)
                return
            logger.info("forwarder request %s: %s", identity, effect(client, identity))
            settle(client)

        counted(keys.TASK_REQUESTS, work)

    @app.task(name=keys.TASK_TRIGGER)
    def forwarder_trigger() -> None:
        """Send stale pending requests again, then reconcile in any case, and look after the runs that go on."""

        def work(client: Any) -> None:
            housekeeping.resend(client, app)
            client.incr(keys.DIRTY)
            try:
                settle(client)
            finally:
                runs.follow(client, _airflow(settings))

        counted(keys.TASK_TRIGGER, work)


def _signals(app: Celery, settings: Settings) -> None:
    @signals.setup_logging.connect(weak=False)
    def _logging(**_: Any) -> None:
        start_logging(settings)

    @signals.worker_ready.connect(weak=False)
    def _ready(**_: Any) -> None:
        server, _thread = start_http_server(settings.metrics_port, settings.metrics_host, metrics.registry())
        _metrics_server.append(server)
        housekeeping.start(settings, app)

    @signals.celeryd_init.connect(weak=False)
    def _alive(**_: Any) -> None:
        if settings.heartbeat_file:
            heartbeat.start(Path(settings.heartbeat_file))

    @signals.worker_process_init.connect(weak=False)
    def _forked(**_: Any) -> None:
        start_logging(settings)
        for server in _metrics_server:  # the main process answers; a child must not keep its port open
            server.socket.close()
