"""The Forwarder's scheduler: `python3 run_beat.py`. Settings come from the environment (applications/README.md)."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from urllib.parse import quote

import redis
from celery import Celery
from celery.apps.beat import Beat
from celery.beat import Scheduler
from forwarder_scheduler.environment import Environment, SettingsError
from forwarder_scheduler.single import Single
from redis.backoff import ConstantBackoff
from redis.retry import Retry

TASK_TRIGGER = "tasks.forwarder-trigger"
VISIBILITY_SECONDS = 3600  # the same in every part: Celery asks for one value everywhere


class Ticks(Scheduler):
    """Beat's schedule in memory, its first tick at once: ticks are idempotent, so nothing needs to be remembered."""

    def setup_schedule(self) -> None:
        """Make the entry due."""
        super().setup_schedule()
        for name, entry in self.app.conf.beat_schedule.items():
            self.schedule[name] = self.Entry(
                **dict(entry, name=name, app=self.app, last_run_at=self.app.now() - entry["schedule"])
            )


def main() -> int:
    """Tick until SIGTERM.

    Returns:
        0 after an orderly end, 1 when another scheduler ticks for this Redis, 2 when a setting can't be used.
    """
    env = Environment(os.environ)
    try:
        seconds = env.integer("SCHEDULER_TIMES", 30, 1, 86_400)
        env.choice("FORWARDER_ENV", "development", ("development", "production"))
        host, port = env.text("REDIS_ENDPOINT", "127.0.0.1"), env.port("REDIS_PORT", 6379)
        db, secret = env.integer("REDIS_DB", 0, 0, 1_000_000), env.text("REDIS_PASSWORD", "")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    place = f"{host}:{port}/{db}"
    client = redis.Redis(
        host=host,
        port=port,
        db=db,
        password=secret or None,
        socket_connect_timeout=4,
        socket_timeout=10,
        retry=Retry(ConstantBackoff(1), 30),  # Redis may come up later than this
    )
    app = Celery("tasks", broker=f"redis://:{quote(secret, safe='')}@{place}" if secret else f"redis://{place}")
    app.conf.update(
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": 4,
            "socket_timeout": 10,
        },
        beat_max_loop_interval=5,
        beat_schedule={
            # A tick that nobody has taken when the next one comes is of no use any more.
            "trigger": {"task": TASK_TRIGGER, "schedule": timedelta(seconds=seconds), "options": {"expires": seconds}}
        },
    )
    single = Single(client, lost=lambda: os.kill(os.getpid(), signal.SIGTERM))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until Beat has a handler of its own
    try:
        if not single.take(env.text("HEARTBEAT_FILE", "")):
            sys.stderr.write("Another scheduler ticks for this Redis: there is one by design; end that one first.\n")
            return 1
        Beat(app=app, scheduler_cls=Ticks, loglevel="WARNING", quiet=True).run()
    except redis.RedisError as error:
        sys.stderr.write(f"Redis at {place} does not answer ({type(error).__name__}): start it first.\n")
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        single.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
