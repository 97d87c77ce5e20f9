"""Chapter 01's machine: a server of our own on `local` and `host`, the VM stand-in on `vm`, else the reader's VM."""

import getpass
import hashlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from helpers import display, processes, ssh, vm
from helpers.errors import TutorialError
from helpers.processes import PYTHON
from helpers.shell import environment
from helpers.ssh_keys import is_unlocked
from helpers.target_local import run_here
from helpers.target_ssh import SshTarget


def endpoint(target: str, hostname: str = "", user: str = "", identity_file: str = ssh.KEY) -> ssh.Endpoint:
    """Give the machine of chapter 01; on `vm` make it, on `local` and `host` start the server that plays it.

    On these three the parameters don't count, and the Host blocks go into a home folder of the sandbox: the reader's
    `~/.ssh/config` may have a `Host cpouta` already, which leads elsewhere.

    Args:
        target: The target's name.
        hostname: The VM's name or address.
        user: The user there.
        identity_file: The private key, or the public half of one that an agent holds; empty: any key of the agent.

    Returns:
        Where to connect, and whose configuration to write.

    Raises:
        TutorialError: A parameter is missing or not valid, the VM can't be made, or the server did not start.
    """
    if target == "vm":
        return _stand_in()
    if target == "host":
        return _served_here(target, Path.home(), getpass.getuser())
    if target == "local":
        return _served_here(target, ssh.sandbox_folder(target) / "ubuntu", "ubuntu")
    home = Path.home()
    address, login = ssh.check_host_name(hostname), ssh.check_user(user)
    agent = ssh.SshConfig(home).agent(ssh.ALIASES[0])
    key = ssh.check_key(Path(identity_file), agent)
    return ssh.Endpoint(home, address, 22, login, key, {}, False, target, agent=agent)


def _laptop(target: str) -> Path:
    """Make the sandbox's home folder, with an SSH configuration as a reader may have one."""
    home = ssh.sandbox_folder(target) / "laptop"
    config = ssh.SshConfig(home).config
    if not config.exists():  # comment, CRLF, tab, no final line end
        processes.write_atomically(config, "# my own hosts\r\nHost *.example.org\r\n\tUser me", 0o600)
    return home


def _stand_in() -> ssh.Endpoint:
    """Give the VM stand-in: its port is forwarded to this machine's loopback address, its sshd listens on 22."""
    block = vm.host_block(vm.up())
    key = Path(block.identity_file)
    return ssh.Endpoint(
        _laptop("vm"), block.hostname, block.port, block.user, key, block.options, True, "vm", server_port=22
    )


