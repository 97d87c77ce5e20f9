"""A rehearsal of chapter 04 without a GPU: NVIDIA's apt repositories, played on the machine's loopback address.

The packages carry the real names and versions, and nothing else, but for NVIDIA's container runtime and its tool, which
are real. They are signed by a key that is made for this and thrown away.
"""

import hashlib
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import rmtree, which

from helpers import airgap, display, gpu
from helpers.errors import TutorialError
from helpers.settings import ROOT
from helpers.target import Target
from helpers.target_local import run_here

INSTALL = "sudo apt install golang gcc dpkg gpg"
PORT = 8604  # on the machine; the apt sources name it
_MAKER = ROOT / "tests" / "airgap" / "nvidia" / "repository.py"
_MADE_FROM = (_MAKER, _MAKER.with_name("packages.toml"), ROOT / "deployments/gpu/versions.toml")
_PROGRAMS = ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-runtime-hook")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def lacking() -> list[str]:
    """List the programs of this machine that a rehearsal needs and that are not there."""
    made = all(airgap.program(name).exists() for name in _PROGRAMS)
    return [name for name in ("dpkg-deb", "gpg", *(() if made else ("go", "gcc"))) if not which(name)]


def can_rehearse() -> bool:
    """Tell whether this machine can make the stand-in packages, and show what it lacks for that."""
    missing = lacking()
    if missing:
        display.show(f"No rehearsal without {', '.join(missing)} on this machine: {INSTALL}")
    return not missing


def repository(target: Target) -> Path:
    """Have the stand-in repository for a machine; it is made once, and anew when what it is made from has changed.

    Args:
        target: The machine that will use it, and trust its key.

    Returns:
        Its folder.

    Raises:
        TutorialError: It could not be made: Go, dpkg-deb or gpg is missing.
    """
    programs = [airgap.program(name) for name in _PROGRAMS]
    if not all(program.exists() for program in programs):
        airgap.build("nvidia", quiet=True)
    inputs = [p.read_bytes() for p in _MADE_FROM] + [str(p).encode() for p in programs]
    stamp = hashlib.sha256(b"\0".join(inputs)).hexdigest()
    folder = gpu.stand_in_folder(target.name)
    mark = folder / "made-from"
    if mark.exists() and mark.read_text() == stamp:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        display.progress("The stand-in of NVIDIA's repositories"),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".nvidia-") as work,
    ):
        made = Path(work) / "made"
        argv = [sys.executable, str(_MAKER), str(made), *map(str, programs)]
        done = run_here(argv, check=False, timeout=120)
        if done.returncode != 0:
            missing = "the programs dpkg-deb and gpg are needed here (Debian, Ubuntu: apt install dpkg gpg)"
            raise TutorialError("The stand-in repository was not made", "", missing, output=done.stderr)
        (made / "made-from").write_text(stamp)
        rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


@contextmanager
def served(target: Target, folder: Path | None = None) -> Iterator[Mapping[str, object]]:
    """Serve the stand-in repository on a machine's loopback address, while the block runs.

    Args:
        target: The machine.
        folder: The repository; by default the machine's own.

    Yields:
        Values for the deploys' `host.data`: where the packages are, and whose key signs them.
    """
    folder = folder or repository(target)
    fingerprint = (folder / "fingerprint").read_text().strip()
    address = f"http://127.0.0.1:{PORT}"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, name="stand-in", daemon=True).start()
        try:
            with target.expose(server.server_port, "127.0.0.1", PORT):
                yield {
                    "ppa": f"{address}/ppa",
                    "ppa_key": f"{address}/ppa/key.asc",
                    "ppa_fingerprint": fingerprint,
                    "suite": "jammy",
                    "cuda_repository": f"{address}/cuda",
                    "toolkit_repository": f"{address}/toolkit",
                    "toolkit_fingerprint": fingerprint,
                }
        finally:
            server.shutdown()
