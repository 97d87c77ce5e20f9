"""Chapter 06: a Kubernetes cluster in a Docker container (kind), a registry beside it, and a way to it from the laptop.

Sources: https://kind.sigs.k8s.io/docs/user/configuration/ and https://kind.sigs.k8s.io/docs/user/local-registry/.
"""

import codecs
import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cached_property
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any, Self

import yaml
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from helpers import airgap, display, kind_failures, shell, tools
from helpers.errors import TutorialError, Unreachable
from helpers.kind_config import collisions, node_names
from helpers.kind_config import configuration as configuration
from helpers.kind_config import ports as ports
from helpers.machine import MEMORY, listening
from helpers.pods import pod_state as pod_state
from helpers.processes import write_atomically
from helpers.settings import ROOT, settings
from helpers.target import Capability, Target, opened, with_docker
from helpers.target_local import run_here
from helpers.undo import Leftover
from helpers.vm import THAW

FOLDER = ROOT / "deployments" / "kind"
NODE_IMAGE = f"kindest/node:{tools.VERSIONS['cluster']['kubernetes']}"
REGISTRY_IMAGE = f"registry:{tools.VERSIONS['cluster']['registry']}"
REGISTRY = "kind-registry"
REGISTRY_PORT = 5001
_MARK = "tutorial-configuration"  # a label of the node, there from the first moment: ours, and of which configuration
_REGISTRY_VOLUME = "tutorial-registry"
_CREATE_SECONDS = 420.0
_API_SECONDS = 90.0
_TUNNEL_SECONDS = 5.0
_REFUSED = "The connection to the server 127.0.0.1"  # … was refused
# What kubectl says when it is the way to the cluster that is broken: the tunnel, the machine, the kubeconfig.
LOST = re.compile(r"refused|EOF|reset by peer|Unable to connect|loading config|TLS handshake|x509|must be logged in")
# What the platform's own setup script asks for, and inotify's limits as kind's known issues name them.
NEEDS = {"cores": 2, "memory (GiB)": 4, "disk (GiB)": 10, "inotify watches": 524288, "inotify instances": 512}
# An engine may be on another machine, or in a VM (Docker Desktop, colima): what it says of its own machine counts then.
_LOOK = {
    "engine": "docker info -f 'name={{.Name}}\ncores={{.NCPU}}\nmemory={{.MemTotal}}'",
    "root": "docker info -f '{{.DockerRootDir}}'",
    "name": "uname -n",
    "cores": "getconf _NPROCESSORS_ONLN",
    "memory": MEMORY,
    "inotify watches": "cat /proc/sys/fs/inotify/max_user_watches",
    "inotify instances": "cat /proc/sys/fs/inotify/max_user_instances",
}
_FREE = "{{ df -Pk {0} || sudo -n df -Pk {0}; }} | awk 'NR == 2 {{print $4}}'"  # a root folder may be root's only
# The ten steps of integration-setup.sh: where deployments/platform has each, and which chapter does the same by itself.
SETUP_STEPS = (
    ("loads configuration", "config.env", "the cell `parameters`"),
    ("gives options", "integration-setup.sh", "the cell `parameters`"),
    ("checks resources", "scripts/check_resources.sh", "this one, `requirements`"),
    ("checks the OS", "scripts/check_os.sh", "`tutorial doctor`"),
    ("runs setup scripts (cluster, registry)", "scripts/create_cluster.sh, …", "this one, `create`"),
    ("applies YAML", "scripts/apply_stacks.sh", "chapter 09"),
    ("installs Helm", "scripts/install_helm.sh", "helpers/tools.py"),
    ("installs the GPU operator and nvshare", "scripts/install_gpu_operator.sh", "chapter 05"),
    ("installs Ray", "scripts/install_ray.sh", "chapter 07"),
    ("runs tests", "scripts/run_tests.sh", "the checkpoints of each notebook"),
)


