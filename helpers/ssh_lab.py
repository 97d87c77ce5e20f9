"""Chapter 01's machine: a sandbox server on the target `local`, the reader's own VM on every other one."""

import hashlib
import socket
from collections.abc import Mapping
from pathlib import Path

from helpers import display, processes, ssh
from helpers.errors import TutorialError
from helpers.processes import PYTHON
from helpers.target_local import run_here
from helpers.target_ssh import SshTarget


def endpoint(target: str, hostname: str = "", user: str = "", identity_file: str = ssh.KEY) -> ssh.Endpoint:
    """Give the machine of chapter 01; on `local` start the server that plays it, unless it runs.

    Args:
        target: The target's name.
        hostname: The VM's name or address; on `local` it is the sandbox's.
        user: The user there.
        identity_file: The private key.

    Returns:
        Where to connect, and whose configuration to write.

    Raises:
        TutorialError: A parameter is missing or not valid, or the server did not start.
    """
    if target == "local":
        return _sandbox()
    key = ssh.check_key(Path(identity_file))
    return ssh.Endpoint(Path.home(), ssh.check_host_name(hostname), 22, ssh.check_user(user), key, {}, False)


def _sandbox() -> ssh.Endpoint:
    folder = ssh.sandbox_folder()
    home, vm = folder / "laptop", folder / "ubuntu"
    vm.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ssh.make_key(home / ".ssh" / "local-cpouta.pem")
    host_key, authorized = ssh.make_key(folder / "host_key"), folder / "authorized_keys"
    processes.write_atomically(authorized, Path(f"{key}.pub").read_text(encoding="utf-8"), 0o600)
    server = processes.find("sshd")
    if server is None:
        port = processes.free_port()
        argv = [PYTHON, "-m", "helpers.ssh_server", "--port", str(port), "--home", str(vm)]
        argv += ["--host-key", str(host_key), "--authorized-keys", str(authorized)]
        server = processes.start("sshd", argv, ready=lambda: _says_ssh(port), ports={"ssh": port})
    port = server.ports["ssh"]
    known = home / ".ssh" / "known_hosts"
    public = Path(f"{host_key}.pub").read_text(encoding="utf-8").split()
    processes.write_atomically(known, f"[127.0.0.1]:{port} {public[0]} {public[1]}\n", 0o600)
    options = {"UserKnownHostsFile": f'"{known}"', "StrictHostKeyChecking": "yes"}
    return ssh.Endpoint(home, "127.0.0.1", port, "ubuntu", key, options, True)


def _says_ssh(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        return connection.recv(4) == b"SSH-"


def round_trip(target: SshTarget, folder: Path, size: int = 100_000) -> bool:
    """Copy a file there and back.

    Args:
        target: The machine.
        folder: A folder here for both copies.
        size: Bytes of the file.

    Returns:
        Whether the SHA-256 of what came back is that of what went.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sent, back = folder / "sent.bin", folder / "back.bin"
    sent.write_bytes(hashlib.sha256(b"tutorial").digest() * (size // 32))
    target.put(sent, "tutorial-copy.bin")
    target.get("tutorial-copy.bin", back)
    target.run(["rm", "tutorial-copy.bin"])
    same = hashlib.sha256(sent.read_bytes()).digest() == hashlib.sha256(back.read_bytes()).digest()
    sent.unlink()
    back.unlink()
    return same


def banner_through_tunnel(target: SshTarget, port: int) -> bytes:
    """Open a tunnel to the machine's own SSH port, and read through it what the server says first.

    Args:
        target: The machine.
        port: A port on its loopback address where a server speaks first.

    Returns:
        The first bytes: `SSH-` for an SSH server (RFC 4253, section 4.2).
    """
    with target.tunnel(port) as local, socket.create_connection(("127.0.0.1", local), 5) as connection:
        return connection.recv(4)


def provoke(place: ssh.Endpoint) -> list[Mapping[str, object]]:
    """Provoke the four classic errors with the real ssh, and say what each means.

    Args:
        place: A machine that answers.

    Returns:
        A row an error: what was done, what ssh said, what it means, what to do.
    """
    config, alias = str(place.config.config), ssh.ALIASES[0]
    wrong_key = ssh.make_key(ssh.sandbox_folder() / "wrong" / "key")
    changed = ssh.sandbox_folder() / "wrong" / "known_hosts"
    public = Path(f"{wrong_key}.pub").read_text(encoding="utf-8").split()
    name = f"[{place.hostname}]:{place.port}" if place.port != 22 else place.hostname
    processes.write_atomically(changed, f"{name} {public[0]} {public[1]}\n", 0o600)
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        cases = {
            "nothing listens on the port": ["-o", "HostName=127.0.0.1", "-o", f"Port={processes.free_port()}"],
            "a machine that never answers": ["-o", "HostName=127.0.0.1", "-o", f"Port={silent.getsockname()[1]}"],
            "another key": ["-o", "IdentityFile=none", "-i", str(wrong_key), "-o", "IdentityAgent=none"],
            "the machine was replaced": ["-o", f"UserKnownHostsFile={changed}"],
        }
        rows: list[Mapping[str, object]] = []
        for what, options in cases.items():
            argv = ["ssh", *options, "-F", config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", alias, "true"]
            if what == "another key":  # the block's own key must not help: connect past the configuration
                argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(wrong_key)]
                argv += ["-o", "IdentityAgent=none", "-p", str(place.port)]
                argv += ["-o", f"UserKnownHostsFile={place.home / '.ssh' / 'known_hosts'}"]
                argv += [f"{place.user}@{place.hostname}", "true"]
            done = run_here(argv, check=False, timeout=20)
            if done.returncode == 0:
                raise TutorialError(f"{what}: ssh connected all the same", "", "see `ssh -v`")
            meaning, remedy = ssh.explain(done.stderr)
            rows.append({"provoked": what, "it means": meaning, "what to do": remedy})
    return rows


def show_change(place: ssh.Endpoint) -> None:
    """Show, on the target `local`, what would change in the reader's own configuration: a plan, nothing is written."""
    if place.sandbox:
        blocks = [ssh.HostBlock(b.alias, "FLOATING-IP", b.user) for b in place.blocks()]
        texts = ['Include "~/.ssh/tutorial.conf"     # first line of ~/.ssh/config', *(b.text() for b in blocks)]
        display.plan("your own ~/.ssh", texts, "set target, hostname and user in the parameters cell to make it real")
