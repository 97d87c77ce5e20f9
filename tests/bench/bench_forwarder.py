"""Accepted requests per second of the frontend, against a bare FastAPI route that only calls `send_task`.

Both use the same Redis (every write on disk before it is answered), one server process each, 32 connections. Rounds
alternate; the median of the rounds' ratios counts. The bare route is a plain `def`, as people write it; `async def`,
which blocks its event loop, is measured too. The frontend does more: it validates, records durably and gives a task id
that can be asked for.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from forwarder_stack import stack, wait_until

from helpers.processes import free_port

ROUNDS, SECONDS, CONNECTIONS = 7, 3.0, 32
BARE = """
import sys, uuid, uvicorn
from celery import Celery
from fastapi import FastAPI

client, app = Celery("tasks", broker=sys.argv[1]), FastAPI()

@app.post("/def")
def plain(body: dict) -> dict:
    identity = str(uuid.uuid4())
    client.send_task("tasks.forwarder-requests", args=(identity,), task_id=identity, ignore_result=True)
    return {"output": {"task-id": identity}}

@app.post("/async")
async def blocking(body: dict) -> dict:
    return plain(body)

uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="warning")
"""
BODY = json.dumps({"connections": [{"name": "one", "address": "127.0.0.1", "port": 9}]}).encode()


async def _load(port: int, path: str) -> float:
    """Send requests over kept connections for some seconds; return accepted ones per second."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    request, until, accepted = head.encode() + BODY, time.monotonic() + SECONDS, 0

    async def connection() -> None:
        nonlocal accepted
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            accepted += answer.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return accepted / SECONDS


def main() -> None:
    """Print the rates and the ratios."""
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder)) as made:
        made.frontend()
        bare_port = free_port()
        bare = made.program("fastapi", "bare")
        bare.argv = [sys.executable, "-c", BARE, f"redis://127.0.0.1:{made.redis_port}/0", str(bare_port)]
        bare.start()
        cases = {
            "frontend": (int(made.env["FASTAPI_PORT"]), "/interaction/forw/import/reader/lab"),
            "bare def": (bare_port, "/def"),
            "bare async def": (bare_port, "/async"),
        }
        wait_until(lambda: asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", bare_port), 1)))
        rates: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(ROUNDS):
            for name, (port, path) in cases.items():
                made.client.flushdb()
                rates[name].append(asyncio.run(_load(port, path)))
        for name, measured in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["frontend"], measured, strict=True))
            print(f"{name:15} {statistics.median(measured):6.0f} requests/s   frontend is {ratio:.2f} of it")


if __name__ == "__main__":
    main()
