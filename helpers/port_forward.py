"""Ways from this machine to Services of a cluster: `kubectl port-forward`, started again whenever it ends."""

from helpers import processes
from helpers.kind import Cluster
from helpers.processes import PYTHON
from helpers.settings import ROOT
from helpers.tools import find


def start(
    cluster: Cluster, service: str, port: int, local_port: int = 0, namespace: str = "default", name: str = ""
) -> int:
    """Make a Service reachable on this machine.

    Args:
        cluster: The cluster.
        service: The Service's name.
        port: Its port.
        local_port: The port here; 0 takes a free one.
        namespace: Its namespace.
        name: What to call this way, where a Service has more than one; by default the Service's name.

    Returns:
        The port here. It is open until `stop`, `tutorial clean`, or the end of a headless run.

    Raises:
        TutorialError: The port is taken, or the Service can't be reached.
    """
    cluster.connect()
    stop(cluster, name or service)
    here = local_port or processes.free_port()
    kubectl = [str(find("kubectl")), "--kubeconfig", str(cluster.kubeconfig)]
    argv = [*kubectl, "port-forward", f"svc/{service}", f"{here}:{port}", "-n", namespace]
    processes.start(
        f"forward-{name or service}",
        [PYTHON, "-m", "helpers.again", *argv],
        ready=lambda: processes.answers(f"127.0.0.1:{here}"),
        target=cluster.target.name,
        cwd=ROOT,
        ports={service: here},
    )
    return here


def stop(cluster: Cluster, name: str) -> None:
    """Close the way to a Service, by the name that it was started with; one that is closed already is no error."""
    if process := processes.find(f"forward-{name}", cluster.target.name):
        process.stop()
