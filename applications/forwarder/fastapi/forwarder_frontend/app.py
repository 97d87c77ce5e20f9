"""The FastAPI application: its parts, its guards, and a /docs page that needs no other host."""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.responses import RedirectResponse

from . import errors, metrics
from .errors import ForwarderError
from .logs import logger
from .publishing import Publisher
from .routes import router
from .runs import Runs
from .settings import BODY_BYTES, Settings
from .store import Store

_OPEN = ("/health", "/ready", "/docs", "/openapi.json", "/static-offline-docs")
_DESCRIPTION = """
The Forwarder connects what lives outside a cluster with what lives inside. This page is its contract, and you can try
every route here.

1. `POST /setup/config/init` stores the configuration.
2. `POST /interaction/forw/import/reader/lab` wishes for a connection; the answer carries a `task-id`.
3. `GET /interaction/task/result/{task-id}` says what became of it, and `POST /interaction/forw/status/reader/lab`
   where to connect to.
4. `POST /interaction/orch/submit/tutorial-hello-world` submits a run of that workflow; the answer carries its `run-id`,
   and `POST /interaction/orch/status/tutorial-hello-world` says how far it is.

A success is `{"output": …}`. Everything else is `{"detail": {"what", "why", "remedy"}}`; a 503 carries `Retry-After`.
"""
_TAGS = [
    {"name": "setup", "description": "The configuration"},
    {"name": "forw", "description": "Connections between inside and outside"},
    {"name": "task", "description": "What became of an accepted request"},
    {"name": "arti", "description": "Logs, metrics, overviews"},
    {"name": "orch", "description": "Runs of workflows in Airflow"},
    {"name": "state", "description": "For probes and Prometheus"},
]


class BodyLimit:
    """Refuses bodies over the limit, also those that don't say their length (ASGI middleware)."""

    def __init__(self, app: Any) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what is received."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = b"", True
        while more and int(length if length.isdigit() else 0) <= BODY_BYTES >= len(body):
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if more or len(body) > BODY_BYTES:
            error = ForwarderError(
                413,
                "The request was refused",
                f"Its body is larger than {BODY_BYTES // 1024} KiB",
                "Send fewer connections",
            )
            return await error.answer()(scope, receive, send)
        given = False

        async def replay() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self._app(scope, replay, send)


def create(settings: Settings) -> FastAPI:
    """Make the application; Redis need not be there yet.

    Args:
        settings: What the environment said.
    """
    logger.info("Creating FastAPI instance")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.publisher.start()
        logger.info("Frontend ready")
        yield
        await app.state.publisher.stop()
        await app.state.runs.close()
        await app.state.store.close()

    app = FastAPIOffline(
        title="Forwarder", version="0.0.5", description=_DESCRIPTION, openapi_tags=_TAGS, lifespan=lifespan,
        redoc_url=None,
    )  # fmt: skip
    logger.info("FastAPI created")
    logger.info("Connecting to redis")
    app.state.settings, app.state.store = settings, Store(settings)
    logger.info("Redis connected")
    logger.info("Defining Celery client")
    app.state.publisher = Publisher(settings)
    app.state.runs = Runs(settings, app.state.store, app.state.publisher)
    logger.info("Celery client defined")
    logger.info("Importing routes")
    errors.install(app)
    logger.info("Including routers")
    app.include_router(router)
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    app.add_middleware(BodyLimit)
    app.add_middleware(Guard, token=settings.token)
    logger.info("Routes implemented")
    return app


class Guard:
    """Wants the token where one is set, and counts (ASGI middleware)."""

    def __init__(self, app: Any, token: str) -> None:
        """Wrap `app`."""
        self._app, self._expected = app, f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request pass, or answer 401."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def sending(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        given = dict(scope["headers"]).get(b"authorization", b"")
        known = not self._expected or scope["path"].startswith(_OPEN) or hmac.compare_digest(given, self._expected)
        try:
            await (self._app if known else _unknown().answer())(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if route != "none" else "any"
            metrics.REQUESTS.labels(route, method, str(status)).inc()
            metrics.SECONDS.observe(time.perf_counter() - started)
        return None


def _unknown() -> ForwarderError:
    return ForwarderError(
        401,
        "The request was refused",
        "It carries no token, or another one",
        "Send the header Authorization: Bearer …",
        {"WWW-Authenticate": "Bearer"},
    )
