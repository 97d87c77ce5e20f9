"""The real binaries (kubectl, kind, helm): PATH, else the lab, else a download checked by checksum, else go install."""

import hashlib
import io
import os
import platform
import shutil
import tarfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import requests

from helpers import http, shell
from helpers.errors import TutorialError
from helpers.settings import ROOT, settings
from helpers.target import Capability, Target, opened
from helpers.target_local import run_here
from helpers.undo import Leftover

VERSIONS = tomllib.loads((ROOT / "deployments" / "versions.toml").read_text(encoding="utf-8"))
TOOLS: dict[str, str] = VERSIONS["tools"]
# Where each project publishes its binaries and their checksums: (program or archive, checksum file).
_DOWNLOADS = {
    "kubectl": ("https://dl.k8s.io/release/{v}/bin/{s}/{a}/kubectl", ".sha256"),
    "kind": ("https://github.com/kubernetes-sigs/kind/releases/download/{v}/kind-{s}-{a}", ".sha256sum"),
    "helm": ("https://get.helm.sh/helm-{v}-{s}-{a}.tar.gz", ".sha256sum"),
}
_MODULES = {
    "kind": "sigs.k8s.io/kind@{v}",
    "helm": "helm.sh/helm/v3/cmd/helm@{v}",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@{v}",
    "kube-score": "github.com/zegl/kube-score/cmd/kube-score@{v}",
}
_LAB = {
    "kubectl": "kubernetes",
    "kind": "kind",
    "helm": "helm",
    "kubeconform": "kubeconform",
    "kube-score": "kube-score",
}
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_VERSION_WORDS = {"kubectl": ["version", "--client"], "kind": ["version"], "helm": ["version", "--short"]}


