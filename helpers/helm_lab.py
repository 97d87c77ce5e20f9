"""Where the charts come from: their publisher, or, in a closed network, a repository of the lab's on loopback."""

from helpers import airgap, processes
from helpers.processes import PYTHON
from helpers.target import Target


def repository(name: str, url: str, target: Target) -> str:
    """Give the address of a chart repository that can be had.

    Args:
        name: Its name, such as `kuberay`; the lab's product is called `charts-NAME`.
        url: Its publisher's address.
        target: The target that the charts are for; the lab's web server is one of its background processes.

    Returns:
        The publisher's address. Where the target's Docker reaches no registry, the address of the lab's repository on
        this machine. Its web server is used again by later calls, and ends with `tutorial clean` or a headless run.

    Raises:
        TutorialError: The lab could not make the charts, or they can't be served.
    """
    if not airgap.needed(target):
        return url
    server = f"charts-{name}"
    airgap.build(server, quiet=True)
    folder = str(airgap.program(server))
    if running := processes.find(server, target.name):
        if folder in running.argv:
            return f"http://127.0.0.1:{running.ports['http']}"
        running.stop()  # it serves what the lab had before
    port = processes.free_port()
    processes.start(
        server,
        [PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", folder],
        ready=lambda: processes.answers(f"127.0.0.1:{port}"),
        target=target.name,
        ports={"http": port},
    )
    return f"http://127.0.0.1:{port}"