def requirements(target: Target) -> list[Mapping[str, object]]:
    """Compare what a machine has with what a cluster needs.

    Args:
        target: The machine.

    Returns:
        A row for each of `NEEDS`, with the columns what, there, needed, enough. What the machine does not tell is
        `unknown`, and so is whether it is enough: such as the disk of an engine that is on another machine.

    Raises:
        TutorialError: The machine can't be reached.
    """
    there, unknown = _resources(target)
    rows: list[Mapping[str, object]] = []
    for what, need in NEEDS.items():
        value = there.get(what)
        enough = "unknown" if value is None else "yes" if value >= need else "no"
        rows.append({"what": what, "there": unknown if value is None else value, "needed": need, "enough": enough})
    return rows


def _resources(target: Target) -> tuple[dict[str, int], str]:
    """Ask a machine for what `NEEDS` names; what it does not tell is left out, and called by the word returned."""
    told, unknown = shell.query(target, _LOOK), "unknown"
    told["disk"] = shell.query(target, {"disk": _FREE.format(quote(told["root"] or "/"))})["disk"]
    engine = shell.read_facts(told["engine"] or "", ["name", "cores", "memory"])
    if told["root"] and (engine["name"] != told["name"] if engine["name"] else not told["disk"]):
        told, unknown = engine, "unknown (Docker's engine is on another machine)"
    numbers = {name: int(value) for name, value in told.items() if value and value.isdecimal()}
    if "memory" in numbers:
        numbers["memory (GiB)"] = int(numbers["memory"] / 2**30 + 0.5)
    if "disk" in numbers:
        numbers["disk (GiB)"] = numbers["disk"] // 2**20
    return numbers, unknown


def raise_inotify(target: Target) -> None:
    """Raise the limits of inotify until the machine restarts, where they are too low and root rights are there."""
    low = [row for row in requirements(target) if str(row["what"]).startswith("inotify") and row["enough"] == "no"]
    names = {"inotify watches": "max_user_watches", "inotify instances": "max_user_instances"}
    for row in low:
        setting = f"fs.inotify.{names[str(row['what'])]}={row['needed']}"
        target.run(target.sudo("sysctl", "-q", "-w", setting), check=False)


def busy_ports(target: Target, content: Mapping[str, Any]) -> list[int]:
    """List the ports of the machine that the cluster wants and somebody else has (TCP)."""
    wanted = {row["machine"] for row in ports(content, "TCP")}
    return sorted(wanted & {port for _, port in listening(target)})


def plan(target: Target, path: Path) -> None:
    """Show what `create` would run, where there is no Docker."""
    content = configuration(path)
    name = content["name"]
    where = "a machine with Docker: the target vm, host, or one of your own"
    commands = [
        _create_words("kind", path.name, NODE_IMAGE),
        ["kubectl", "get", "nodes"],
        ["kind", "delete", "cluster", "-n", name],
    ]
    display.plan(
        f"the cluster {name}", commands, f"the target {target.name} uses nothing but Python. It runs on {where}."
    )


def _create_words(program: str, path: str, image: str) -> list[str]:
    return [program, "create", "cluster", "--config", path, *(["--image", image] if image else []), "--wait", "180s"]


def _text(path: Path) -> str:
    content = path.read_bytes()
    return content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8")


