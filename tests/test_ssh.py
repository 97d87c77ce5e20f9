"""The SSH configuration: whatever the reader's file looks like, it gains one line and gets its bytes back."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers import ssh, ssh_ask
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


def _state(folder: Path) -> dict[str, object]:
    return {p.name: (p.read_bytes(), p.stat().st_mode) for p in folder.iterdir() if p.is_file()}


@pytest.mark.parametrize("path", ["~/.ssh/cm-%C", "~/.ssh/%r@%h:%p", "~/.ssh/%n"])
def test_a_connection_that_the_reader_shares_under_any_name_stays_and_is_not_called_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    config = _config(tmp_path, f"Host cpouta\n  HostName 192.0.2.99\nHost *\n  ControlPath {path}\n".encode())
    config.install(BLOCKS)
    assert config.resolve("cpouta")["controlpath"] != "none"
    said = capsys.readouterr().out
    assert "no longer in force: HostName 192.0.2.99\n" in said and "ControlPath" not in said


def test_what_a_reader_s_own_host_of_that_name_adds_and_loses_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = b"ForwardAgent yes\nHost cpouta other\n\tHostName 192.0.2.99\n User cloud-user\n"
    theirs += b" identityfile ~/.ssh/mine.pem\n ProxyJump jump\n Port 22\nHost *\n ControlPath ~/.ssh/%n\n"
    config = _config(tmp_path, theirs)
    config.install(BLOCKS)
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "  stays in force: ProxyJump jump; identityfile ~/.ssh/mine.pem",
        "  no longer in force: HostName 192.0.2.99; User cloud-user",
    ]
    config.install([ssh.HostBlock("cpouta", "203.0.113.8", "ubuntu")])
    assert "203.0.113.7" not in capsys.readouterr().out, "our own Host from before is not the reader's"


@pytest.mark.parametrize("included", ["~/.ssh/tutorial.conf", "tutorial.conf", '"tutorial.conf"', "~/.ssh/tut*.conf"])
def test_a_read_only_file_gains_its_line_by_hand(tmp_path: Path, included: str) -> None:
    store = tmp_path / "store"
    store.mkdir()
    real = store / "config"
    real.write_bytes(b"Host a\n")
    config = _config(tmp_path, None)
    config.folder.mkdir(mode=0o700)
    config.config.symlink_to(real)
    real.chmod(0o444)
    store.chmod(0o555)
    try:
        with pytest.raises(TutorialError, match="can't be changed") as error:
            config.install(BLOCKS)
        assert error.value.remedy.endswith(config.include)
        assert [p.name for p in config.folder.iterdir()] == ["config"] and real.read_bytes() == b"Host a\n"
        store.chmod(0o755)
        real.chmod(0o644)
        real.write_text(f"Include {included.replace('~', str(tmp_path))}\nHost a\n")
        real.chmod(0o444)
        store.chmod(0o555)
        assert config.install(BLOCKS) is True and config.install(BLOCKS) is False and config.made()
        if "*" in included or "/" in included:
            assert config.resolve("cpouta")["hostname"] == "203.0.113.7"
        config.remove()
        assert [p.name for p in config.folder.iterdir()] == ["config"]
    finally:
        store.chmod(0o755)


def test_a_read_only_folder_is_left_alone_until_the_blocks_are_there_by_hand(tmp_path: Path) -> None:
    config = _config(tmp_path, b"Host a\n")
    config.folder.chmod(0o500)
    try:
        with pytest.raises(TutorialError, match="make the folder writable") as error:
            config.install(BLOCKS)
        assert all(block.text() in error.value.remedy for block in BLOCKS) and config.include in error.value.remedy
        assert [p.name for p in config.folder.iterdir()] == ["config"]
        config.config.write_text("".join(block.text() for block in BLOCKS))
        assert config.install(BLOCKS) is False
    finally:
        config.folder.chmod(0o700)


@pytest.mark.parametrize("failure", [OSError(30, "Read-only file system"), OSError(1, "no"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("name", "before"),
    [(n, b) for n in ("config", "tutorial.conf", "config.before-tutorial") for b in (None, b"Host a\n  User b")][:-2]
    + [("config.before-tutorial", b"Host a")],
)
def test_a_write_that_fails_or_is_broken_off_leaves_every_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, name: str, before: bytes | None
) -> None:
    config = _config(tmp_path, before)
    replace = os.replace

    def fails(source: str, destination: Path) -> None:
        if Path(destination).name == name and not failed:
            failed.append(name)
            raise failure
        replace(source, destination)

    failed: list[str] = []
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises((TutorialError, KeyboardInterrupt)) as error:
        config.install(BLOCKS)
    assert failed and (isinstance(error.value, KeyboardInterrupt) or config.include in str(error.value))
    assert config.folder.exists() == (before is not None)
    if before is not None:
        assert [p.name for p in config.folder.iterdir()] == ["config"] and config.config.read_bytes() == before


@pytest.mark.parametrize("match", ['Match exec "sleep 25; false"', 'Match originalhost cpouta exec "sleep 25"'])
def test_a_slow_command_in_the_configuration_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, match: str
) -> None:
    monkeypatch.setattr(ssh_ask, "_SECONDS", 0.5)
    config = _config(tmp_path, f"{match}\n  ProxyJump bastion.example.com\n".encode())
    before = _state(config.folder)
    with pytest.raises(TutorialError, match="takes too long"):
        config.install(BLOCKS)
    assert _state(config.folder) == before


def test_permissions_are_refused_only_where_ssh_refuses_them(tmp_path: Path) -> None:
    config = _config(tmp_path, b"Host a\n")
    config.config.chmod(0o664)
    probe = tmp_path / "probe"
    probe.write_text(f'Include "{config.config}"\n')
    does_ssh = subprocess.run(["ssh", "-G", "-F", str(probe), "a"], capture_output=True).returncode == 0
    if does_ssh:
        assert config.install(BLOCKS) is True and stat.S_IMODE(config.config.stat().st_mode) == 0o664
    else:
        with pytest.raises(TutorialError, match="Others may write"):
            config.install(BLOCKS)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    for number, make in enumerate((Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/dev/null"))):
        config = _config(tmp_path / str(number), None)
        config.folder.mkdir(parents=True, mode=0o700)
        make(config.config)
        with pytest.raises(TutorialError, match="is not a file"):
            config.install(BLOCKS)
    for number, to in enumerate(("gone", "config")):
        config = _config(tmp_path / f"link{number}", None)
        config.folder.mkdir(parents=True, mode=0o700)
        config.config.symlink_to(to)
        with pytest.raises(TutorialError, match="can't be read"):
            config.install(BLOCKS)
        assert config.config.is_symlink() and len(list(config.folder.iterdir())) == 1
    for number, spoil in enumerate((lambda p: p.write_text(""), lambda p: p.symlink_to("gone"))):
        home = tmp_path / f"home{number}"
        home.mkdir()
        spoil(home / ".ssh")
        with pytest.raises(TutorialError, match="is not a folder"):
            ssh.SshConfig(home).install(BLOCKS)


@pytest.mark.parametrize("name", ["a home", 'quo"te', "brack[et]s", "star*", "back\\slash", "ä ö", "a'b", "100%"])
def test_home_folders_of_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    config = _config(home, b"Host a\n")
    block = ssh.HostBlock("cpouta", "fe80::1%eth0", "ubuntu", str(home / "key").replace("%", "%%"))
    assert config.install([block]) is True and config.install([block]) is False
    seen = config.resolve("cpouta")
    assert seen["hostname"] == "fe80::1%eth0" and seen["identityfile"].replace("%%", "%") == str(home / "key")
    config.remove()
    assert [p.name for p in config.folder.iterdir()] == ["config"]


def test_our_line_is_put_on_top_again_where_a_host_was_written_above_it(tmp_path: Path) -> None:
    config = _config(tmp_path, b"")
    config.install(BLOCKS)
    line = config.config.read_bytes()
    config.config.write_bytes(b"Host above\n  User me\n" + line)
    assert config.install(BLOCKS) is True and config.resolve("cpouta")["hostname"] == "203.0.113.7"
    config.remove()
    assert config.config.read_bytes() == b"Host above\n  User me\n"


@pytest.mark.parametrize("content", ["", "\n", "\n# only this", "\nHost x\n"])
def test_our_own_file_may_have_been_spoilt(tmp_path: Path, content: str) -> None:
    config = _config(tmp_path, b"Host a\n")
    config.install(BLOCKS)
    config.ours.write_text(config.ours.read_text().splitlines()[0] + content)
    assert config.install(BLOCKS) is True
    assert config.resolve("cpouta")["hostname"] == "203.0.113.7"
    config.remove()
    assert config.config.read_bytes() == b"Host a\n"


def test_a_client_without_include_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\necho 'config: line 1: Bad configuration option: include' >&2; exit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TutorialError, match="older than version 7.3"):
        _config(tmp_path, b"Host a\n").install(BLOCKS)


def test_keywords_of_other_systems_that_the_reader_has_ssh_ignore_are_no_obstacle(tmp_path: Path) -> None:
    config = _config(tmp_path, b"IgnoreUnknown UseKeychain\nUseKeychain yes\nInclude ~/.ssh/no-such-file\n")
    assert config.install(BLOCKS) is True
