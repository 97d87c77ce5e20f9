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
    (RUN + "failed to set up container networking: driver failed programming external connectivity on endpoint t: failed to bind host port for 0.0.0.0:8080:172.18.0.2:80/tcp: address already in use", "something else has port 8080", "sport = :8080"),
    (RUN + "driver failed programming external connectivity on endpoint t: failed to bind host port 0.0.0.0:8080/tcp: address already in use", "something else has port 8080", "sport = :8080"),
    (RUN + "Bind for :::80 failed: port is already allocated.", "something else has port 80", "sport = :80'"),
    (RUN + "Error starting userland proxy: listen tcp6 [::]:8443: bind: address already in use.", "something else has port 8443", "sport = :8443"),
    (RUN + "cannot listen on the TCP port: listen tcp4 :80: bind: address already in use", "something else has port 80", "sport = :80'"),
    (RUN + "pasta failed with exit code 1:\nFailed to bind port 80 (Permission denied) for option '-t 80-80:80-80', exiting", "port 80 is one for root", "start=80"),
    (RUN + "ports are not available: exposing port TCP 0.0.0.0:8080 -> 0.0.0.0:0: /forwards/expose returned unexpected status: 500", "can't open port 8080", ":8080"),
    (RUN + "Ports are not available: exposing port TCP 0.0.0.0:80 -> 0.0.0.0:0: failed to connect to /var/run/com.docker.vmnetd.sock: is vmnetd running?", "vmnetd", "Settings"),
    (RUN + 'Conflict. The container name "/t-control-plane" is already in use by container "0a1".', "has the name of the cluster's node", "docker ps -a"),
    (RUN + "network kind not found.", "kind's network", "docker network rm kind"),
    (RUN + "error while creating mount source path '/data': mkdir /data: read-only file system.", "hostPath", "that folder"),
    (RUN + "mkdir /var/lib/docker/overlay2/x-init: read-only file system", "read-only", "{{.DockerRootDir}}"),
    (RUN + "client version 1.52 is too new. Maximum supported API version is 1.41.", "do not fit together", "docker version"),
    (RUN + "netavark: nftables error: unable to execute nft: No such file or directory (os error 2)", "nft", "apt install nftables"),
    (RUN + 'error mounting "cgroup" to rootfs at "/sys/fs/cgroup": no such file or directory: unknown.', "can't set up the cgroups", "docker info"),
    ("ERROR: failed to create cluster: failed to lock config file: open /home/u/.kube/config.lock: file exists", "another program", "config.lock"),
    ("ERROR: failed to create cluster: failed to lock config file: open /home/u/.kube/config.lock: permission denied", "may not write", "chown"),
    ("ERROR: failed to create cluster: failed to get kubeconfig to merge: error reading config: yaml: line 3: mapping values are not allowed", "~/.kube/config, can't be read", "kubectl config view"),
    ('ERROR: failed to create cluster: failed to ensure docker network: command "docker network create kind" failed with error: exit status 1\nCommand Output: Error response from daemon: cannot read IPv6 setup for bridge br-1: open /proc/sys/net/ipv6/conf/br-1/disable_ipv6: no such file or directory', "no IPv6", "docker network create kind"),
    ('ERROR: failed to create cluster: failed to generate kubeadm config content: failed to get file: command "docker exec t-control-plane cat /kind/version" failed with error: exit status 1\nCommand Output: Error response from daemon: Container d2f7 is not running', "ended again", "docker logs"),
    ('ERROR: failed to create cluster: failed to join node with kubeadm: command "docker exec t-worker kubeadm join" failed with error: exit status 1\nCommand Output: [kubelet-check] It seems like the kubelet isn\'t running or healthy.', "a worker did not join", "fs.inotify"),
    ('ERROR: failed to create cluster: failed to remove control plane taint: command "docker exec t-control-plane kubectl taint nodes --all x-" failed with error: exit status 1\nCommand Output: The connection to the server t-control-plane:6443 was refused - did you specify the right host or port?', "API went away", "free -h"),
    ("ERROR: failed to create cluster: failed to list nodes: failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory", "no engine answers", "systemctl start docker"),
    (INIT + "[ERROR SystemVerification]: missing required cgroups: memory\nkubelet is not running", "cgroup controller", "cgroup_enable=memory"),
    (INIT + "systemd 252 running in system mode (+PAM +AUDIT +SELINUX +APPARMOR)\nkubelet is not running", "control plane did not start", "--retain"),
    (PULL + 'error getting credentials - err: exec: "docker-credential-desktop.exe": executable file not found in $PATH, out: ``', "keeps Docker's passwords", "credsStore"),
    (PULL + "Error response from daemon: denied: requested access to the resource is denied", "refuses this user", "docker login"),
    (PULL + 'Error response from daemon: Get "https://mirror.example.org:5000/v2/": http: server gave HTTP response to HTTPS client', "plain HTTP", "insecure-registries"),
    (PULL + 'Error response from daemon: Head "https://registry.example.org/v2/": received unexpected HTTP status: 503 Service Unavailable', "an error of its own", "some minutes"),
    ("ERROR: failed to create cluster: failed to apply overlay network: something new", "", "read what kind says"),
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
