"""Chapter 06: why kind could not create a cluster, from what it prints; and that nothing half-made stays."""

# ruff: noqa: E501 - a row of the table is a line

from pathlib import Path

import pytest

from helpers import kind, kind_failures
from helpers.errors import TutorialError
from helpers.target import Target

unit = pytest.mark.unit
RUN = 'ERROR: failed to create cluster: command "docker run --name t-control-plane --privileged --security-opt seccomp=unconfined --security-opt apparmor=unconfined --publish=0.0.0.0:80:80/TCP kindest/node:v1" '
RUN += "failed with error: exit status 125\nCommand Output: docker: Error response from daemon: "
PULL = 'ERROR: failed to create cluster: failed to pull image "kindest/node:v1": command "docker pull kindest/node:v1" failed '
PULL += "with error: exit status 1\nCommand Output: "
INIT = 'ERROR: failed to create cluster: failed to init node with kubeadm: command "docker exec --privileged t-control-plane '
INIT += 'kubeadm init" failed with error: exit status 1\nCommand Output: I0408 21:33:41.777965     248 initconfiguration.go:246]\n'
INIT += "kubelet: imagePullPolicy of the pull request: IfNotPresent\n"

# What is printed, a part of the reason, and a part of the remedy.
FAILURES = [
    (INIT + 'kubelet[1]: E0408 "Failed to start cAdvisor" err="inotify_init: too many open files"', "limits of inotify", "fs.inotify.max_user_instances=512"),
    (RUN + "Failed to create inotify object: Too many open files", "limits of inotify", "sysctl"),
    (INIT + "inotify_add_watch /sys/fs/cgroup: no space left on device", "limits of inotify", "max_user_watches=524288"),
    (RUN + "driver failed programming external connectivity on endpoint t: Error starting userland proxy: error while calling PortManager.AddPort(): cannot expose privileged port 80, you can add 'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently 1024), or set CAP_NET_BIND_SERVICE on rootlesskit binary, or choose a larger port number (>= 1024): listen tcp4 0.0.0.0:80: bind: permission denied.", "port 80 is one for root", "net.ipv4.ip_unprivileged_port_start=80"),
    (RUN + "rootlessport cannot expose privileged port 443, you can add 'net.ipv4.ip_unprivileged_port_start=443' to /etc/sysctl.conf (currently 1024), or choose a larger port number (>= 1024): listen tcp 0.0.0.0:443: bind: permission denied", "port 443", "start=443"),
    ('ERROR: failed to create cluster: running kind with rootless provider requires setting systemd property "Delegate=yes", see https://kind.sigs.k8s.io/docs/user/rootless/', "delegate all cgroup controllers", "Delegate=yes"),
    ("ERROR: failed to create cluster: running kind with rootless provider requires cgroup v2, see https://kind.sigs.k8s.io/docs/user/rootless/", "cgroup v1", "systemd.unified_cgroup_hierarchy=1"),
    (INIT + 'err="failed to validate kubelet configuration, error: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release"', "cgroup v1", "docker info"),
    (RUN + "Ports are not available: exposing port TCP 0.0.0.0:80 -> 127.0.0.1:0: listen tcp 0.0.0.0:80: bind: An attempt was made to access a socket in a way forbidden by its access permissions.", "Windows has reserved", "excludedportrange"),
    (RUN + "Ports are not available: exposing port TCP 0.0.0.0:8080 -> 127.0.0.1:0: listen tcp 0.0.0.0:8080: bind: address already in use", "Docker Desktop can't open port", "lsof"),
    (RUN + "driver failed programming external connectivity on endpoint t (4b4): Bind for 0.0.0.0:7001 failed: port is already allocated.", "a port is taken: something else has port 7001", "sport = :7001"),
    (RUN + "failed to set up container networking: driver failed programming external connectivity on endpoint t: failed to bind host port for 127.0.0.1:6443:172.18.0.2:6443/tcp: address already in use", "a port is taken", "apiServerPort"),
    (RUN + "Error starting userland proxy: listen tcp4 127.0.0.1:6443: bind: address already in use.", "port 6443", "sport = :6443"),
    (RUN + "mkdir /var/lib/docker/overlay2/x: no space left on device.", "the disk is full", "chapter 03"),
    (PULL + "failed to register layer: write /usr/bin/kubelet: no space left on device", "the disk is full", "docker system df"),
    (INIT + "kubeadm: signal: killed", "not enough memory", "4 GiB"),
    (INIT + "fork/exec /usr/bin/crictl: cannot allocate memory", "not enough memory", "free -h"),
    (PULL + "Error response from daemon: toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit", "rate limit", "docker login"),
    (PULL + "Error response from daemon: manifest for kindest/node:v1 not found: manifest unknown: manifest unknown", "node image kindest/node:v1 does not exist", "docker pull kindest/node:v1"),
    (PULL + "Error response from daemon: pull access denied for kindest/nod, repository does not exist or may require 'docker login'", "does not exist", "name and tag"),
    (PULL + "Error response from daemon: Head \"https://registry.example.org/v2/\": unauthorized: authentication required", "name and a password", "docker login"),
    (PULL + 'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host', "was not reached", "docker pull kindest/node:v1"),
    (PULL + 'Error response from daemon: Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout', "was not reached", "proxy"),
    (PULL + 'Error response from daemon: Get "https://registry-1.docker.io/v2/": x509: certificate signed by unknown authority', "certificate is not trusted", "certificate"),
    (PULL + "no matching manifest for linux/riscv64 in the manifest list entries", "this machine's processor", "uname -m"),
    (INIT + "exec /usr/local/bin/entrypoint: exec format error", "this machine's processor", "{{.Architecture}}"),
    (INIT + "[ERROR SystemVerification]: unsupported kernel release: 3.10.0-1160.el7.x86_64", "kernel is too old", "uname -r"),
    (RUN + "iptables v1.8.7 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)", "modules for iptables", "modprobe"),
    (RUN + "driver failed programming external connectivity on endpoint t: (iptables failed: iptables --wait -t nat -A DOCKER: iptables: No chain/target/match by that name.)", "rules in the firewall", "systemctl restart docker"),
    (INIT + '"Failed to start ContainerManager" err="failed to get rootfs info: failed to get device for dir \\"/var/lib/kubelet\\": could not find device with major: 0, minor: 40 in cached partitions map"', "Btrfs", "extraMounts"),
    (INIT + "stat failed on /dev/nvme0n1p3 with error: no such file or directory", "Btrfs", "ext4"),
    (INIT + "failed to mount overlay: invalid argument", "overlays", "ext4"),
    ("ERROR: command \"docker save -o /tmp/images-tar2/images.tar x\" failed\nCommand Output: failed to save image: open /tmp/images-tar2/images.tar: no such file or directory", "snap", "TMPDIR"),
    (RUN + "error gathering device information while adding custom device \"/dev/dma_heap\": open /dev/dma_heap: permission denied", "SELinux", "ausearch"),
    ("ERROR: failed to create cluster: failed to ensure docker network: Error response from daemon: could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network", "range of addresses", "docker network"),
    (RUN + "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode.", "userns-remap", "daemon.json"),
    (RUN + "Mounts denied: \nThe path /data is not shared from the host and is not known to Docker.", "hostPath", "File sharing"),
    ("ERROR: failed to create cluster: could not find a log line that matches \"Reached target .*Multi-User System.*|detected cgroup v1\"", "systemd did not start", "fs.inotify"),
    (INIT + "[kubelet-check] The kubelet is not healthy after 4m0.000478703s\nerror execution phase wait-control-plane", "control plane did not start", "--retain"),
    (RUN + "driver failed programming external connectivity on endpoint t: Error starting userland proxy: listen tcp4 10.1.2.3:80: bind: cannot assign requested address.", "not an address of this machine", "ip -brief address"),
    (RUN + "ports are not available: exposing port TCP 0.0.0.0:4505 -> 127.0.0.1:0: listen tcp4 0.0.0.0:4505: bind: Only one usage of each socket address (protocol/network address/port) is normally permitted.", "Docker Desktop can't open port 4505", ":4505"),
    (RUN + "OCI runtime error: crun: the requested cgroup controller `cpu` is not available", "delegate all cgroup controllers", "Delegate=yes"),
    (RUN + "cgroups: cgroup mountpoint does not exist: unknown.", "cgroup v1", "docker info"),
    (RUN + "something new happened.", "", "read what kind says"),
    ('ERROR: failed to create cluster: node(s) already exist for a cluster with the name "t"', "was there already", "another name"),
    ("ERROR: failed to create cluster: something new", "", "read what kind says"),
    ("ERROR: failed to get cluster: the pull request says: ImagePullPolicy", "", "read what kind says"),
]  # fmt: skip
PROGRESS = (
    'Creating cluster "t" ...\n • Ensuring node image (kindest/node:v1) 🖼  ...\n ✓ Ensuring node image, no pull 🖼\n'
)


