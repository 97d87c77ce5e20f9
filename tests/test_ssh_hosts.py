"""What `ssh HOST true` reaches, every step reaches: commands, copies, tunnels and deploys, whatever the Host holds."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from helpers import processes, provision, ssh
from helpers.errors import Unreachable
from helpers.target_ssh import SshTarget

pytestmark = [pytest.mark.component]
DEPLOY = """
from io import StringIO

from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.operations import files, server

folder = host.data.folder
files.put(name="A new file", src=StringIO("hello\\n"), dest=f"{folder}/a new 'file'")
files.put(name="A link's file", src=StringIO("second\\n"), dest=f"{folder}/link")
files.get(name="Back", src=f"{folder}/kept", dest=f"{folder}/back", force=True)
server.shell(name="Speak", commands=[f"printf 'caf\\\\351 \\\\303\\\\251\\\\n'; test -f '{folder}/a new '*"])
"""


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """Run an agent that holds these keys."""
    address = folder / "agent.sock"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL) as process:
        try:
            while not address.is_socket():
                time.sleep(0.02)
            for key in keys:
                environment = {**os.environ, "SSH_AUTH_SOCK": str(address)}
                subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True, timeout=10)
            yield address
        finally:
            process.terminate()


@pytest.fixture
def reader(place: ssh.Endpoint, tmp_path: Path) -> Iterator[Callable[[str], SshTarget]]:
    """Give the target `box`, whose Host the reader wrote: the address of the machine, and these further lines."""
    opened = []

    def written(lines: str, key: bool = True, before: str = "") -> SshTarget:
        known = place.home / ".ssh" / "known_hosts"
        rows = ["Host box", f"HostName {place.hostname}", f"Port {place.port}", f"User {place.user}"]
        rows += lines.splitlines()
        rows += [f'IdentityFile "{place.identity_file}"'] if key else []
        rows += [f'UserKnownHostsFile "{known}"', "StrictHostKeyChecking yes"]
        config = tmp_path / "reader.conf"
        config.write_text(before + "\n  ".join(rows) + "\n")
        opened.append(SshTarget("box", config))
        return opened[-1]

    yield written
    for target in opened:
        target.close()


def works(target: SshTarget, place: ssh.Endpoint, folder: Path) -> None:
    """Do what chapters do, twice where a second connection would be in the way of the first."""
    for word in ("one", "two"):
        assert target.run(["echo", word]).stdout == f"{word}\n"
    sent, back = folder / "sent", folder / "back"
    sent.write_bytes(b"\0\r\n" * 1000)
    target.put(sent, f"{folder}/there")
    target.get(f"{folder}/there", back)
    assert back.read_bytes() == sent.read_bytes()
    with target.tunnel(place.port) as port, socket.create_connection(("127.0.0.1", port), 5) as connection:
        assert connection.recv(4) == b"SSH-"
    with target.inventory() as words:
        assert words[0] == "@openssh/box"


HOSTS = {
    "known hosts at /dev/null": "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null",
    "a new host key is accepted": "StrictHostKeyChecking accept-new\nUserKnownHostsFile {folder}/new",
    "a second identity file": "IdentityFile {folder}/missing\nIdentityFile {key}",
    "tokens": "IdentityFile {home}/.ssh/%r@%h-%p",
    "a command of its own": "RemoteCommand tmux attach\nRequestTTY force",
    "no session": "SessionType none\nStdinNull yes\nForkAfterAuthentication yes",
    "a port that is taken": "LocalForward {taken} localhost:80\nExitOnForwardFailure yes\nDynamicForward {taken}",
    "a shared connection of its own": "ControlMaster auto\nControlPath {folder}/%C\nControlPersist 5",
    "a local command that waits": "PermitLocalCommand yes\nLocalCommand sleep 100",
    "pictures and silence": "VisualHostKey yes\nLogLevel QUIET",
    "environment and agent": "SendEnv *\nSetEnv LANG=de_DE.UTF-8 A=b\nForwardAgent yes\nForwardX11 yes",
    "addresses and methods": "AddressFamily inet\nGSSAPIAuthentication yes\nPreferredAuthentications gssapi,publickey",
    "an alias for the host key": "HostKeyAlias other-name\nUserKnownHostsFile {folder}/alias",
    "a jump host": "ProxyJump gate",
    "two jump hosts": "ProxyJump gate,gate2",
    "a command as proxy": "ProxyCommand ssh -F {config} -W %h:%p gate",
}


@pytest.mark.parametrize("lines", HOSTS.values(), ids=HOSTS)
def test_a_host_of_the_reader_s_own_is_reached(
    lines: str, reader: Callable[..., SshTarget], place: ssh.Endpoint, tmp_path: Path
) -> None:
    key, known = place.identity_file, place.home / ".ssh" / "known_hosts"
    token = place.home / ".ssh" / f"{place.user}@{place.hostname}-{place.port}"
    token.write_bytes(key.read_bytes())
    token.chmod(0o600)
    (tmp_path / "alias").write_text("other-name " + known.read_text().split(" ", 1)[1])
    gates = "".join(
        f'Host {name}\n  HostName {place.hostname}\n  Port {place.port}\n  User {place.user}\n  IdentityFile "{key}"\n'
        f'  UserKnownHostsFile "{known}"\n'
        for name in ("gate", "gate2")
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = {"folder": tmp_path, "home": place.home, "key": key, "taken": taken.getsockname()[1]}
        written = lines.format(**words, config=tmp_path / "reader.conf")
        works(reader(written, key="IdentityFile" not in lines, before=gates), place, tmp_path)


def test_a_host_by_match_is_reached(reader: Callable[..., SshTarget], place: ssh.Endpoint, tmp_path: Path) -> None:
    match = f'Match originalhost box exec "true"\n  IdentityFile "{place.identity_file}"\n  HostKeyAlias none-such\n'
    match += "Match all\n"
    target = reader("HostKeyAlias x", key=False, before=match)
    with pytest.raises(Unreachable, match="host key is not known"):
        target.run(["true"])
    works(reader("", key=False, before=match.replace("  HostKeyAlias none-such\n", "")), place, tmp_path)


def test_a_key_that_only_an_agent_holds(reader: Callable[..., SshTarget], place: ssh.Endpoint, tmp_path: Path) -> None:
    public = tmp_path / "key.pub"
    public.write_text(Path(f"{place.identity_file}.pub").read_text())
    with agent(tmp_path, place.identity_file) as address:
        works(reader(f"IdentityAgent {address}", key=False), place, tmp_path)
        lines = f"IdentityAgent {address}\nIdentityFile {public}\nIdentitiesOnly yes"
        works(reader(lines, key=False), place, tmp_path)


def test_a_login_that_only_the_reader_can_make_is_used_while_it_is_open(
    reader: Callable[..., SshTarget], place: ssh.Endpoint, tmp_path: Path
) -> None:
    lines = f"ControlMaster auto\nControlPath {tmp_path}/own-%r\nControlPersist 60"
    by_hand = reader(lines)
    config = tmp_path / "reader.conf"
    subprocess.run(["ssh", "-F", str(config), "-f", "-N", "box"], check=True, stderr=subprocess.DEVNULL, timeout=20)
    config.write_text(config.read_text().replace("IdentityFile", "IdentitiesOnly yes\n  IdentityFile /no/such/key #"))
    works(by_hand, place, tmp_path)
    by_hand.close()
    check = ["ssh", "-F", str(config), "-O", "check", "box"]
    assert subprocess.run(check, capture_output=True).returncode == 0, "the reader's own connection stays open"
    subprocess.run(["ssh", "-F", str(config), "-O", "exit", "box"], check=True, capture_output=True)
    with pytest.raises(Unreachable, match="does not accept"):
        by_hand.run(["true"])


def test_a_proxy_that_never_answers_ends_in_time_and_says_so(
    reader: Callable[..., SshTarget], place: ssh.Endpoint
) -> None:
    with pytest.raises(Unreachable, match="SSH could not connect"):
        reader("ProxyCommand sleep 36.5\nConnectTimeout 1").run(["true"])


def test_a_deploy_goes_over_the_same_connection(
    reader: Callable[..., SshTarget], place: ssh.Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "kept").write_text("first\n")
    (folder / "kept").chmod(0o640)
    (folder / "link").symlink_to("kept")
    (tmp_path / "writes.py").write_text(DEPLOY)
    monkeypatch.setattr(provision, "FOLDER", tmp_path)
    with agent(tmp_path, place.identity_file) as address:
        lines = f"IdentityAgent {address}\nRemoteCommand tmux\nUserKnownHostsFile /dev/null\nStrictHostKeyChecking no"
        target = reader(lines, key=False)
        said: list[str] = []
        changes = target.apply("writes", {"folder": str(folder)}, watch=said.append)
    assert len(changes.changed) == 4 and any("é" in line for line in said)
    assert (folder / "a new 'file'").read_text() == "hello\n"
    assert (folder / "kept").read_text() == "second\n" and (folder / "kept").stat().st_mode & 0o777 == 0o640
    assert (folder / "link").is_symlink() and (folder / "back").read_text() == "second\n"
    assert sorted(p.name for p in folder.iterdir()) == ["a new 'file'", "back", "kept", "link"]


def test_a_deploy_by_hand_opens_a_connection_and_closes_it(
    reader: Callable[..., SshTarget], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader("RemoteCommand tmux\nLocalCommand touch /no/such/folder/file\nPermitLocalCommand yes")
    client, programs = shutil.which("ssh"), tmp_path / "bin"
    programs.mkdir()
    script = f'case "$*" in *"-F none"*) exec {client} "$@";; esac; exec {client} -F {tmp_path}/reader.conf "$@"'
    (programs / "ssh").write_text(f"#!/bin/sh\n{script}\n")  # ssh does not look for ~/.ssh/config in HOME
    (programs / "ssh").chmod(0o755)
    (tmp_path / "by_hand.py").write_text(f"from pyinfra.operations import files\nfiles.file(path='{tmp_path}/made')\n")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    words = ["-y", "@openssh/box", str(tmp_path / "by_hand.py")]
    done = subprocess.run([Path(sys.executable).with_name("pyinfra"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made").exists()
    masters = [p for p in psutil.process_iter(["cmdline"]) if "tutorial-pyinfra-" in " ".join(p.info["cmdline"] or [])]
    assert masters == []
    missing = [Path(sys.executable).with_name("pyinfra"), "-y", "@openssh/no-such-host", str(tmp_path / "by_hand.py")]
    failed = subprocess.run(missing, capture_output=True, text=True)
    assert failed.returncode != 0 and "Could not resolve hostname" in failed.stderr


def test_a_connection_that_goes_while_it_is_idle_costs_no_command(
    reader: Callable[..., SshTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = reader("")
    target.run(["true"])
    target.close()
    answers = iter([True])  # it was open when it was looked at, and ended before the command was sent
    connected = target._connected
    monkeypatch.setattr(target, "_connected", lambda: next(answers, None) or connected())
    assert target.run(["echo", "sent"]).stdout == "sent\n"


def test_a_machine_that_can_not_be_reached_ends_a_deploy_before_it_begins(reader: Callable[..., SshTarget]) -> None:
    server = processes.find("sshd")
    assert server
    target = reader("")
    server.stop()
    with pytest.raises(Unreachable, match="nothing listens"):
        target.apply("docker", dry=True)
