"""The frontend's Prometheus metrics."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import REGISTRY, Counter, Histogram

REQUESTS = Counter("forwarder_http_requests", "HTTP requests answered", ["route", "method", "status"])
SECONDS = Histogram(
    "forwarder_http_seconds", "Seconds until an HTTP request was answered", buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5)
)
ACCEPTED = Counter("forwarder_accepted", "Requests recorded and handed to Celery", ["type"])


def samples() -> list[dict[str, Any]]:
    """Return all samples as plain values; those that are no finite number (JSON has none) are left out."""
    return [
        {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if abs(sample.value) != float("inf") and sample.value == sample.value
    ]


def now() -> float:
    """Return the time of a snapshot, in seconds since 1970."""
    return time.time()
