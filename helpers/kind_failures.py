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
_PORT = re.compile(r"privileged port (\d+)|(?:\d+\.\d+\.\d+\.\d+|\]|::\d?):(\d+)")
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
    Reason(r"cannot expose privileged port|listen [^\n]*bind: permission denied",
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
    Reason(r"(?i)ports are not available",
           "a port is taken: Docker Desktop can't open port {port}, which another program of your computer has",
           "end that program (on macOS, sudo lsof -i :{port} shows it; on Windows, netstat -ano), or change hostPort "
           "in the configuration"),
    Reason(r"port is already allocated|address already in use",
           "a port is taken: something else has port {port}", _FREE + "configuration"),
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
    Reason(r"(?s)failed to pull image .*(?:not found|manifest unknown|does not exist|invalid reference)",
           "the node image {image} does not exist in its registry",
           "correct the image's name and tag in the configuration; docker pull {image} tells more"),
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
    Reason(r"(?i)selinux|avc: +denied|/dev/dma_heap: permission denied",
           "SELinux forbids what the node needs",
           "sudo ausearch -m avc -ts recent shows what; sudo setenforce 0 shows whether that was the cause, until the "
           "machine restarts"),
    Reason(r"(?i)apparmor[^\n]*(?:denied|failed|unable)", "AppArmor forbids what the node needs, or is not complete",
           "sudo dmesg | grep -i apparmor shows what; sudo systemctl restart apparmor docker"),
    Reason(r"(?i)could not find an available.{0,40}address pool|all predefined address pools",
           "Docker has no free range of addresses left for kind's network",
           "docker network ls lists the networks; docker network rm NAME removes one that nothing uses"),
    Reason(r"incompatible with user namespaces|when user namespaces are enabled",
           "Docker's user namespaces (userns-remap) don't fit kind's privileged nodes",
           'remove "userns-remap" from /etc/docker/daemon.json, then: sudo systemctl restart docker'),
    Reason(r"(?i)mounts denied|is not shared from the host|bind source path does not exist",
           "a hostPath of extraMounts is not there, or Docker Desktop does not share it",
           "make that folder, or share it in Docker Desktop: Settings, Resources, File sharing"),
    Reason(r"nf_conntrack_max: permission denied",
           "kube-proxy may not change the kernel's settings here, as in an LXC container",
           "run kind in a virtual machine, or set conntrack: {{maxPerCore: 0}} in a KubeProxyConfiguration"),
    Reason(r"x86-64-v2|Fatal glibc error", "this processor (or the VM's model of it) is too old for the node image",
           "set the VM's processor model to host"),
    Reason(r"permission denied while trying to connect", "you may not speak to Docker's engine",
           "sudo usermod -aG docker $USER, then log in again (chapter 03)"),
    Reason(r"(?i)cannot connect to the docker daemon|cannot connect to podman",
           "no engine answers", "sudo systemctl start docker, then run the cell again"),
    Reason(r"could not find a log line that matches",
           "systemd did not start in the node: often the limits of inotify are too low, or cgroups are not as it needs",
           f"{_INOTIFY}; then run the cell again. If it fails again: {_LOGS}"),
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
            numbers = [first or second for first, second in _PORT.findall(line)]
            image = _IMAGE.search(text)
            names = {"port": numbers[-1] if numbers else "PORT", "image": image[1] if image else "IMAGE"}
            return reason.why.format(**names), reason.remedy.format(**names)
    return "", "read what kind says; run the cell again"
