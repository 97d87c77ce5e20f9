"""The programs kubectl, kind and helm: each machine gets those of its own system and processor."""

import hashlib
import io
import platform
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers import tools
from helpers.errors import TutorialError

pytestmark = pytest.mark.unit
_PLATFORMS = ("linux-amd64", "linux-arm64", "darwin-arm64")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def _archive(name: str, content: bytes) -> bytes:
    with io.BytesIO() as stream:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()


@pytest.fixture(autouse=True)
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Publish kubectl and helm on the loopback address, with checksums; the cache is empty."""
    web = tmp_path / "web"
    web.mkdir()
    for name in _PLATFORMS:
        files = {f"kubectl-{name}": b"kubectl " + name.encode()}
        files[f"helm-{name}.tar.gz"] = _archive(f"{name}/helm", b"helm " + name.encode())
        for file, content in files.items():
            (web / file).write_bytes(content)
            (web / f"{file}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {file}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(web))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        downloads = {
            "kubectl": (f"{address}/kubectl-{{s}}-{{a}}", ".sha256"),
            "helm": (f"{address}/helm-{{s}}-{{a}}.tar.gz", ".sha256"),
        }
        monkeypatch.setattr(tools, "_DOWNLOADS", downloads)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        tools.find.cache_clear()
        yield web
        tools.find.cache_clear()
        server.shutdown()


@pytest.mark.parametrize("machine", _PLATFORMS)
@pytest.mark.parametrize("name", ["kubectl", "helm"])
def test_a_program_is_the_one_of_its_machine(name: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64" if machine == "linux-amd64" else "x86_64")
    found = tools.find(name, machine)
    assert found.read_bytes() == f"{name} {machine}".encode()
    assert found.stat().st_mode & 0o111 and tools.find(name, machine) == found


def test_a_damaged_download_is_refused(publisher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (publisher / "kubectl-linux-arm64").write_bytes(b"<html>log in to the network first</html>")
    with pytest.raises(TutorialError, match=r"(?s)no kubectl .* for linux-arm64.*published checksum"):
        tools.find("kubectl", "linux-arm64")
    assert not [path for path in tools.cache_folder().rglob("*") if path.is_file()], "nothing half-written stays"


def test_a_machine_without_programs_is_named() -> None:
    with pytest.raises(TutorialError, match="no programs for Linux riscv64"):
        tools._platform("Linux riscv64")