@unit
@pytest.mark.parametrize(
    ("output", "why", "remedy"), FAILURES, ids=[f"{i}-{why[:30]}" for i, (_, why, _) in enumerate(FAILURES)]
)
def test_a_failure_has_its_own_reason_and_a_remedy(output: str, why: str, remedy: str) -> None:
    reason, advice = kind_failures.explain(PROGRESS + output)
    assert why in reason and (bool(why) == bool(reason)) and remedy in advice
    assert "{" not in reason and "PORT" not in advice and "larger VM" not in advice


@unit
def test_words_of_the_progress_are_no_reason() -> None:
    said = (
        " ✓ Ensuring node image: failed to pull image, no space left on device\nERROR: failed to create cluster: other"
    )
    assert kind_failures.explain(said)[0] == ""


KIND = """#!/bin/sh
case "$1" in
  get) cat "$STATE/clusters" ;;
  create) cat >"$STATE/config"; echo t >"$STATE/clusters"; cat "$STATE/says"; sleep "$(cat "$STATE/sleeps")"; exit 1 ;;
  delete) : >"$STATE/clusters"; echo "$@" >>"$STATE/deleted" ;;
esac
"""


@pytest.fixture
def cluster(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> kind.Cluster:
    """Give a cluster whose kind leaves a half-made one, prints the file `says`, and ends after `sleeps` seconds, failed."""
    state, programs = sandbox / "kind", sandbox / "bin"
    state.mkdir()
    programs.mkdir()
    for name, text in {"clusters": "", "says": "ERROR: no", "sleeps": "0"}.items():
        (state / name).write_text(text)
    script = KIND.replace("$STATE", str(state))
    for name, text in {"kind": script, "docker": "#!/bin/sh\nexit 0\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr("helpers.airgap.supply", lambda *_: None)
    path = sandbox / "cluster.yaml"
    path.write_text("{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4, name: t}")
    made = kind.Cluster(Target.open("host"), path)
    made.__dict__["_kind"] = str(programs / "kind")
    return made


def _state(sandbox: Path, name: str) -> str:
    path = sandbox / "kind" / name
    return path.read_text() if path.exists() else ""


@unit
def test_a_creation_that_fails_leaves_nothing_half_made(cluster: kind.Cluster, sandbox: Path) -> None:
    (sandbox / "kind" / "says").write_text(RUN + "no space left on device")
    with pytest.raises(TutorialError, match="kind could not create the cluster") as error:
        cluster.create()
    assert error.value.why == "the disk is full"
    assert _state(sandbox, "clusters") == "" and "--name t" in _state(sandbox, "deleted")
    assert "tutorial-configuration" in _state(sandbox, "config"), "it was made with its mark"


@unit
def test_a_creation_that_takes_too_long_leaves_nothing_half_made(
    cluster: kind.Cluster, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sandbox / "kind" / "sleeps").write_text("30")
    monkeypatch.setattr(kind, "_CREATE_SECONDS", 1)
    with pytest.raises(TutorialError):
        cluster.create()
    assert _state(sandbox, "clusters") == ""


@unit
def test_a_cluster_that_somebody_else_makes_meanwhile_is_left_alone(cluster: kind.Cluster, sandbox: Path) -> None:
    (sandbox / "kind" / "says").write_text(
        'ERROR: failed to create cluster: node(s) already exist for a cluster with the name "t"'
    )
    with pytest.raises(TutorialError) as error:
        cluster.create()
    assert "was there already" in error.value.why
    assert _state(sandbox, "deleted") == "" and _state(sandbox, "clusters") == "t\n"


@unit
def test_a_node_that_names_its_image_keeps_it(cluster: kind.Cluster, sandbox: Path) -> None:
    text = "{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4, name: t, nodes: [{image: own:1}, {role: worker}]}"
    cluster.path.write_text(text)
    again = kind.Cluster(cluster.target, cluster.path)
    again.__dict__["_kind"] = cluster.__dict__["_kind"]
    with pytest.raises(TutorialError):
        again.create()
    assert "image: own:1" in _state(sandbox, "config") and f"image: {kind.NODE_IMAGE}" in _state(sandbox, "config")


@unit
def test_two_nodes_that_want_one_port_are_named_before_anything_is_made(cluster: kind.Cluster, sandbox: Path) -> None:
    mapped = "{extraPortMappings: [{hostPort: 65001}]}"
    cluster.path.write_text(
        f"{{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4, name: t, nodes: [{mapped}, {mapped}]}}"
    )
    again = kind.Cluster(cluster.target, cluster.path)
    again.__dict__["_kind"] = cluster.__dict__["_kind"]
    with pytest.raises(TutorialError, match="maps a port twice"):
        again.create()
    assert _state(sandbox, "config") == ""
