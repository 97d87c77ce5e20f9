"""Base images for the shipped Dockerfiles where no container registry can be reached; README.md says more."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
DEBIAN = "debian:bookworm-slim"
# Image → the Dockerfile that makes its stand-in from Debian.
PRODUCTS = {"python:3.11-slim": "Dockerfile.python", "redis:7": "Dockerfile.redis"}
LABEL = "tutorial.stand-in"
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def docker(*words: str, check: bool = True, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
    """Run docker; the classic builder is in every version, so no plugin is needed."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout, env=environment)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


def ensure() -> None:
    """Have all base images here: those that are, from a registry, or made from Debian packages."""
    for image, dockerfile in PRODUCTS.items():
        wanted = _fingerprint(dockerfile)
        there = _label(image)
        if there is None and docker("pull", "-q", image, check=False, timeout=120).returncode == 0:
            continue
        if there is not None and there in ("", wanted):  # the real one, or the stand-in of this recipe
            continue
        _debian()
        _build(image, dockerfile, wanted)


def _label(image: str) -> str | None:
    """Give an image's stand-in label: empty for a real image, None where there is none."""
    done = docker("image", "inspect", image, check=False)
    return (json.loads(done.stdout)[0]["Config"]["Labels"] or {}).get(LABEL, "") if done.returncode == 0 else None


def _fingerprint(*names: str) -> str:
    parts = [HERE / name for name in (*names, "redis-entrypoint.sh", "bases.py")]
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in parts)).hexdigest()[:16]


def _debian() -> None:
    """Make Debian from this machine's own mirror by debootstrap, with its certificates."""
    wanted = _fingerprint()
    if _label(DEBIAN) in ("", wanted):
        return
    program = shutil.which("debootstrap") or shutil.which("debootstrap", path="/usr/sbin")
    assert program, "no registry answers, and debootstrap is missing: apt install debootstrap"
    mirror = re.search(r"^URIs:\s*(\S+)", _SOURCES.read_text(), re.MULTILINE)
    assert mirror, f"{_SOURCES} names no mirror"
    with tempfile.TemporaryDirectory(prefix="tutorial-debian-") as folder:
        root = Path(folder) / "root"
        argv = [program, "--variant=minbase", "--include=ca-certificates", "bookworm", str(root), mirror[1]]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:]
        for emptied in ("var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(root / emptied)
            (root / emptied).mkdir()
        shutil.copyfile(_SOURCES, root / "etc/apt/sources.list.d/debian.sources")
        (root / "etc/apt/sources.list").write_text("")
        shutil.copyfile(_CERTIFICATES, root / "etc/ssl/certs/ca-certificates.crt")
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True, timeout=120)
        trust = f"SSL_CERT_FILE={_CERTIFICATES} PIP_CERT={_CERTIFICATES}"
        docker(
            "import", "--change", 'CMD ["bash"]', "--change", f"ENV {trust}", "--change", f"LABEL {LABEL}={wanted}",
            str(archive), DEBIAN,
        )  # fmt: skip


def _build(image: str, dockerfile: str, wanted: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tutorial-image-") as folder:
        for name in (dockerfile, "redis-entrypoint.sh"):
            shutil.copy2(HERE / name, folder)
        configuration = Path("/etc/pip.conf")
        index = configuration.read_text() if configuration.exists() else ""
        # pip's certificate file is another one in there.
        (Path(folder) / "pip.conf").write_text(re.sub(r"(?m)^\s*cert\s*=.*$", f"cert = {_CERTIFICATES}", index))
        docker(
            "build", "-q", "--network", "host", "--label", f"{LABEL}={wanted}", "-t", image,
            "-f", f"{folder}/{dockerfile}", folder,
        )  # fmt: skip
