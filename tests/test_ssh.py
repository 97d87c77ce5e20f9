"""The SSH configuration: whatever the reader's file looks like, it gains one line and gets its bytes back."""

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers import ssh
from helpers.errors import TutorialError

pytestmark = [pytest.mark.unit]
CONFIGS = {
    "empty": b"",
    "comment": b"# mine\n\n   # indented\n",
    "crlf": b"# mine\r\nHost a\r\n  User b\r\n",
    "match": b"Host *\n  ServerAliveInterval 5\nMatch user root\n  Compression yes\n",
    "tabs": b"Host\ta\n\tUser\tb\n",
    "no final newline": b"Host a\n  User b",
    "not text": b"# caf\xe9\nHost a\n  User b\n",
    "equals": b'Host=a\nUser = "b"\n',
}
BLOCKS = [ssh.HostBlock("cpouta", "203.0.113.7", "ubuntu"), ssh.HostBlock("GPU-cpouta", "2001:db8::7", "ubuntu")]


def _config(home: Path, content: bytes | None) -> ssh.SshConfig:
    config = ssh.SshConfig(home)
    if content is not None:
        config.folder.mkdir(mode=0o700)
        config.config.write_bytes(content)
        config.config.chmod(0o600)
    return config


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_one_line_is_gained_and_undo_gives_the_bytes_back(tmp_path: Path, content: bytes) -> None:
    config = _config(tmp_path, content)
    assert config.install(BLOCKS) is True
    first, rest = config.config.read_bytes().split(b"\n", 1)
    assert first.strip() == config.include.encode() and rest == content
    assert first.endswith(b"\r") == (b"\r\n" in content), "our line has the line ends of the file"
    assert config.backup.read_bytes() == content
    assert stat.S_IMODE(config.ours.stat().st_mode) == 0o600
    for block in BLOCKS:
        seen = config.resolve(block.alias)
        assert (seen["hostname"], seen["user"], seen["port"]) == (block.hostname, "ubuntu", "22")
    config.remove()
    assert config.config.read_bytes() == content
    assert sorted(p.name for p in config.folder.iterdir()) == ["config"]


@given(st.binary(max_size=200).map(lambda b: b"# " + b.replace(b"\n", b"\n# ").replace(b"\0", b"").replace(b"\r", b"")))
@example(b"#")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_comment_survives(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    config = _config(tmp_path_factory.mktemp("home"), content)
    config.install(BLOCKS)
    config.remove()
    assert config.config.read_bytes() == content


def test_twice_changes_nothing(tmp_path: Path) -> None:
    config = _config(tmp_path, CONFIGS["match"])
    config.install(BLOCKS)
    files = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in config.folder.iterdir()}
    assert config.install(BLOCKS) is False
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in config.folder.iterdir()} == files