def _served_here(target: str, served: Path, user: str) -> ssh.Endpoint:
    """Start a server of the sandbox's own for a folder of this machine, unless it runs; no sshd is needed."""
    folder, home = ssh.sandbox_folder(target), _laptop(target)
    served.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ssh.make_key(home / ".ssh" / "local-cpouta.pem")
    host_key, authorized = ssh.make_key(folder / "host_key"), folder / "authorized_keys"
    processes.write_atomically(authorized, Path(f"{key}.pub").read_text(encoding="utf-8"), 0o600)
    server = processes.find("sshd", target)
    if server is None:
        port = processes.free_port()
        argv = [PYTHON, "-m", "helpers.ssh_server", "--port", str(port), "--home", str(served)]
        argv += ["--host-key", str(host_key), "--authorized-keys", str(authorized)]
        server = processes.start("sshd", argv, ready=lambda: _says_ssh(port), ports={"ssh": port}, target=target)
    port = server.ports["ssh"]
    known = home / ".ssh" / "known_hosts"
    public = Path(f"{host_key}.pub").read_text(encoding="utf-8").split()
    processes.write_atomically(known, f"[127.0.0.1]:{port} {public[0]} {public[1]}\n", 0o600)
    options = {"UserKnownHostsFile": f'"{known}"', "StrictHostKeyChecking": "yes"}
    return ssh.Endpoint(home, "127.0.0.1", port, user, key, options, True, target)


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
    wrong_key = ssh.make_key(place.folder / "wrong" / "key")
    changed = place.folder / "wrong" / "known_hosts"
    public = Path(f"{wrong_key}.pub").read_text(encoding="utf-8").split()
    name = f"[{place.hostname}]:{place.port}" if place.port != 22 else place.hostname
    processes.write_atomically(changed, f"{name} {public[0]} {public[1]}\n", 0o600)
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        cases = {
            "nothing listens on the port": ["-o", "HostName=127.0.0.1", "-o", f"Port={processes.free_port()}"],
            "a machine that never answers": ["-o", "HostName=127.0.0.1", "-o", f"Port={silent.getsockname()[1]}"],
            "another key": [],
            "the machine was replaced": ["-o", f'UserKnownHostsFile="{changed}"'],
        }
        rows: list[Mapping[str, object]] = []
        for what, options in cases.items():
            argv = ["ssh", *options, "-F", config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", alias, "true"]
            if what == "another key":  # the block's own key must not help
                alone = ("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", str(wrong_key))
                argv = [*past_the_configuration(place, *alone), "true"]
            done = run_here(argv, check=False, timeout=20)
            if done.returncode == 0:
                raise TutorialError(f"{what}: ssh connected all the same", "", "see `ssh -v`")
            meaning, remedy = ssh.explain(done.stderr)
            rows.append({"provoked": what, "it means": meaning, "what to do": remedy})
    return rows


def refusals() -> list[Mapping[str, object]]:
    """Give bad values to the checks of chapter 01, and collect what they say.

    Returns:
        A row a value: what was given, why it was refused, what to do.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = ssh.make_key(folder / "id")
        too_open = Path(shutil.copy2(good, folder / "open"))
        too_open.chmod(0o644)
        secret = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "correct horse", "-f", str(folder / "locked")]
        run_here(secret, timeout=30)
        tries: list[tuple[str, Callable[[], object]]] = [
            ("the host name my_vm!", lambda: ssh.check_host_name("my_vm!")),
            ("the address 86.50.168", lambda: ssh.check_host_name("86.50.168")),
            ("the user 'ubuntu; ls'", lambda: ssh.check_user("ubuntu; ls")),
            ("a key that is not there", lambda: ssh.check_key(folder / "missing")),
            ("a key that others may read", lambda: ssh.check_key(too_open)),
            ("a key with a passphrase", lambda: ssh.check_key(folder / "locked", "none")),
            ("the public key", lambda: ssh.check_key(_private_mode(folder / "id.pub"))),
        ]
        return [_refusal(given, attempt, f"{folder}/") for given, attempt in tries]


def _private_mode(path: Path) -> Path:
    path.chmod(0o600)
    return path


def _refusal(given: str, attempt: Callable[[], object], folder: str) -> Mapping[str, object]:
    try:
        attempt()
    except TutorialError as error:
        said = {"given": given, "refused": error.what, "what to do": error.remedy}
        return {k: v.replace(folder, "") for k, v in said.items()}
    return {"given": given, "refused": "no", "what to do": ""}


def past_the_configuration(place: ssh.Endpoint, *options: str) -> list[str]:
    """Give an ssh command to the machine that reads no configuration and offers no key but those in the options."""
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *options, "-p", str(place.port)]
    for keyword, value in place.options.items():  # where the pinned host key is
        argv += ["-o", f"{keyword}={value}"]
    return [*argv, f"{place.user}@{place.hostname}"]


def through_agent(place: ssh.Endpoint) -> bool:
    """Log in with a key that only an agent holds.

    The agent is one of our own, and ends here. A key with a passphrase can't be given to it; the reader's own agent,
    which holds that key, is used then.

    Args:
        place: The machine.

    Returns:
        Whether it let us in.
    """
    if not is_unlocked(place.identity_file):
        named = ["-o", f"IdentityAgent={place.agent}"] if place.agent else []
        return run_here([*past_the_configuration(place, *named), "true"], check=False, timeout=20).returncode == 0
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/agent"
        with subprocess.Popen(
            ["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL, env=environment("ssh-agent")
        ) as agent:
            try:
                while agent.poll() is None and not Path(address).is_socket():
                    time.sleep(0.02)
                add = ["ssh-add", "-q", "-t", "60", str(place.identity_file)]
                run_here(add, env={"SSH_AUTH_SOCK": address}, timeout=10)
                login = past_the_configuration(place, "-o", f"IdentityAgent={address}", "-o", "IdentityFile=none")
                return run_here([*login, "true"], check=False, timeout=20).returncode == 0
            finally:
                agent.terminate()


def jump(place: ssh.Endpoint) -> str:
    """Reach a machine behind another one: through `cpouta` to the SSH server on that machine's loopback address.

    Args:
        place: The machine that both aliases lead to.

    Returns:
        What `echo` said there.
    """
    known_as = f"[{place.hostname}]:{place.port}" if place.port != 22 else place.hostname
    # A relative path: ssh hands it on to the ssh that jumps, without the quotes that a path with spaces would need.
    config = place.config.config
    argv = ["ssh", "-F", config.name, "-o", "BatchMode=yes", "-J", ssh.ALIASES[0]]
    argv += ["-o", "HostName=127.0.0.1", "-o", f"Port={place.server_port or place.port}"]
    argv += ["-o", f"HostKeyAlias={known_as}", ssh.ALIASES[1], "echo", "two hops"]
    return run_here(argv, timeout=30, cwd=config.parent).stdout.strip()


def login_times(target: SshTarget, place: ssh.Endpoint, rounds: int = 3) -> dict[str, float]:
    """Measure a command over a new connection and over the shared one.

    Args:
        target: The machine.
        place: The same, for connections of their own.
        rounds: How often; the median counts.

    Returns:
        Seconds, by kind of connection: `new` and `shared`.
    """
    alone = ["ssh", "-F", str(place.config.config), "-o", "BatchMode=yes", "-S", "none", target.name, "true"]
    target.run(["true"])
    times: dict[str, list[float]] = {"new": [], "shared": []}
    for _ in range(rounds):
        times["new"].append(run_here(alone, timeout=30).seconds)
        times["shared"].append(target.run(["true"]).seconds)
    return {kind: median(seconds) for kind, seconds in times.items()}


def undo_restores(place: ssh.Endpoint) -> bool:
    """Rehearse the undo on a copy of the configuration: put our blocks in, take them out, compare byte for byte.

    Args:
        place: Whose configuration to copy.

    Returns:
        Whether the copy is in the end what it was in the beginning.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = ssh.SshConfig(Path(name))
        copy.folder.mkdir(mode=0o700)
        original = place.config.original()
        copy.config.write_bytes(original)
        copy.config.chmod(0o600)
        copy.install(place.blocks(), tell=False)
        copy.remove()
        return copy.config.read_bytes() == original


def close(target: SshTarget, place: ssh.Endpoint) -> None:
    """End the connection and the sandbox. A configuration of the reader's own stays as it is."""
    target.close()
    server = processes.find("sshd", place.target)
    if server:
        server.stop()
    shutil.rmtree(place.folder, ignore_errors=True)


def show_change(place: ssh.Endpoint) -> None:
    """Show, where there is a sandbox, what would change in the reader's own configuration; nothing is written."""
    if place.sandbox:
        blocks = [ssh.HostBlock(b.alias, "FLOATING-IP", b.user) for b in place.blocks()]
        texts = ['Include "~/.ssh/tutorial.conf"     # first line of ~/.ssh/config', *(b.text() for b in blocks)]
        display.plan("your own ~/.ssh", texts, "set target, hostname and user in the parameters cell to make it real")
