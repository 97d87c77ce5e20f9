"""What CPouta's resources cost and what a project may have at first: CSC's own numbers, in one dated file.

The file, `deployments/cpouta/rates.toml`, names its source. Billing counts whole hours, in Cloud billing units (BU).
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from helpers.errors import TutorialError
from helpers.settings import ROOT

FILE = ROOT / "deployments" / "cpouta" / "rates.toml"
RATES: Mapping[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
FLAVORS: Mapping[str, Mapping[str, float]] = RATES["flavors"]
HOURS_A_MONTH = 730  # 365 days of 24 hours, by twelve
SERVICE_DESK = "servicedesk@csc.fi"


def choose_flavor(wanted: str, there: Iterable[str] = FLAVORS) -> str:
    """Find the flavor that a name means; dots and dashes don't count, so that `gpu.1.1.gpu` is CSC's `gpu.1.1gpu`.

    Args:
        wanted: The name that the reader gave.
        there: The names of the flavors that exist; by default those with a published rate.

    Returns:
        The name of the one that exists.

    Raises:
        TutorialError: There is none of that name.
    """
    names = list(there)
    found = [n for n in names if n == wanted] or [n for n in names if _plain(n) == _plain(wanted)]
    if not found:
        raise TutorialError(
            f"There is no flavor {wanted!r}", "", f"choose one of: {', '.join(sorted(names, key=_by_size))}"
        )
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_size(name: str) -> tuple[float, str]:
    return FLAVORS.get(name, {}).get("bu", 1e9), name


def per_hour(flavor: str = "", *, volume_gib: float = 0, floating_ips: int = 0, state: str = "ACTIVE") -> float:
    """Tell what resources cost an hour.

    Args:
        flavor: The server's flavor; without one there is no server.
        volume_gib: The volumes' size in GiB, of the type `standard`; attached or not.
        floating_ips: How many floating IPs the project has, used or not.
        state: The server's state, as OpenStack names it.

    Returns:
        Billing units (BU) an hour.

    Raises:
        TutorialError: No rate is published for that flavor.
    """
    server = 0.0
    if flavor and state not in RATES["states"]["not_billed"]:
        try:
            server = FLAVORS[choose_flavor(flavor)]["bu"]
        except TutorialError:
            raise TutorialError(
                f"No rate is known for the flavor {flavor}",
                f"it is not in the table of {RATES['date']}",
                f"add it to {FILE.relative_to(ROOT)}, from {RATES['source']}",
            ) from None
    rates = RATES["bu_per_hour"]
    return server + volume_gib / 1024 * float(rates["volume_tib"]) + floating_ips * float(rates["floating_ip"])


def flavors(*families: str) -> Sequence[Mapping[str, object]]:
    """List the flavors of some families (`standard`, `gpu`, …) with their sizes, and what they cost."""
    default = RATES["default_quota"]
    return [
        {
            "flavor": name,
            "cores": f["cores"],
            "memory (GiB)": f["memory_gib"],
            "GPUs": f["gpus"],
            "BU/h": f"{f['bu']:.2f}",
            "BU/month": f"{f['bu'] * HOURS_A_MONTH:,.0f}",
            "within the default quota": "yes"
            if f["cores"] <= default["cores"] and f["memory_gib"] <= default["memory_gib"]
            else "no",
        }
        for name, f in FLAVORS.items()
        if name.partition(".")[0] in families
    ]


def states(flavor: str, volume_gib: float) -> Sequence[Mapping[str, object]]:
    """Compare what a server, its volume and its floating IP cost in the states that a server can have.

    Args:
        flavor: The server's flavor.
        volume_gib: The volume's size in GiB.

    Returns:
        A row a state, with the columns state, what happens, server, rest, BU/month.
    """
    rows = (
        ("running", "ACTIVE", "it works", 1),
        ("shut off", "SHUTOFF", "its place on the host stays reserved: the price of running", 1),
        ("shelved", "SHELVED_OFFLOADED", "its disk is kept, its place is free: pause() and resume()", 1),
        ("cleaned, volume kept", "DELETED", "server, root disk and address are gone", 0),
    )
    return [
        {
            "state": words,
            "what it means": meaning,
            "server": round(per_hour(flavor, state=state) * HOURS_A_MONTH),
            "volume and address": round(per_hour(volume_gib=volume_gib, floating_ips=ips) * HOURS_A_MONTH),
        }
        for words, state, meaning, ips in rows
    ]


def quota_request(flavor: str, missing: Sequence[Mapping[str, object]], project: str = "project_…") -> str:
    """Write the mail that asks CSC's service desk for more quota.

    Args:
        flavor: The flavor that it is for.
        missing: The rows of `Vm.quota` that don't suffice, with the columns resource, needed, limit.
        project: The project's name.

    Returns:
        The mail.
    """
    wanted = "\n".join(
        f"  {row['resource']}: {row['wanted limit']} (now {row['limit']})" for row in missing
    )  # fmt: skip
    return (
        f"To: {SERVICE_DESK}\nSubject: cPouta: quota for {flavor} in {project}\n\n"
        f"Please raise the quota of {project} in cPouta:\n{wanted}\n\n"
        f"It is for one VM of the flavor {flavor}, on which we run an MLOps platform (Kubernetes in Docker) "
        f"for …\nIt is needed until …"
    )