def test_where_there_was_nothing_nothing_is_left(tmp_path: Path) -> None:
    config = _config(tmp_path, None)
    config.install(BLOCKS)
    assert stat.S_IMODE(config.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(config.config.stat().st_mode) == 0o600
    config.remove()
    assert not config.folder.exists()


def test_what_the_reader_wrote_meanwhile_stays(tmp_path: Path) -> None:
    config = _config(tmp_path, CONFIGS["comment"])
    config.install(BLOCKS)
    with config.config.open("ab") as file:
        file.write(b"Host new\n")
    config.remove()
    assert config.config.read_bytes() == CONFIGS["comment"] + b"Host new\n"


def test_a_symlink_stays_one_and_permissions_stay_theirs(tmp_path: Path) -> None:
    config = _config(tmp_path, None)
    config.folder.mkdir(mode=0o700)
    real = tmp_path / "dotfiles"
    real.write_bytes(CONFIGS["tabs"])
    real.chmod(0o644)
    config.config.symlink_to(real)
    config.install(BLOCKS)
    assert config.config.is_symlink() and config.include.encode() in real.read_bytes()
    assert stat.S_IMODE(real.stat().st_mode) == 0o644
    config.remove()
    assert config.config.is_symlink() and real.read_bytes() == CONFIGS["tabs"]


def test_our_file_is_private_again_when_somebody_opened_it(tmp_path: Path) -> None:
    config = _config(tmp_path, b"")
    config.install(BLOCKS)
    config.ours.chmod(0o644)
    assert config.install(BLOCKS) is True
    assert stat.S_IMODE(config.ours.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [(b"Host a\n", 0o666, "Others may write"), (b"Hots a\n", 0o600, "Bad configuration option")],
)
def test_a_file_that_openssh_refuses_is_left_alone(tmp_path: Path, content: bytes, mode: int, message: str) -> None:
    config = _config(tmp_path, content)
    config.config.chmod(mode)
    with pytest.raises(TutorialError, match=message):
        config.install(BLOCKS)
    assert config.config.read_bytes() == content
    assert sorted(p.name for p in config.folder.iterdir()) == ["config"]


def test_a_line_that_wins_over_ours_is_an_error_and_undone(tmp_path: Path) -> None:
    config = _config(tmp_path, b"")
    block = ssh.HostBlock("cpouta", "203.0.113.7", "ubuntu", options={"User": "other"})
    with pytest.raises(TutorialError, match="would not do what the block says"):
        config.install([block])
    assert config.config.read_bytes() == b"" and not config.ours.exists()


@pytest.mark.parametrize(
    "value", ["cpouta.csc.fi", "203.0.113.7", "2001:db8::1", "fe80::1%eth0", "h", "a_b.example", "x."]
)
def test_right_host_names(value: str) -> None:
    assert ssh.check_host_name(f" {value} ") == value


@pytest.mark.parametrize(
    "value", ["", "-oProxyCommand=x", "a b", "203.0.113", "1.2.3.4.5", "a" * 64, "h;ls", "ü.fi", "a..b"]
)
def test_wrong_host_names(value: str) -> None:
    with pytest.raises(TutorialError, match="is not a host name or IP address"):
        ssh.check_host_name(value)


def test_users() -> None:
    for right in ("ubuntu", "first.last", "me@domain", "_svc", "u-1+x"):
        assert ssh.check_user(right) == right
    for wrong in ("", "-x", "a b", "a;b", "a\nb", "ä"):
        with pytest.raises(TutorialError, match="is not a user name"):
            ssh.check_user(wrong)


def test_keys(tmp_path: Path) -> None:
    good = ssh.make_key(tmp_path / "id")
    content = good.read_bytes()
    assert ssh.make_key(good).read_bytes() == content, "an existing key is never replaced"
    good.chmod(0o640)
    with pytest.raises(TutorialError, match="too open.*\n.*\n.*chmod 600"):
        ssh.check_key(good)
    junk = tmp_path / "junk"
    junk.write_text("hello")
    junk.chmod(0o600)
    with pytest.raises(TutorialError, match="is not a private key"):
        ssh.check_key(junk)


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("ssh: connect to host h port 22: Connection refused", "nothing listens"),
        ("ssh: connect to host h port 22: Connection timed out", "firewall"),
        ("u@h: Permission denied (publickey).", "does not accept"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "key changed"),
        ("something new", "could not connect"),
    ],
)
def test_errors_of_ssh_are_explained(said: str, meaning: str) -> None:
    assert meaning in ssh.explain(said)[0]


@pytest.mark.parametrize("content", [b"Host mine\n  User me\n", b"", b"\xff\xfeH\0", b"# caf\xe9\nHost mine\n"])
def test_a_tutorial_conf_of_the_readers_is_refused_and_never_removed(tmp_path: Path, content: bytes) -> None:
    config = _config(tmp_path, b"Host a\n  User b\n")
    config.ours.write_bytes(content)
    with pytest.raises(TutorialError, match="is a file of your own"):
        config.install(BLOCKS)
    assert config.aliases() == [] and config.made() is False
    config.drop(["cpouta"])
    config.remove()
    assert config.ours.read_bytes() == content and config.config.read_bytes() == b"Host a\n  User b\n"


def test_what_the_reader_adds_to_our_file_is_kept_byte_for_byte(tmp_path: Path) -> None:
    config = _config(tmp_path, b"Host a\n  User b\n")
    config.install(BLOCKS)
    mine = b"Host mine\n  # caf\xe9\n  User me\n"
    config.ours.write_bytes(config.ours.read_bytes() + mine)
    config.install([ssh.HostBlock("cpouta", "203.0.113.8", "ubuntu")])
    config.drop(["cpouta", "GPU-cpouta"])
    assert mine in config.ours.read_bytes() and config.resolve("mine")["user"] == "me"
