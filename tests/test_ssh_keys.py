"""Keys: passphrases that an agent knows, keys that only an agent holds, hardware, certificates; never a question."""

import base64
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import ssh, ssh_keys
from helpers.errors import TutorialError
from tests.test_ssh_hosts import agent

pytestmark = [pytest.mark.unit]


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """Give a key with a passphrase."""
    path = tmp_path / "locked key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "correct horse", "-f", str(path)]
    subprocess.run(argv, check=True, timeout=30)
    return path


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Give a function that starts an agent with a key, which is typed in as a reader would."""
    started = []

    def start(key: Path, passphrase: str = "correct horse") -> str:
        ask = tmp_path / "ask"
        ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        ask.chmod(0o755)
        running = agent(tmp_path)
        started.append(running)
        address = str(running.__enter__())
        env = {**os.environ, "SSH_AUTH_SOCK": address, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", str(key)], env=env, check=True, timeout=20, stdin=subprocess.DEVNULL)
        return address

    yield start
    for running in started:
        running.__exit__(None, None, None)


def test_a_passphrase_without_an_agent_is_answered_with_the_two_commands(locked: Path) -> None:
    with pytest.raises(TutorialError, match="has a passphrase") as error:
        ssh.check_key(locked)
    assert f"eval \"$(ssh-agent)\"; ssh-add '{locked}'" in error.value.remedy and "no agent" in error.value.why


def test_a_passphrase_that_the_agent_knows_is_no_obstacle(
    locked: Path, holding: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = holding(locked)
    assert ssh.check_key(locked, address) == locked
    with pytest.raises(TutorialError, match="no agent runs"):
        ssh.check_key(locked, "none")
    monkeypatch.setenv("SSH_AUTH_SOCK", address)
    assert ssh.check_key(locked) == locked and ssh.make_key(locked) == locked
    Path(f"{locked}.pub").unlink()
    assert ssh.check_key(locked) == locked, "the key itself says what its public half is"
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-a", "1", "-N", "x y z q", "-f", str(other)], check=True, timeout=30)
    with pytest.raises(TutorialError, match="the agent does not hold it") as error:
        ssh.check_key(other)
    assert "ssh-add" in error.value.remedy and "ssh-agent" not in error.value.remedy


@pytest.mark.parametrize("kind", [("rsa", "-m", "PEM"), ("ecdsa", "-m", "PKCS8"), ("ecdsa",)], ids=" ".join)
def test_keys_of_every_format_with_a_passphrase(
    kind: tuple[str, ...], tmp_path: Path, holding: Callable[..., str]
) -> None:
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "correct horse", "-f", str(path)], check=True, timeout=60)
    with pytest.raises(TutorialError, match="has a passphrase"):
        ssh.check_key(path)
    assert ssh.check_key(path, holding(path)) == path


def test_a_key_that_only_an_agent_holds(locked: Path, holding: Callable[..., str], tmp_path: Path) -> None:
    address = holding(locked)
    assert ssh.check_key(Path(), address) == Path() and ssh.key_fingerprint(Path(), address).startswith("SHA256:")
    locked.unlink()
    public = Path(f"{locked}.pub")
    assert ssh.check_key(locked, address) == locked and ssh.check_key(public, address) == public
    content = public.read_bytes()
    for path in (locked, public):
        with pytest.raises(TutorialError, match="is the public key") as error:
            ssh.check_key(path)
        assert "ssh-add" in error.value.remedy
    with pytest.raises(TutorialError, match="is the public key"):
        ssh.make_key(locked)
    assert public.read_bytes() == content and not locked.exists(), "the only copy of the public half stays"
    with pytest.raises(TutorialError, match="There is no key") as error:
        ssh.check_key(tmp_path / "none", address)
    assert "ssh-add -L" in error.value.remedy
    with pytest.raises(TutorialError, match="No agent holds a key"):
        ssh.check_key(Path())


def test_a_certificate_beside_a_key(tmp_path: Path, holding: Callable[..., str]) -> None:
    authority, key = ssh.make_key(tmp_path / "ca"), ssh.make_key(tmp_path / "id")
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "ubuntu", f"{key}.pub"]
    subprocess.run(argv, check=True, timeout=20)
    certificate = tmp_path / "id-cert.pub"
    assert ssh.check_key(key) == key
    with pytest.raises(TutorialError, match="is the public key") as error:
        ssh.check_key(certificate)
    assert error.value.remedy == "name the file beside it without -cert.pub"
    assert ssh.check_key(certificate, holding(key)) == certificate


def _hardware_key(path: Path) -> None:
    """Write a key of a security key (FIDO), as PROTOCOL.key and PROTOCOL.u2f of OpenSSH have it."""

    def word(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    kind = word(b"sk-ssh-ed25519@openssh.com")
    public = kind + word(bytes(range(32))) + word(b"ssh:")
    private = struct.pack(">II", 7, 7) + public + b"\x01" + word(b"handle") + word(b"") + word(b"me")
    private += bytes(range(1, 9))[: -len(private) % 8]
    whole = b"openssh-key-v1\0" + word(b"none") + word(b"none") + word(b"") + struct.pack(">I", 1)
    text = base64.encodebytes(whole + word(public) + word(private)).decode()
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n")
    path.chmod(0o600)


def test_a_key_on_hardware(tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519_sk"
    _hardware_key(key)
    assert ssh.check_key(key) == key and ssh.public_key(key).startswith("sk-ssh-ed25519@openssh.com ")


def test_what_is_no_key_says_what_it_is(tmp_path: Path) -> None:
    putty = tmp_path / "key.ppk"
    putty.write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    putty.chmod(0o600)
    for path, words in ((putty, "format of PuTTY"), (tmp_path, "is not a file"), (putty / "x", "no key|can't be read")):
        with pytest.raises(TutorialError, match=words):
            ssh.check_key(path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\0\0")
    binary.chmod(0o600)
    with pytest.raises(TutorialError, match="is not a private key"):
        ssh.check_key(binary)


def test_the_public_half_comes_from_the_private_one_where_a_cloud_gave_no_other_file(tmp_path: Path) -> None:
    key = ssh.make_key(tmp_path / "cloud.pem")
    beside = ssh.public_key(key)
    Path(f"{key}.pub").unlink()
    assert ssh.public_key(key).split()[:2] == beside.split()[:2]


def test_an_agent_that_does_not_answer_is_none(tmp_path: Path) -> None:
    assert ssh_keys.held(str(tmp_path / "gone")) is None