class Cluster(AbstractContextManager["Cluster"]):
    """A cluster on a target, and the tunnel to its API; used as a context manager, or with `connect` and `close`.

    Args:
        target: The machine that it runs on.
        path: Its configuration.
    """

    def __init__(self, target: Target, path: Path = FOLDER / "cluster.yaml") -> None:
        self.target, self.path = target, path
        self.content = configuration(path)
        self.name = str(self.content["name"])
        self.node_names = node_names(self.content)
        self._open = ExitStack()
        self._connected = False

    @cached_property
    def _kind(self) -> str:
        if Capability.DOCKER not in self.target.capabilities():
            raise TutorialError(
                "No Docker engine answers", "kind runs its nodes as containers", "start Docker on that machine: "
                "sudo systemctl start docker (chapter 03 installs it)", target=self.target.name,
            )  # fmt: skip
        return tools.install(self.target, "kind", "kubectl")["kind"]

    def exists(self) -> bool:
        """Tell whether a cluster of that name is there, whoever made it."""
        said = self.target.run([self._kind, "get", "clusters"], repeatable=True)
        return self.name in said.stdout.split()

    def fingerprint(self) -> str:
        """Hash what the cluster is made from, without comments; chapter 05's script (`fingerprint`) does the same."""
        lines = (re.sub(r"(^|\s+)#.*$", "", line, flags=re.ASCII).rstrip() for line in _text(self.path).splitlines())
        made_of = "".join(f"{line}\n" for line in [*filter(None, lines), NODE_IMAGE])
        return f"sha256-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"

    def create(self, recreate: bool = False) -> bool:
        """Have the cluster run, with its registry; one of the same configuration is used as it is.

        Args:
            recreate: Delete a cluster of that name with another configuration, and all its data, first.

        Returns:
            Whether it was made now.

        Raises:
            TutorialError: There is another cluster of that name, a port is taken, the disk is full, or kind failed.
        """
        if self.exists():
            if self._usable(recreate):
                self._join_registry()
                self.choose()
                return False
            self.delete()
        if twice := collisions(self.content):
            raise TutorialError(
                f"{self.path} maps a port twice",
                "; ".join(twice),
                "give each mapping its own hostPort or listenAddress",
            )
        if taken := busy_ports(self.target, self.content):
            who = f"ss -Hltnp 'sport = :{taken[0]}'"
            seen = shell.query(self.target, {"who": f"sudo -n {who} || {who}"})["who"] or ""
            raise TutorialError(
                f"Port {taken[0]} of the machine is taken",
                "the cluster wants to open it, and something else listens there",
                "end that program, or change the hostPort in deployments/kind/cluster.yaml",
                target=self.target.name,
                output=seen,
            )
        airgap.supply(self.target, [NODE_IMAGE, REGISTRY_IMAGE, "python:3.11-slim"])
        self._make()
        self._join_registry()
        return True

    def is_ours(self) -> bool:
        """Tell whether the tutorial made the cluster that is there; one that does not answer counts as a stranger's."""
        try:
            return bool(self._made_of())
        except TutorialError:
            return False

    def choose(self) -> None:
        """Have plain `kubectl` on the machine speak to this cluster; creating or deleting another one changes that."""
        self.target.run([self._kind, "export", "kubeconfig", "--name", self.name], repeatable=True)

    def _usable(self, recreate: bool) -> bool:
        """Tell whether the cluster that is there is the wanted one; say what the choice is, unless it was made."""
        try:
            made = self._made_of()
        except TutorialError:
            if recreate:
                return False
            raise
        if made == self.fingerprint() or recreate:
            return made == self.fingerprint()
        raise TutorialError(
            f"There is a cluster {self.name} already",
            "the tutorial made it from another configuration" if made else "the tutorial did not make it",
            f"keep it and choose another name in {self.path.name}, or delete it with all its data: recreate=True",
            target=self.target.name,
        )

    def _make(self) -> None:
        steps = ("node image", "Preparing nodes", "Writing configuration", "Starting control-plane", "Installing CNI",
                 "Installing StorageClass", "Waiting")  # fmt: skip
        with display.progress(f"Cluster {self.name}", len(steps)) as report:

            def told(line: str) -> None:
                done = next((i for i, step in enumerate(steps) if step in line), None)
                if done is not None:
                    report(done + (0.5 if "•" in line else 1), steps[done])

            marked = copy.deepcopy(self.content)
            marked["nodes"][0].setdefault("labels", {})[_MARK] = self.fingerprint()
            own_images = any(node.get("image") for node in marked["nodes"])
            if own_images:  # kind's --image would take their place
                for node in marked["nodes"]:
                    node.setdefault("image", NODE_IMAGE)
            text = yaml.safe_dump(marked)
            words = _create_words(self._kind, "-", "" if own_images else NODE_IMAGE)
            try:
                done = self.target.run(words, check=False, timeout=_CREATE_SECONDS, input=text, stream=told)
            except Unreachable:
                raise
            except BaseException:  # the time is over, or the reader ended it: nothing half-made stays
                with suppress(TutorialError):
                    self.delete()
                raise
        if done.returncode != 0:
            raise self._failed(done.stdout + done.stderr)

    def _failed(self, said: str) -> TutorialError:
        if kind_failures.EXISTS not in said:
            with suppress(TutorialError):  # the reason is what matters
                self.delete()
        why, remedy = kind_failures.explain(said)
        return TutorialError(
            "kind could not create the cluster", why, remedy, target=self.target.name, command=["kind"], output=said
        )

    def _made_of(self) -> str:
        """Read which configuration the cluster was made from; empty when the tutorial did not make it.

        Raises:
            TutorialError: It does not answer, although its node was started: it was left half-made.
        """
        self._start_nodes()
        words = ["get", "nodes", "-o", f"jsonpath={{range .items[*]}}node {{.metadata.labels.{_MARK}}} {{end}}"]

        def read() -> list[str]:
            said = self._on_node(*words).split()
            if not said:
                raise TutorialError("No node has registered yet")  # the API is up a moment before its node
            return said

        attempts = Retrying(
            retry=retry_if_exception_type(TutorialError), stop=stop_after_delay(_API_SECONDS), wait=wait_fixed(1)
        )
        try:
            return " ".join(word for word in attempts(read) if word != "node")
        except RetryError:
            raise TutorialError(
                f"The cluster {self.name} does not answer",
                f"its API is away for {_API_SECONDS:g} s; its creation was interrupted, perhaps",
                "delete it with all its data and make it anew: recreate=True",
                target=self.target.name,
            ) from None

    def _on_node(self, *words: str, input: str | None = None) -> str:
        """Run kubectl in the node, where its administrator's configuration is."""
        node = f"{self.name}-control-plane"
        argv = ["docker", "exec", "-i", node, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *words]
        return self.target.run(argv, input=input, repeatable=True).stdout

    def _join_registry(self) -> None:
        """Have the local registry run, and the node know it as localhost:5001, as kind's guide does."""
        look = ["docker", "container", "inspect", "-f", "{{.State.Running}}", REGISTRY]
        state = self.target.run(look, check=False, repeatable=True).stdout.strip()
        if not state:
            self.target.run([
                "docker", "run", "-d", "--restart", "always", "--name", REGISTRY, "--label", "tutorial.chapter=06",
                "-p", f"127.0.0.1:{REGISTRY_PORT}:5000", "-v", f"{_REGISTRY_VOLUME}:/var/lib/registry", REGISTRY_IMAGE,
            ])  # fmt: skip
        elif state != "true":
            self.target.run(["docker", "start", REGISTRY])
        self.target.run(["docker", "network", "connect", "kind", REGISTRY], check=False)  # refused when it is there
        folder = f"/etc/containerd/certs.d/localhost:{REGISTRY_PORT}"
        script = f"mkdir -p {folder} && cat >{folder}/hosts.toml"
        text = f'[host."http://{REGISTRY}:5000"]\n'
        for node in self.node_names:
            self.target.run(["docker", "exec", "-i", node, "sh", "-c", script], input=text)
        self._on_node("apply", "-f", "-", input=(FOLDER / "local-registry.yaml").read_text(encoding="utf-8"))

    def push(self, image: str, repository: str = "") -> str:
        """Put an image of the target's Docker (or of a registry that it reaches) into the local registry.

        Args:
            image: Its name.
            repository: The name that it gets there; by default the same.

        Returns:
            The name by which pods use it.

        Raises:
            TutorialError: There is no such image, or it could not be pushed.
        """
        name = f"localhost:{REGISTRY_PORT}/{repository or image}"
        look = self.target.run(["docker", "image", "inspect", "-f", "{{.Id}}", image], check=False, repeatable=True)
        if look.returncode != 0:
            self.target.run(["docker", "pull", "-q", image], timeout=600)
        self.target.run(["docker", "tag", image, name])
        self.target.run(["docker", "push", "-q", name], timeout=600, repeatable=True)
        return name

    def connect(self) -> Self:
        """Open a tunnel to the cluster's API and write a kubeconfig for it, readable only by its owner.

        Raises:
            TutorialError: There is no such cluster.
        """
        if self._connected:
            return self
        if not self.exists():
            raise TutorialError(
                f"There is no cluster {self.name}", "", "create it: chapter 06", target=self.target.name
            )
        self._start_nodes()
        words = [self._kind, "get", "kubeconfig", "--name", self.name]
        content = yaml.safe_load(self.target.run(words, repeatable=True).stdout)
        server = content["clusters"][0]["cluster"]
        port = self._open.enter_context(self.target.tunnel(int(server["server"].rpartition(":")[2])))
        server["server"] = f"https://127.0.0.1:{port}"
        # The API's certificate always has this name, and 127.0.0.1 only where kind chose the address.
        server["tls-server-name"] = "localhost"
        write_atomically(self.kubeconfig, yaml.safe_dump(content), 0o600)
        self._connected = True
        self._wait_for_api()
        return self

    def _start_nodes(self) -> None:
        """Start the nodes that are off, as after a restart of their machine."""
        first, *others = self.node_names
        if len([n for n in self.content["nodes"] if n["role"] == "control-plane"]) > 1:
            others.append(f"{self.name}-external-load-balancer")
        for node in (first, *others):
            look = ["docker", "container", "inspect", "-f", "{{.State.Running}}", node]
            state = self.target.run(look, check=node == first, repeatable=True).stdout.strip()
            if state not in ("true", "" if node != first else "true"):
                self.target.run(["docker", "start", node], repeatable=True)

    def _wait_for_api(self) -> None:
        attempts = Retrying(
            retry=retry_if_result(lambda said: said != "ok"),
            stop=stop_after_delay(_API_SECONDS),
            wait=wait_fixed(0.5),
            retry_error_callback=lambda _: self.kubectl("get", "--raw", "/readyz"),  # raises what it says
        )
        attempts(lambda: self.kubectl("get", "--raw", "/readyz", check=False))

    def close(self) -> None:
        """Close the tunnel; the cluster goes on."""
        self._connected = False
        self._open.close()

    def __exit__(self, *args: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig for this machine; it leads through the tunnel."""
        return settings().state / self.target.name / f"kubeconfig-{self.name}"

    def kubectl(self, *words: str, check: bool = True, input: str | None = None, timeout: float = 120) -> str:
        """Run kubectl on this machine, through the tunnel.

        Args:
            words: Its arguments.
            check: Raise when it fails.
            input: Text for its standard input.
            timeout: Seconds until it is ended.

        Returns:
            What it printed.

        Raises:
            TutorialError: It failed; the message has what it said.
        """
        self.connect()
        argv = [str(tools.find("kubectl")), "--kubeconfig", str(self.kubeconfig), *words]
        done = Retrying(  # a tunnel whose connection dropped is open again in a moment; kubectl has not begun then
            retry=retry_if_result(lambda done: _REFUSED in done.stderr),
            stop=stop_after_delay(_TUNNEL_SECONDS),
            wait=wait_fixed(0.5),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(run_here, argv, check=False, input=input, timeout=timeout, target=self.target.name)
        if check and done.returncode != 0:
            lost = bool(LOST.search(done.stderr))
            if lost:
                self.close()  # the next call opens the way anew
            raise TutorialError(
                f"kubectl {words[0]} failed",
                "the cluster's API was not reached" if lost else f"exit code {done.returncode}",
                "run the cell again: it opens the way to the cluster anew"
                if lost
                else "read what it said; `kubectl get pods -A` shows the state of all pods",
                target=self.target.name,
                command=["kubectl", *words],
                output=done.stderr or done.stdout,
            )
        return done.stdout

    def get(self, *words: str) -> list[dict[str, Any]]:
        """Read objects (`kubectl get … -o json`); words such as "pods", "-A"."""
        content: dict[str, Any] = json.loads(self.kubectl("get", *words, "-o", "json"))
        items: list[dict[str, Any]] = content.get("items", [content])
        return items

    def nodes(self) -> list[Mapping[str, object]]:
        """List the nodes: name, state, version, cores, memory."""
        return [
            {
                "node": node["metadata"]["name"],
                "state": "ready" if _condition(node, "Ready") else "not ready",
                "version": node["status"]["nodeInfo"]["kubeletVersion"],
                "cores": node["status"]["allocatable"]["cpu"],
                "pods": node["status"]["allocatable"]["pods"],
            }
            for node in self.get("nodes")
        ]

    def pods(self, namespace: str = "") -> list[Mapping[str, object]]:
        """List the pods of a namespace, or of all: namespace, pod, state, restarts."""
        return [
            {
                "namespace": pod["metadata"]["namespace"],
                "pod": pod["metadata"]["name"],
                "state": pod_state(pod),
                "restarts": sum(c["restartCount"] for c in pod["status"].get("containerStatuses") or ()),
            }
            for pod in self.get("pods", *(["-n", namespace] if namespace else ["-A"]))
        ]

    def allocated(self) -> list[Mapping[str, object]]:
        """Read the node's allocated resources: what pods request and may use at most (`kubectl describe nodes`)."""
        said = self.kubectl("describe", "nodes").partition("Allocated resources:")[2].partition("Events:")[0]
        rows = re.findall(r"^\s+(\S+)\s+(\S+(?: \(\d+%\))?)\s+(\S+(?: \(\d+%\))?)$", said, re.MULTILINE)
        return [{"resource": r, "requests": q, "limits": m} for r, q, m in rows if r not in ("Resource", "--------")]

    def delete(self) -> None:
        """Delete the cluster with all its data; the registry and its images stay."""
        self.close()
        words = [self._kind, "delete", "cluster", "--name", self.name]
        if self.target.run(words, check=False, timeout=180).returncode != 0:
            for name in self.node_names:
                look = ["docker", "container", "inspect", "-f", "{{.Id}}", name]
                if node := self.target.run(look, check=False).stdout.strip():
                    self.target.run(self.target.sudo("sh", "-c", THAW, node), check=False)
            self.target.run(words, timeout=180)
        self.kubeconfig.unlink(missing_ok=True)

    def data(self) -> list[Mapping[str, object]]:
        """List what goes with the cluster: the volumes that its pods keep data in."""
        return [
            {
                "namespace": claim["metadata"]["namespace"],
                "volume": claim["metadata"]["name"],
                "size": claim["spec"]["resources"]["requests"]["storage"],
            }
            for claim in self.get("persistentvolumeclaims", "-A")
        ]


def rolled_out(workload: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether a Deployment or StatefulSet is as described, and ready: an old pod that still runs is not."""
    status, wanted = workload["status"], workload["spec"]["replicas"]
    current = status.get("observedGeneration") == workload["metadata"]["generation"]
    counts = {status.get(f"{word}eplicas", 0) for word in ("r", "updatedR", "readyR", "availableR")}
    return current and counts == {wanted}


def _condition(thing: Mapping[str, Any], name: str) -> bool:
    conditions: Sequence[Mapping[str, str]] = thing["status"].get("conditions", [])
    return any(c["type"] == name and c["status"] == "True" for c in conditions)


def leftovers(target: str) -> list[Leftover]:
    """List the cluster and the registry of a target; the VM goes as a whole."""
    with with_docker(target) as machine:
        if not machine:
            return []
        cluster, found = Cluster(machine), list[Leftover]()
        names = machine.run(["docker", "ps", "-a", "--format", "{{.Names}}"], repeatable=True).stdout.split()
        if f"{cluster.name}-control-plane" in names and cluster.is_ours():
            found.append(
                Leftover("the cluster with all its data", f"kind cluster {cluster.name}", lambda: _delete(target))
            )
        mine = ["docker", "ps", "-a", "--filter", "label=tutorial.chapter=06", "--format", "{{.Names}}"]
        if REGISTRY in machine.run(mine, repeatable=True).stdout.split():
            found.append(Leftover("the local registry", f"container {REGISTRY}", lambda: _delete_registry(target)))
        return found


def _delete(target: str) -> None:
    with opened(target) as machine:
        Cluster(machine).delete()


def _delete_registry(target: str) -> None:
    with opened(target) as machine:
        machine.run(["docker", "rm", "-f", "-v", REGISTRY], check=False)
        machine.run(["docker", "volume", "rm", "-f", _REGISTRY_VOLUME], check=False)
