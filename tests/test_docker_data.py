"""What Docker has on a disk: its daemon.json is read as Docker reads it, and nothing else's data are ever deleted."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import docker_data, docker_host, provision
from helpers.docker_data import NotUnderstood, read_daemon_json
from helpers.errors import TutorialError
from helpers.settings import ROOT
from helpers.target import Target

SETTINGS = {"debug": True, "insecure-registries": ["192.0.2.5:5000"]}
TEXT = json.dumps(SETTINGS)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give a function that puts a program first on PATH; `sudo` is one that runs the command as it is."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    put("sudo", 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"')
    return put


@pytest.mark.unit
@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        b"\r\n\t " + TEXT.encode() + b"\r\n",
    ],
)
def test_what_docker_reads_is_read(content: bytes) -> None:
    assert read_daemon_json(content).settings == SETTINGS


@pytest.mark.unit
@pytest.mark.parametrize("content", [b"", b" \n\t", b"{}", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_an_empty_file_has_no_settings(content: bytes) -> None:
    assert read_daemon_json(content).settings == {}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{\n"labels": ["caf\xe9"]}', r"not valid UTF-8: line 2 has the byte 0xe9"),
        (TEXT.encode("utf-16-le"), "not valid JSON: .*line 1"),
        (b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1], "not valid UTF-16-LE: line 1"),
        (b"\xff\xfe\x00\x00" + TEXT.encode("utf-32-le"), "not valid JSON"),
        (b'{"debug": true,}', "not valid JSON.*line 1 column 16"),
        (b'{\n// why\n"debug": true}', "not valid JSON.*line 2"),
        (b"{'debug': true}", "not valid JSON.*line 1"),
        (b'{"debug": true} {}', "not valid JSON.*Extra data"),
        (b'{"debug": tru', "not valid JSON"),
        (b'{"mtu": NaN}', "NaN is no value"),
        (b'{"mtu": 1e999}', "too large"),
        (b"[]", "no JSON object"),
        (b"7", "no JSON object"),
        (b"null", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b'{"a":' * 100_000, "recursion"),
        (b"debug: true", "not valid JSON"),
    ],
)
def test_what_docker_refuses_is_refused_with_its_line(content: bytes, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        read_daemon_json(content)


MERGE = """
from deployments.host import daemon_json
daemon_json.start(daemon_json.write({**daemon_json.read(), "added": 1}))
"""


@pytest.fixture
def merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Callable[[str, str], None]
) -> Callable[..., provision.Changes]:
    """Give a function that merges a setting into a daemon.json of the test, by pyinfra on this machine."""
    (tmp_path / "merge.py").write_text(MERGE)
    monkeypatch.setattr(provision, "FOLDER", tmp_path)
    programs("systemctl", f'echo "$@" >>{tmp_path}/systemctl; test "$1 ${{FAILS:-}}" != "restart yes"')
    programs("journalctl", "echo docker says why")

    def run(path: Path, dry: bool = False) -> provision.Changes:
        data = {"daemon_json": path, "daemon_json_before": tmp_path / "before"}
        return Target.open("host").apply("merge", data, dry=dry)

    return run


@pytest.mark.component
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_setting_is_merged_through_a_link_and_mode_and_link_stay(
    tmp_path: Path, merge: Callable[..., provision.Changes], encoding: str
) -> None:
    real, link = tmp_path / "my daemon.json", tmp_path / "daemon.json"
    real.write_bytes(TEXT.encode(encoding))
    real.chmod(0o600)
    link.symlink_to(real)
    before = real.read_bytes()
    assert "Write daemon.json" in merge(link, dry=True).changed and real.read_bytes() == before
    merge(link)
    assert link.is_symlink() and json.loads(real.read_text()) == {**SETTINGS, "added": 1}
    assert real.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "before").exists()
    assert (tmp_path / "systemctl").read_text() == "restart docker\n"
    assert merge(link).changed == []


@pytest.mark.component
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"labels": ["caf\xe9"]}', "not valid UTF-8: line 1"),
        (b'{"debug": true,}', "not valid JSON"),
        (b'{"dns": ["192.0.2.1"], "dns": ["192.0.2.2"]}', "dns more than once"),
    ],
)
def test_what_was_not_understood_is_never_written(
    tmp_path: Path, merge: Callable[..., provision.Changes], content: bytes, why: str
) -> None:
    path = tmp_path / "daemon.json"
    path.write_bytes(content)
    with pytest.raises(TutorialError, match=why):
        merge(path)
    assert path.read_bytes() == content and not (tmp_path / "systemctl").exists()


@pytest.mark.component
def test_a_folder_and_a_dangling_link_in_its_place_are_refused(
    tmp_path: Path, merge: Callable[..., provision.Changes]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume-that-is-away" / "daemon.json")
    for name, why in (("folder", "is not a file but a directory"), ("link", "symbolic link to .*volume-that-is-away")):
        with pytest.raises(TutorialError, match=why):
            merge(tmp_path / name)
    assert not (tmp_path / "volume-that-is-away").exists()


@pytest.mark.component
@pytest.mark.parametrize("before", [TEXT, None])
def test_if_docker_does_not_start_with_the_new_file_the_former_one_is_put_back(
    tmp_path: Path, merge: Callable[..., provision.Changes], monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    path = tmp_path / "daemon.json"
    if before is not None:
        path.write_text(before)
    monkeypatch.setenv("FAILS", "yes")
    with pytest.raises(TutorialError, match="Restart Docker") as error:
        merge(path)
    assert "docker says why" in error.value.output
    assert (path.read_text() if path.exists() else None) == before
    assert "start containerd docker" in (tmp_path / "systemctl").read_text()


ROOT_FS = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
VOLUME = "50 27 254:16 / /media/volume rw - ext4 /dev/vdb rw\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("old", "new", "mounts", "why"),
    [
        ("/media/volume", "/media/volume/docker", VOLUME, "is inside /media/volume, where"),
        ("/media/volume/docker", "/media/volume", VOLUME, "is inside /media/volume$"),
        ("/var/lib/docker", "/var/lib/docker", "", "^$"),
        ("/var/lib/docker", "/var/lib/docker-new", "", "^$"),
        ("/var/lib/docker", "/media/volume/docker", VOLUME, "^$"),
        ("/srv/docker", "/mnt/a", "51 27 254:0 /srv/docker/volumes /mnt/a rw - ext4 /dev/vda rw\n", "is inside"),
        ("/mnt/a", "/srv/docker", "51 27 254:0 /srv/docker /mnt/a rw - ext4 /dev/vda rw\n", "are the same folder"),
        ("/mnt/a/b", "/srv", "51 27 254:0 /srv/docker /mnt/a rw - ext4 /dev/vda rw\n", "is inside /srv$"),
        ("/srv/x", "/mnt/a\tb", "51 27 254:0 /srv/x/y /mnt/a\\011b rw - ext4 /dev/vda rw\n", "is inside"),
        ("/data", "/data/new", "51 27 8:1 / /data/new rw - ext4 /dev/sdb rw\n", "is inside /data, where"),
    ],
)
def test_one_folder_inside_the_other_is_refused_also_by_bind_mounts(old: str, new: str, mounts: str, why: str) -> None:
    assert re.search(why, docker_data.nested(old, new, docker_data.read_mounts(ROOT_FS + mounts)))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("started", "root", "file"),
    [
        ("argv[]=/usr/bin/dockerd -H fd:// --data-root /mnt/big/docker ; ignore_errors=no", "/mnt/big/docker", ""),
        ("dockerd --data-root=/mnt/a", "/mnt/a", ""),
        ("dockerd -g /mnt/a", "/mnt/a", ""),
        ("dockerd -g/mnt/a", "/mnt/a", ""),
        ("dockerd --graph=/mnt/a --data-root /mnt/b", "/mnt/b", ""),
        ('dockerd $DOCKER_OPTS DOCKER_OPTS="--data-root=/mnt/a"', "/mnt/a", ""),
        ("dockerd --config-file=/snap/docker/daemon.json", "", "/snap/docker/daemon.json"),
        ("dockerd -H fd:// --group docker -G docker --data-root-like x", "", ""),
    ],
)
def test_flags_of_dockerd_are_found_in_its_command_line(started: str, root: str, file: str) -> None:
    assert docker_data.flags(started) == (root, file)


ENGINE = {
    "live": "/var/lib/docker", "live_real": "/var/lib/docker", "driver": "overlay2", "status": "[]", "mine": None,
    "live_restore": "false", "security": "[name=seccomp]", "active": "active", "started": "dockerd -H fd://",
}  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize(
    ("facts", "settings", "why"),
    [
        ({}, {}, "^$"),
        ({"live": None, "live_real": None, "active": "inactive"}, {}, "^$"),
        ({"mine": "/var/lib/docker"}, {}, "^$"),
        ({"started": "dockerd --data-root /mnt/big/docker"}, {}, "--data-root /mnt/big/docker.*move the value there"),
        ({"started": "dockerd -g /mnt/a"}, {"data-root": "/mnt/b"}, "set twice"),
        ({"started": "dockerd --config-file /etc/other.json"}, {}, "--config-file /etc/other.json"),
        ({"live": "/mnt/x", "live_real": "/mnt/x"}, {}, "uses /mnt/x, and .* says /var/lib/docker; restart"),
        ({"mine": "/home/me/.local/share/docker"}, {}, "rootless"),
        ({"live": None, "live_real": None, "mine": "/home/me/.local/share/docker"}, {}, "rootless"),
        ({"active": "activating"}, {}, "^$"),
        ({"active": None}, {}, "started by hand"),
        ({"active": "inactive", "live": "/var/snap/docker/common/var-lib-docker"}, {}, "snap"),
        ({"live": "/var/lib/docker/100000.100000"}, {}, "user namespaces"),
        ({"live": None, "live_real": None}, {"userns-remap": "default"}, "user namespaces"),
    ],
)
def test_an_engine_that_daemon_json_does_not_move_is_refused(
    facts: dict[str, str | None], settings: dict[str, object], why: str
) -> None:
    assert re.search(why, docker_data.engine_refusal({**ENGINE, **facts}, settings, "/var/lib/docker"))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("facts", "settings", "why"),
    [
        ({}, {}, "^$"),
        ({"live_restore": "true"}, {}, "live-restore is on"),
        ({"live": None, "live_restore": None}, {"live-restore": True}, "live-restore is on"),
        ({"started": "dockerd --live-restore"}, {}, "live-restore is on"),
        ({"started": "dockerd --live-restore=false"}, {}, "^$"),
        ({"status": '[["driver-type","io.containerd.snapshotter.v1"]]'}, {}, "in containerd"),
        ({"driver": "btrfs"}, {}, "storage driver btrfs"),
        ({"driver": None}, {"storage-driver": "zfs"}, "storage driver zfs"),
    ],
)
def test_data_that_a_copy_of_files_would_not_hold_are_refused(
    facts: dict[str, str | None], settings: dict[str, object], why: str
) -> None:
    assert re.search(why, docker_data.copy_refusal({**ENGINE, **facts}, settings))


FOLDERS = {
    "base": "/media/volume", "mounts": ROOT_FS + VOLUME, "old_real": "/var/lib/docker", "need_kib": "2048",
    "files": "100", "has_kib": None, "has_files": None, "free_kib": "4096", "free_files": "1000", "all_files": "2000",
    "writable": "yes", "no_d_type": None, "parts": None,
}  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, "^$"),
        ({"free_kib": "1024"}, "has 1 MiB free, and Docker's data take 2 MiB"),
        ({"free_kib": "1024", "has_kib": "1536"}, "^$"),
        ({"need_kib": None}, "could not be measured"),
        ({"free_files": "5"}, "5 more files"),
        ({"free_files": "0", "all_files": "0"}, "^$"),  # btrfs counts none
        ({"writable": None}, "is read-only"),
        ({"mounts": ROOT_FS + VOLUME.replace("rw -", "ro -")}, "is read-only"),
        ({"mounts": ROOT_FS + VOLUME.replace("rw -", "rw,noexec -")}, "noexec"),
        ({"mounts": ROOT_FS + VOLUME.replace("ext4", "nfs4")}, "of the type nfs4"),
        ({"mounts": ROOT_FS + VOLUME.replace("ext4", "vfat")}, "of the type vfat"),
        ({"mounts": ROOT_FS + VOLUME.replace("ext4", "fuse.sshfs")}, "of the type fuse.sshfs"),
        ({"mounts": ROOT_FS + VOLUME.replace("ext4", "overlay")}, "of the type overlay"),
        ({"no_d_type": "yes"}, "d_type"),
        ({"parts": "/var/lib/docker/volumes"}, "/var/lib/docker/volumes in the old folder is a mount"),
    ],
)
def test_a_disk_that_can_not_take_the_data_is_refused(facts: dict[str, str | None], why: str) -> None:
    assert re.search(why, docker_data.room_refusal({**FOLDERS, **facts}, "/media/volume/docker", "overlay2"))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("path", "right"),
    [("/media/volume/docker", True), ("/", False), ("//", False), ("docker", False), ("~/docker", False), ("", False),
     ("/a\nb", False), ("/my volume/docker", True)],
)  # fmt: skip
def test_a_data_root_is_the_absolute_path_of_a_folder(path: str, right: bool) -> None:
    assert docker_data.is_folder_name(path) is right


@pytest.mark.unit
def test_a_path_in_a_unit_is_quoted_where_it_must_be() -> None:
    assert docker_data.in_unit("/media/volume/docker") == "/media/volume/docker"
    assert docker_data.in_unit('/a "b" 5%') == '"/a \\"b\\" 5%%"'


@pytest.fixture
def roots(tmp_path: Path, programs: Callable[[str, str], None]) -> tuple[Path, Path]:
    """Give an old data root and the one in use, as a move leaves them; what Docker made, and a reader's own file."""
    old, live = tmp_path / "old", tmp_path / "live"
    for root in (old, live):
        for name in ("overlay2/layer/diff", "image/overlay2", "volumes/v/_data", "containers"):
            (root / name).mkdir(parents=True)
        (root / "volumes/v/_data/file").write_text("data")
        (root / "engine-id").write_text("id")
    (old / "lost+found").mkdir()
    (old / "my notes.txt").write_text("mine")
    (old / ".hidden").write_text("mine")
    (live / docker_data.MOVED).write_text(f"{old}\n")
    programs("docker", f"echo {live}")
    return old, live


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.unit
def test_only_what_docker_made_is_deleted_and_what_stays_is_told(
    roots: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, live = roots
    before = _tree(live)
    host = Target.open("host")
    assert docker_host.old_data(host) == str(old)
    docker_host.delete_old_data(host)
    assert _tree(old) == [".hidden", "lost+found", "my notes.txt"] and _tree(live) == before
    assert "my notes.txt" in capsys.readouterr().out
    assert docker_host.old_data(host) == ""
    docker_host.delete_old_data(host)


@pytest.mark.unit
def test_a_deletion_that_was_interrupted_is_completed(roots: tuple[Path, Path]) -> None:
    old, _ = roots
    (old / "overlay2/layer/diff").rmdir()
    (old / "engine-id").unlink()
    docker_host.delete_old_data(Target.open("host"))
    assert _tree(old) == [".hidden", "lost+found", "my notes.txt"]


@pytest.mark.unit
def test_the_root_in_use_inside_the_old_one_is_never_deleted(
    tmp_path: Path, roots: tuple[Path, Path], programs: Callable[[str, str], None]
) -> None:
    old, _ = roots
    for name in ("docker", "volumes/docker"):
        live = old / name
        (live / "image").mkdir(parents=True)
        (live / docker_data.MOVED).write_text(f"{old}\n")
        programs("docker", f"echo {live}")
        docker_host.delete_old_data(Target.open("host"))
        assert (live / "image").is_dir() and (old / "my notes.txt").exists()
    assert not (old / "overlay2").exists()


@pytest.mark.unit
@pytest.mark.parametrize("record", ["{live}", "{live}/", "{live}/../live", "{link}", "{live}/volumes/v/_data", "/",
                                    "relative", "", "not copied: {old}", "{away}", "{old}\nother-machine"])  # fmt: skip
def test_a_record_that_does_not_name_an_old_root_deletes_nothing(
    tmp_path: Path, roots: tuple[Path, Path], record: str
) -> None:
    old, live = roots
    (tmp_path / "link").symlink_to(live)
    (live / "volumes/v/_data/image").mkdir()
    text = record.format(old=old, live=live, link=tmp_path / "link", away=tmp_path / "away")
    (live / docker_data.MOVED).write_text(text + "\n")
    before = _tree(tmp_path)
    host = Target.open("host")
    assert docker_host.old_data(host) == ""
    docker_host.delete_old_data(host)
    assert _tree(tmp_path) == before


@pytest.mark.unit
def test_a_link_is_not_followed_and_what_the_root_in_use_links_to_stays(
    tmp_path: Path, roots: tuple[Path, Path]
) -> None:
    old, live = roots
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    (old / "tmp").symlink_to(tmp_path / "elsewhere")
    (live / "containers").rmdir()
    (live / "containers").symlink_to(old / "containers")
    docker_host.delete_old_data(Target.open("host"))
    assert (tmp_path / "elsewhere" / "file").exists() and (old / "tmp").is_symlink()
    assert (old / "containers").is_dir() and not (old / "overlay2").exists()


@pytest.mark.unit
def test_what_a_volume_links_to_and_what_a_container_writes_to_stays(
    roots: tuple[Path, Path], programs: Callable[[str, str], None]
) -> None:
    old, live = roots
    (live / "volumes/w").symlink_to(old / "volumes/v")
    answers = f"ps*) echo id ;; inspect*) echo {old}/containers/c ;; *) echo {live} ;;"
    (old / "containers/c").mkdir()
    programs("docker", f'case "$*" in {answers} esac')
    docker_host.delete_old_data(Target.open("host"))
    assert (old / "volumes/v/_data/file").exists() and (old / "containers/c").is_dir()
    assert not (old / "overlay2").exists()


@pytest.mark.unit
def test_an_old_root_that_is_reached_by_a_link_is_the_folder_behind_it(
    tmp_path: Path, roots: tuple[Path, Path]
) -> None:
    old, live = roots
    (tmp_path / "var").symlink_to(old)
    (live / docker_data.MOVED).write_text(f"{tmp_path / 'var'}/\n")
    assert docker_host.old_data(Target.open("host")) == str(old)
    docker_host.delete_old_data(Target.open("host"))
    assert not (old / "overlay2").exists() and (old / "my notes.txt").exists()


@pytest.mark.unit
@pytest.mark.parametrize("engine", ["exit 1", "echo; exit 1", "echo", "echo host: Debian", "sleep 0; echo relative"])
def test_without_an_engine_that_names_its_root_nothing_is_deleted(
    roots: tuple[Path, Path], programs: Callable[[str, str], None], engine: str
) -> None:
    old, _ = roots
    programs("docker", engine)
    before, host = _tree(old), Target.open("host")
    assert docker_host.old_data(host) == ""
    with pytest.raises(TutorialError, match="Nothing was deleted"):
        docker_host.delete_old_data(host)
    assert _tree(old) == before


@pytest.mark.unit
def test_what_is_mounted_in_the_old_root_or_from_it_stays() -> None:
    facts = {
        "live_real": "/media/volume/docker", "old_real": "/var/lib/docker", "recorded": "/var/lib/docker",
        "recorded_on": None, "machine": "m", "links": None,
        "mounts": ROOT_FS + VOLUME
        + "60 27 254:0 /home/me/data /var/lib/docker/volumes/v/_data rw - ext4 /dev/vda rw\n"
        + "61 27 254:0 /var/lib/docker/containers/x /srv/x rw - ext4 /dev/vda rw\n"
        + "62 27 254:0 /var/lib/docker /var/lib/docker rw - ext4 /dev/vda rw\n",
        "entries": "plain volumes\nplain containers\nplain image\nplain www",
    }  # fmt: skip
    found = docker_data.old_data(facts)
    assert list(found.entries) == ["image"]
    assert found.kept == {
        "volumes": "something is mounted in it", "containers": "it is in use", "www": "Docker did not make it"
    }  # fmt: skip


@pytest.mark.unit
def test_the_room_of_a_root_behind_a_link_is_that_of_its_data(
    tmp_path: Path, programs: Callable[[str, str], None]
) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "layer").write_bytes(os.urandom(3 << 20))
    (tmp_path / "docker").symlink_to(tmp_path / "big")
    programs("docker", f"case $* in *root=*) echo root={tmp_path}/docker;; *) echo {tmp_path}/docker;; esac")
    first, second = docker_host.room(Target.open("host"), str(tmp_path / "volume" / "new"))
    assert first["docker"] >= 3 and second["docker"] == 0
    assert first["disk"] == f"{tmp_path}/docker (in use)" and first["free"] == pytest.approx(second["free"], abs=50)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"labels": ["caf\xe9"]}', "not valid UTF-8"),
        (b"[]", "no JSON object"),
        (b'{"a": 1, "a": 2}', "more than once"),
    ],
)
def test_the_lab_registers_its_runtime_in_no_file_that_it_does_not_understand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "airgap"))
    import host

    path = tmp_path / "daemon.json"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=why):
        host._read_settings(path)
    path.write_bytes(TEXT.encode("utf-16"))
    assert host._read_settings(path) == SETTINGS and host._read_settings(tmp_path / "none") == {}
