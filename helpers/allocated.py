"""What pods have booked of the nodes: read from the API, as a table and as bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils import parse_quantity  # type: ignore[import-untyped]

from helpers import display
from helpers.kind import Cluster


@dataclass(frozen=True)
class Allocated:
    """What pods have booked of a resource.

    Attributes:
        resource: Its name.
        requests: What is kept for them.
        limits: What they may use at most.
        allocatable: What the nodes have for pods.
    """

    resource: str
    requests: Decimal
    limits: Decimal
    allocatable: Decimal

    def percent(self, amount: Decimal) -> int:
        """Give an amount in percent of what is there, rounded down as kubectl does."""
        return int(amount * 100 / self.allocatable) if self.allocatable else 0


def read(found: Cluster) -> list[Allocated]:
    """Sum up what pods request and may use at most, from the API; `kubectl describe nodes` has the same numbers.

    Args:
        found: The cluster.

    Returns:
        A row for each resource that the nodes have, pods apart.
    """
    nodes, pods = found.get("nodes"), found.get("pods", "-A")
    names = {n["metadata"]["name"] for n in nodes}
    booked = [p for p in pods if p["spec"].get("nodeName") in names]
    booked = [p for p in booked if p["status"]["phase"] not in ("Succeeded", "Failed")]
    rows = []
    for resource in sorted({r for n in nodes for r in n["status"]["allocatable"]} - {"pods"}):
        there = sum(parse_quantity(n["status"]["allocatable"].get(resource, "0")) for n in nodes)
        sums = [sum((pod_sum(p, what, resource) for p in booked), Decimal()) for what in ("requests", "limits")]
        rows.append(Allocated(resource, sums[0], sums[1], Decimal(there)))
    return rows


def pod_sum(pod: Mapping[str, Any], what: str, resource: str) -> Decimal:
    """Give what a pod books of a resource, as the scheduler counts.

    Its containers count together; an init container runs alone, or stays (a sidecar) and counts with what follows.

    Args:
        pod: The pod.
        what: `requests` or `limits`.
        resource: The resource's name.
    """
    spec = pod["spec"]
    if resource in (whole := spec.get("resources", {}).get(what, {})):  # said for the pod as a whole
        return Decimal(parse_quantity(whole[resource]))
    staying, peak = Decimal(), Decimal()
    for container in spec.get("initContainers", []):
        own = _amount(container, what, resource)
        if container.get("restartPolicy") == "Always":
            staying += own
            own = Decimal()
        peak = max(peak, staying + own)
    together = staying + sum((_amount(c, what, resource) for c in spec["containers"]), Decimal())
    extra = Decimal(parse_quantity(spec.get("overhead", {}).get(resource, "0")))
    most = max(peak, together)
    return most + extra if what == "requests" or most else most


def _amount(container: Mapping[str, Any], what: str, resource: str) -> Decimal:
    return Decimal(parse_quantity(container.get("resources", {}).get(what, {}).get(resource, "0")))


def show(rows: Sequence[Allocated]) -> None:
    """Show the booked resources as a table."""
    display.table(
        [
            {
                "resource": row.resource,
                "requests": f"{readable(row.resource, row.requests)} ({row.percent(row.requests)}%)",
                "limits": f"{readable(row.resource, row.limits)} ({row.percent(row.limits)}%)",
                "allocatable": readable(row.resource, row.allocatable),
            }
            for row in rows
        ],
        title="Allocated resources",
    )


def readable(resource: str, amount: Decimal) -> str:
    """Write an amount in its usual unit: cores, MiB or GiB, pieces."""
    if resource == "memory" or "storage" in resource or resource.startswith("hugepages"):
        return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"
    return f"{amount.normalize():f}"


def draw(rows: Sequence[Allocated]) -> None:
    """Show the booked resources as bars, in percent of what is there."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.requests or row.limits][::-1]
    figure = Figure(figsize=(6.5, 0.8 + 0.6 * len(shown)))
    axes = figure.subplots()
    for place, row in enumerate(shown):
        for offset, amount, colour in ((0.18, row.requests, "#0f766e"), (-0.18, row.limits, "#d97706")):
            axes.barh(place + offset, row.percent(amount), height=0.32, color=colour)
            axes.text(row.percent(amount) + 1, place + offset, f"{row.percent(amount)}%", va="center", fontsize=8,
                      color=colour)  # fmt: skip
    axes.axvline(100, color="#7b8b9a", linewidth=1, linestyle="--")
    widest = max([100, *(row.percent(max(row.requests, row.limits)) for row in shown)])
    axes.set(yticks=range(len(shown)), yticklabels=[row.resource for row in shown], xlim=(0, widest * 1.1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("percent of what the node has: requests green, limits orange", fontsize=9)
    text = "; ".join(
        f"{row.resource}: requests {row.percent(row.requests)}%, limits {row.percent(row.limits)}%"
        for row in shown[::-1]
    )
    display.figure(figure, f"Booked of the node: {text}")
