"""Why kind could not create a cluster, and what to do: read from what kind, Docker and kubeadm printed.

Sources: https://kind.sigs.k8s.io/docs/user/known-issues/, https://kind.sigs.k8s.io/docs/user/rootless/ and the issues
of kind, Docker Desktop and rootlesskit.
"""

import re
from typing import NamedTuple

EXISTS = "already exist for a cluster with the name"  # somebody else's: nothing of it may be deleted


class Reason(NamedTuple):
    """A failure that is known.

    Attributes:
        sign: What is found in the output.
        why: What that means. `{port}` and `{image}` stand for those that the output names.
        remedy: What the reader can do.
    """

    sign: str
    why: str
    remedy: str


_INOTIFY = "sudo sysctl -w fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512"
# The port of the machine. A line may also name the node's port, and Docker Desktop's `0.0.0.0:0`.
_PORT = re.compile(r"(?:privileged port|Failed to bind port|host port(?: for)?|listen \w+|Bind for|exposing port \w+) "
                   r"(?:\S*?:(?=[1-9]\d*(?:[:/ ,.]|$)))?([1-9]\d*)\b", re.MULTILINE)  # fmt: skip
_IMAGE = re.compile(r'failed to pull image "([^"]+)"')
_FREE = "sudo ss -ltnp 'sport = :{port}' shows that program; end it, or change hostPort or apiServerPort {port} in the "
_LOGS = (
    "kind create cluster --retain keeps the node; docker logs NODE and docker exec NODE journalctl -u kubelet show why"
)
# In the order in which they are looked for: the particular ones first.
REASONS = (
    Reason(EXISTS, "a cluster of that name was there already, or another kind makes one now",
           "wait until the other one is ready and run the cell again, or choose another name in the configuration"),
    Reason(r"(?i)inotify[^\n]*(?:too many open files|no space left)|too many open files",
           "the limits of inotify are too low for the node's systemd and kubelet",
           f"raise them: {_INOTIFY}; two lines in /etc/sysctl.d/ keep them"),
    Reason(r"failed to lock config file: [^\n]*file exists",
           "another program changes the file of kubectl's clusters, or one that did was ended",
           "wait until no other kind or kubectl runs, then: rm -f ~/.kube/config.lock, and run the cell again"),
    Reason(r"failed to (?:lock config file|write KUBECONFIG|create directory for KUBECONFIG)",
           "you may not write to the folder of kubectl's clusters, ~/.kube",
           "ls -ld ~/.kube ~/.kube/config shows whose they are; where they are root's: sudo chown -R $USER ~/.kube"),
    Reason(r"failed to get kubeconfig to merge|error reading config: ",
           "kubectl's own configuration, ~/.kube/config, can't be read",
           "kubectl config view names the place in it; correct it, or move the file to another name"),
    Reason(r"cannot expose privileged port|listen [^\n]*bind: permission denied|bind port \d+ \(Permission denied\)",
           "Docker or Podman runs without root rights, and port {port} is one for root only",
           "allow it: sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}, or take a hostPort from 1024 on"),
    Reason(r"Delegate=yes|cgroup controllers? \S+ is not (?:available|delegated)",
           "Docker runs without root rights, and systemd does not delegate all cgroup controllers to it",
           "write [Service] and Delegate=yes into /etc/systemd/system/user@.service.d/delegate.conf, then: sudo "
           "systemctl daemon-reload; log out and in again"),
    Reason(r"requires cgroup v2|not run on a host using cgroup v1|cgroup v1 support is unsupported"
           r"|ERROR SystemVerification\]: [^\n]*cgroups? v1|cgroup mountpoint does not exist",
           "this machine uses cgroup v1, which this Kubernetes, or Docker without root rights, does not take",
           "use a system with cgroup v2 (Ubuntu from 22.04, Debian from 11), or start the kernel with "
           "systemd.unified_cgroup_hierarchy=1; docker info shows the version"),
    Reason(r"forbidden by its access permissions",
           "Windows has reserved the port, so Docker Desktop can't open it",
           "netsh interface ipv4 show excludedportrange protocol=tcp lists such ports; change hostPort in the "
           "configuration to another one"),
    Reason(r"vmnetd", "Docker Desktop's helper for ports below 1024, vmnetd, does not run",
           "allow privileged ports in Docker Desktop (Settings, Advanced) and restart it, or take a hostPort from 1024 "
           "on"),
    Reason(r"(?i)ports are not available",
           "a port is taken: Docker Desktop can't open port {port}, which another program of your computer has",
           "end that program (on macOS, sudo lsof -i :{port} shows it; on Windows, netstat -ano), or change hostPort "
           "in the configuration"),
    Reason(r"(?i)port is already allocated|address already in use",
           "a port is taken: something else has port {port}", _FREE + "configuration"),
    Reason(r"(?i)the container name [^\n]*is already in use",
           "a container has the name of the cluster's node, left from a cluster that was not deleted",
           "docker ps -a shows it; docker rm -f -v NAME removes it with its data, or choose another name in the "
           "configuration"),
    Reason(r"cannot assign requested address",
           "a listenAddress (or apiServerAddress) is not an address of this machine",
           "ip -brief address lists the addresses; correct it in the configuration, or leave it out"),
    Reason(r"(?i)disk quota exceeded|no space left on device|disk-pressure|not enough space",
           "the disk is full", "docker system df shows what Docker holds; free some, or move Docker's data to a volume "
           "(chapter 03)"),
    Reason(r"(?i)signal: killed|cannot allocate memory|out of memory|OOMKilled|exit status 137|oom-kill",
           "there was not enough memory, so Linux ended a process of the cluster",
           "free -h shows what is free; end other programs, or use a machine with 4 GiB or more (on Docker Desktop: "
           "Settings, Resources)"),
    Reason(r"(?i)toomanyrequests|pull rate limit|429 too many requests",
           "the node image can't be pulled: Docker Hub's rate limit is reached for this address",
           "docker login gives you a larger limit; or wait six hours, and run the cell again"),
    Reason(r"(?i)no matching manifest for |exec format error|does not match the detected host platform",
           "the node image is not made for this machine's processor",
           "docker image inspect -f '{{{{.Architecture}}}}' IMAGE and uname -m must agree; remove the image and "
           "let kind pull the right one"),
    Reason(r"(?is)failed to pull image .*(?:unauthorized|authentication required|no basic auth)",
           "the node image can't be pulled: its registry wants a name and a password",
           "docker login REGISTRY, then run the cell again"),
    Reason(r"(?s)failed to pull image .*(?:error getting credentials|docker-credential-)",
           "the node image can't be pulled: the program that keeps Docker's passwords fails, or is not there",
           "remove credsStore and credHelpers from ~/.docker/config.json, then docker login if you have an account"),
    Reason(r"(?s)failed to pull image .*(?:not found|manifest unknown|does not exist|invalid reference)",
           "the node image {image} does not exist in its registry",
           "correct the image's name and tag in the configuration; docker pull {image} tells more"),
    Reason(r"(?is)failed to pull image .*(?:\bdenied\b|forbidden)",
           "the node image {image} can't be pulled: its registry refuses this user",
           "docker logout REGISTRY, then docker login REGISTRY with an account that may read it; docker pull {image}"),
    Reason(r"(?s)failed to pull image .*server gave HTTP response to HTTPS client",
           "the node image {image} can't be pulled: its registry speaks plain HTTP, and Docker wants TLS",
           'add the registry to "insecure-registries" in /etc/docker/daemon.json, then: sudo systemctl restart docker'),
    Reason(r"(?s)failed to pull image .*(?:HTTP status: 5\d\d|50\d (?:Internal|Bad|Service|Gateway))",
           "the node image {image} can't be pulled: its registry answers with an error of its own",
           "run the cell again in some minutes; docker pull {image} tells more"),
    Reason(r"(?s)failed to pull image .*x509:",
           "the node image {image} can't be pulled: the registry's certificate is not trusted, as behind some proxies",
           "add your organisation's certificate to this machine, restart Docker, then: docker pull {image}"),
    Reason(r"failed to pull image",
           "the node image {image} can't be pulled: its registry was not reached",
           "docker pull {image} tells why; behind a proxy, Docker's own service needs its address (chapter 03)"),
    Reason(r"unsupported kernel release|kernel .{0,20}too old|requires kernel version",
           "this machine's kernel is too old for this version of Kubernetes",
           "uname -r shows it; use a system with Linux 4.19 or newer"),
    Reason(r"(?i)can't initialize ip6?tables|ip6?tables[^\n]*(?:need to insmod|table does not exist)",
           "the kernel's modules for iptables are missing or not loaded",
           "sudo modprobe -a ip_tables iptable_nat ip6_tables ip6table_nat br_netfilter; after a kernel update, "
           "restart the machine first"),
    Reason(r"(?i)No chain/target/match by that name|Unable to enable [\w ]+ rule|ip6?tables failed",
           "Docker's rules in the firewall are gone, as after a restart of firewalld or a flush of iptables",
           "sudo systemctl restart docker, then run the cell again"),
    Reason(r"cached partitions map|failed to get rootfs info|stat failed on /dev/",
           "Docker's data are on Btrfs, ZFS or an encrypted disk, and the kubelet does not find that disk in its node",
           "move Docker's data to an ext4 or XFS volume (chapter 03), or mount the device into the node by extraMounts "
           "(kind's page of known issues)"),
    Reason(r"(?i)failed to mount overlay|overlay[^\n]*(?:invalid argument|not supported)|error creating overlay mount",
           "the file system below Docker's data can't hold overlays",
           "move Docker's data to an ext4 or XFS volume (chapter 03)"),
    Reason(r"/var/snap/docker|snap\.docker|docker save[^\n]*/tmp/[^\n]*no such file|open /tmp/[^\n]*no such file",
           "Docker is installed as a snap, which sees another /tmp than kind",
           "install Docker from Docker's own packages (chapter 03), or: mkdir -p ~/tmp && export TMPDIR=~/tmp"),
    Reason(r"(?i)(?<![+-])\bselinux\b|avc: +denied|/dev/dma_heap: permission denied",
           "SELinux forbids what the node needs",
           "sudo ausearch -m avc -ts recent shows what; sudo setenforce 0 shows whether that was the cause, until the "
           "machine restarts"),
    Reason(r"(?i)apparmor[^\n]*(?:denied|failed|unable)", "AppArmor forbids what the node needs, or is not complete",
           "sudo dmesg | grep -i apparmor shows what; sudo systemctl restart apparmor docker"),
    Reason(r"(?i)could not find an available.{0,40}address pool|all predefined address pools|pool overlaps with other",
           "Docker has no free range of addresses left for kind's network",
           "docker network ls lists the networks; docker network rm NAME removes one that nothing uses"),
    Reason(r"cannot read IPv6 setup for bridge|conf/[\w-]+/disable_ipv6: no such file",
           "the kernel has no IPv6, and kind's network has IPv6 addresses, too",
           "take ipv6.disable=1 from the kernel's parameters and restart; or: docker network create kind"),
    Reason(r"network (?:kind|[0-9a-f]{12,}) not found", "kind's network in Docker is gone, or was made anew",
           "docker network rm kind, then run the cell again: kind makes it"),
    Reason(r"(?:unable|failed) to execute nft|netavark: iptables: No such file",
           "Podman needs the program nft (or iptables), which is missing", "sudo dnf install nftables iptables, or: "
           "sudo apt install nftables iptables"),
    Reason(r"incompatible with user namespaces|when user namespaces are enabled",
           "Docker's user namespaces (userns-remap) don't fit kind's privileged nodes",
           'remove "userns-remap" from /etc/docker/daemon.json, then: sudo systemctl restart docker'),
    Reason(r"(?i)mounts denied|is not shared from the host|error while creating mount source path"
           r"|bind source path does not exist",
           "a hostPath of extraMounts is not there, or Docker Desktop does not share it",
           "make that folder, or share it in Docker Desktop: Settings, Resources, File sharing"),
    Reason(r"nf_conntrack_max: permission denied",
           "kube-proxy may not change the kernel's settings here, as in an LXC container",
           "run kind in a virtual machine, or set conntrack: {{maxPerCore: 0}} in a KubeProxyConfiguration"),
    Reason(r"x86-64-v2|Fatal glibc error", "this processor (or the VM's model of it) is too old for the node image",
           "set the VM's processor model to host"),
    Reason(r"permission denied while trying to connect", "you may not speak to Docker's engine",
           "sudo usermod -aG docker $USER, then log in again (chapter 03)"),
    Reason(r"(?i)client version [^\n]* is too (?:new|old)", "Docker's client and its engine do not fit together",
           "update the older of the two: docker version shows both"),
    Reason(r"(?i)cannot connect to (?:the docker daemon|podman)|failed to connect to the docker api"
           r"|error during connect",
           "no engine answers", "sudo systemctl start docker, then run the cell again"),
    Reason(r"missing required cgroups",
           "the kernel runs without a cgroup controller that the kubelet needs, as on a Raspberry Pi",
           "cat /sys/fs/cgroup/cgroup.controllers lists them; for memory, add cgroup_enable=memory to the kernel's "
           "parameters and restart"),
    Reason(r"error mounting \\?\"cgroup|unable to apply cgroup configuration",
           "Docker can't set up the cgroups of a container on this machine",
           "sudo systemctl restart docker; docker info shows the cgroup driver and version; without systemd, mount "
           "cgroup2 at /sys/fs/cgroup"),
    Reason(r"(?i)read-only file system", "Docker's data, or a folder that kind needs, are on a file system that is "
           "read-only, as after an error of the disk",
           "sudo dmesg | grep -i 'remount\\|error' shows why; docker info -f '{{{{.DockerRootDir}}}}' shows where"),
    Reason(r"could not find a log line that matches",
           "systemd did not start in the node: often the limits of inotify are too low, or cgroups are not as it needs",
           f"{_INOTIFY}; then run the cell again. If it fails again: {_LOGS}"),
    Reason(r"[Cc]ontainer \S+ is not running|OCI runtime exec failed",
           "the node's container ended again at once",
           f"often the limits of inotify are too low: {_INOTIFY}; {_LOGS}"),
    Reason(r"failed to join node with kubeadm",
           "a worker did not join: mostly its kubelet did not start, as where the limits of inotify or the memory are "
           "too low for several nodes",
           f"{_INOTIFY}; free -h shows whether memory is short; {_LOGS}"),
    Reason(r"connection to the server [^\n]*:6443 was refused|etcdserver: request timed out",
           "the cluster's API went away again: mostly memory or the disk is short, or too slow",
           f"free -h and docker system df show what is left; {_LOGS}"),
    Reason(r"kubelet (?:is not|isn't) (?:running or )?healthy|failed to init node with kubeadm|wait-control-plane",
           "the control plane did not start in its node",
           f"free -h shows whether memory is short; {_LOGS}"),
    Reason(r"enabling experimental podman provider", "kind used Podman in place of Docker, and that failed",
           "unset KIND_EXPERIMENTAL_PROVIDER, and start Docker; or read kind's page on rootless Podman"),
)  # fmt: skip


def explain(output: str) -> tuple[str, str]:
    """Find the reason for a failure.

    Args:
        output: What kind printed, its progress included. Where it printed an error, only that is looked at: lines of
            progress say `pull` and `image`, too.

    Returns:
        Why it failed, and the remedy. An unknown failure has an empty reason.
    """
    _, found, error = output.partition("ERROR:")
    lines = [line for line in (error if found else output).splitlines() if not re.match(r"\s*[•✓✗]", line)]
    # The words of the command that failed (`--security-opt apparmor=unconfined`) are no part of what it said.
    text = re.sub(r'command "(?:[^"\\]|\\.)*" failed', "command failed", "\n".join(lines))
    for reason in REASONS:
        if match := re.search(reason.sign, text):
            line = text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            numbers = _PORT.findall(line)
            image = _IMAGE.search(text)
            names = {"port": numbers[0] if numbers else "PORT", "image": image[1] if image else "IMAGE"}
            return reason.why.format(**names), reason.remedy.format(**names)
    return "", "read what kind says; run the cell again"