def cache_folder() -> Path:
    """Give the folder that tools are kept in between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutorial" / "tools"


def _platform(words: str) -> str:
    """Name a machine as the projects name their binaries, such as `linux-amd64`; from `uname -sm`.

    Raises:
        TutorialError: There are no binaries for it.
    """
    system, _, architecture = words.lower().partition(" ")
    if system not in ("linux", "darwin") or architecture not in _ARCHITECTURES:
        raise TutorialError(
            f"There are no programs for {words}", "the tools of chapter 06 exist for Linux and macOS on x86-64 and ARM",
            "use another machine",
        )  # fmt: skip
    return f"{system}-{_ARCHITECTURES[architecture]}"


def _here() -> str:
    return _platform(f"{platform.system()} {platform.machine()}")


@cache
def find(name: str, machine: str = "") -> Path:
    """Find a tool in the pinned version, or get it.

    Args:
        name: One of `deployments/versions.toml`.
        machine: What it is for, such as `linux-arm64`; by default this machine.

    Returns:
        The program, which is on this machine.

    Raises:
        TutorialError: It is on PATH in no pinned version, and can neither be downloaded nor built.
    """
    version, tried = TOOLS[name], list[str]()
    if machine and machine != _here():
        kept = cache_folder() / version / machine / name
        if kept.exists() or _get_first({"a download": partial(_download, machine=machine)}, name, kept, tried):
            return kept
        raise TutorialError(
            f"There is no {name} {version} for {machine}", "; ".join(tried),
            f"connect to the internet, or put {name} {version} on the machine's PATH yourself",
        )  # fmt: skip
    on_path = shutil.which(name)
    if on_path and version in _says(Path(on_path), name):
        return Path(on_path)
    kept = cache_folder() / version / name
    ways = {
        "the lab": _from_lab, "a download": _download, "the lab, made now": _made_by_lab, "go install": _go_install,
    }  # fmt: skip
    if kept.exists() or _get_first(ways, name, kept, tried):
        return kept
    raise TutorialError(
        f"There is no {name} {version}",
        "; ".join([f"on PATH: {on_path or 'nothing'}", *tried]),
        f"put {name} {version} on PATH, connect to the internet, or install Go",
    )


def _get_first(ways: Mapping[str, Callable[[str, Path], None]], name: str, kept: Path, tried: list[str]) -> bool:
    """Get a tool by the first way that works, and note down why the ones before did not."""
    for way, get in ways.items():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f".{name}.{os.getpid()}")
            get(name, part)
            part.chmod(0o755)
            part.rename(kept)
            return True
        except (TutorialError, OSError, requests.RequestException, LookupError, tarfile.TarError) as error:
            tried.append(f"{way}: {error.what if isinstance(error, TutorialError) else type(error).__name__}")
    return False


def _says(program: Path, name: str) -> str:
    try:
        done = run_here([str(program), *_VERSION_WORDS.get(name, ["-v"])], check=False, timeout=20)
    except TutorialError:  # it hangs, and is as good as missing
        return ""
    return done.stdout + done.stderr


def _from_lab(name: str, destination: Path) -> None:
    """Take it from the air-gapped lab when that has it already, or is what the reader has chosen."""
    from helpers import airgap

    made = airgap.program(_LAB[name])
    if not made.exists():
        if not settings().airgap:
            raise TutorialError("it has not been made")
        _build_in_lab(name)
    shutil.copy2(made, destination)


def _made_by_lab(name: str, destination: Path) -> None:
    """Have the lab make it, where nothing can be downloaded; that takes Go, and no Docker."""
    from helpers import airgap

    if settings().airgap is False:
        raise TutorialError("TUTORIAL_AIRGAP=0")
    _build_in_lab(name)
    shutil.copy2(airgap.program(_LAB[name]), destination)


def _build_in_lab(name: str) -> None:
    from helpers import airgap

    airgap.build("tools" if name in _DOWNLOADS else "checks", quiet=True)


def _download(name: str, destination: Path, machine: str = "") -> None:
    system, _, architecture = (machine or _here()).partition("-")
    pattern, suffix = _DOWNLOADS[name]
    url = pattern.format(v=TOOLS[name], s=system, a=architecture)
    content = _get(url)
    expected = _get(url + suffix).decode().split()[0]
    if hashlib.sha256(content).hexdigest() != expected:
        raise TutorialError(f"{url} does not have its published checksum")
    if url.endswith(".tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            member = archive.extractfile(f"{system}-{architecture}/{name}")
            content = member.read() if member else b""
    destination.write_bytes(content)


def _get(url: str) -> bytes:
    answer = http.get(url, timeout=(10, 300))
    answer.raise_for_status()
    return answer.content


def _go_install(name: str, destination: Path) -> None:
    env = {"GOBIN": str(destination.parent), "CGO_ENABLED": "0"}
    module = _MODULES[name].format(v=TOOLS[name])
    run_here(["go", "install", "-trimpath", module], env=env, timeout=1800)
    (destination.parent / name).rename(destination)


_ASIDE = ".tutorial-bin"  # in the home folder: for a tool where the reader has another version of it
# Chooses where a tool goes, and notes it down: never over one that the tutorial did not put there.
_PLACE = f"""path=${{1:-$HOME/.local/bin}}/$0; noted() {{ grep -qxF "$1" ~/.tutorial-tools 2>/dev/null; }}
if [ -e "$path" ] || [ -L "$path" ]; then noted "$path" || path=$HOME/{_ASIDE}/$0; fi
noted "$path" || echo "$path" >>~/.tutorial-tools
echo "$path"
"""


def install(target: Target, *names: str) -> dict[str, str]:
    """Make tools available on a target, for its user as well.

    Args:
        target: The target.
        names: The tools.

    Returns:
        The path of each on the target.

    Raises:
        TutorialError: A tool could not be got or copied.
    """
    return {name: _install(target, name) for name in names}


def _install(target: Target, name: str) -> str:
    where = f"command -v {name}; echo ~/{_ASIDE}/{name}"
    words = _VERSION_WORDS.get(name, ["-v"])
    for found in target.run(["sh", "-c", where], check=False, repeatable=True).stdout.splitlines():
        if TOOLS[name] in target.run(["sh", "-c", '"$0" "$@"', found, *words], check=False, repeatable=True).stdout:
            return found
    if target.kind in ("local", "host"):
        return str(find(name))
    part = f".{name}.tutorial"  # in the home folder
    machine = shell.query(target, {"uname": "uname -sm"})["uname"] or ""
    target.put(find(name, _platform(machine)), part)
    root = Capability.ROOT in target.capabilities()
    path = target.run(["sh", "-c", _PLACE, name, "/usr/local/bin" if root else ""]).stdout.strip()
    install = ["install", "-D", "-m", "755", part, path]
    target.run(target.sudo(*install) if path.startswith("/usr/") else install)
    target.run(["rm", "-f", part])
    return path


def leftovers(target: str) -> list[Leftover]:
    """List the tools that were put on a machine; the VM goes as a whole."""
    if target in ("local", "vm", "host"):
        return []
    with opened(target) as machine:
        said = machine.run(
            ["sh", "-c", "cat ~/.tutorial-tools 2>/dev/null || true"], repeatable=True
        ).stdout.splitlines()
        return [Leftover("tools of the tutorial", " ".join(said), lambda: _remove(target, said))] if said else []


def _remove(target: str, paths: Sequence[str]) -> None:
    with opened(target) as machine:
        for path in paths:
            machine.run(machine.sudo("rm", "-f", path) if path.startswith("/usr/") else ["rm", "-f", path])
        machine.run(["sh", "-c", "rm -f ~/.tutorial-tools"])
