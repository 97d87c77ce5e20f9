"""The backend's Prometheus metrics, added up over its processes (multiprocess mode, PROMETHEUS_MULTIPROC_DIR)."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

TASKS = Counter("forwarder_tasks", "Tasks that have ended", ["task", "outcome"])
SECONDS = Histogram("forwarder_task_seconds", "Seconds that a task took", ["task"], buckets=(0.01, 0.1, 1, 10, 60, 600))
CHANGES = Counter("forwarder_service_changes", "Services that were made, changed or removed")
RESENT = Counter("forwarder_resent", "Pending requests that were sent again")


def registry() -> CollectorRegistry:
    """Return a registry over all processes."""
    whole = CollectorRegistry()
    MultiProcessCollector(whole)
    return whole


def samples() -> list[dict[str, Any]]:
    """Return all samples as plain values."""
    return [
        {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
        for metric in registry().collect()
        for sample in metric.samples
    ]
