"""Make the stand-in of NVIDIA's apt repositories, signed, with the real names: `repository.py FOLDER PROGRAM …`

The packages hold a note each, and no program that would play a GPU; NVIDIA's runtime and its tool are the real ones,
whose paths are given. The signing key is made here and thrown away; FOLDER/fingerprint tells which it was.
Source of the layout: https://wiki.debian.org/DebianRepository/Format.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("packages.toml")
VERSIONS = Path(__file__).resolve().parents[3] / "deployments" / "gpu" / "versions.toml"
PIN = """Package: *
Pin: release l=NVIDIA CUDA
Pin-Priority: 600
"""
NOTE = "A stand-in with the name and the version of NVIDIA's package, and nothing else in it.\n"


def run(*argv: str, cwd: Path | None = None) -> str:
    """Run a command; its output is the answer, and its failure ends this program."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout


def package(row: Mapping[str, Any], programs: Mapping[str, Path], folder: Path) -> None:
    """Build one package into a folder."""
    real = [programs[name] for name in row.get("programs", ())]
    architecture = run("dpkg", "--print-architecture").strip() if real else "all"
    control = {
        "Package": row["name"],
        "Version": row["version"],
        "Architecture": architecture,
        "Maintainer": "The tutorial's lab <nobody@localhost>",
        "Depends": row.get("depends", ""),
        "Description": f"stand-in for {row['name']}",
    }
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = {
            "DEBIAN/control": "".join(f"{k}: {v}\n" for k, v in control.items() if v),
            row.get("note", f"/usr/share/doc/{row['name']}/README").strip("/"): NOTE,
        }
        if row.get("postinst"):
            files["DEBIAN/postinst"] = f"#!/bin/sh\nset -e\n{row['postinst']}\n"
        write(root, files)
        for program in real:
            (root / "usr/bin").mkdir(parents=True, exist_ok=True)
            shutil.copy(program, root / "usr/bin" / program.name)
        build(root, folder / f"{row['name']}_{row['version'].replace(':', '%3a')}_{architecture}.deb")


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write some files below a folder; maintainer scripts may be run."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(0o755 if path.endswith("inst") else 0o644)


def build(root: Path, package: Path) -> None:
    """Pack a folder as a package."""
    package.parent.mkdir(parents=True, exist_ok=True)
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(root), str(package))


def stanza(package: Path, top: Path) -> str:
    """Describe a package as an index does, its path seen from the top of the repository."""
    content = package.read_bytes()
    about = run("dpkg-deb", "--field", str(package)).strip()
    lines = [f"Filename: {package.relative_to(top)}", f"Size: {len(content)}", f"SHA256: {sha256(content)}"]
    return "\n".join([about, *lines]) + "\n"


def sha256(content: bytes) -> str:
    """Hash some bytes."""
    return hashlib.sha256(content).hexdigest()


def index(top: Path, release: Path, packages: Path, fields: Mapping[str, str], home: Path) -> None:
    """Write Packages for all packages below a folder, and the signed Release that vouches for it."""
    packages.mkdir(parents=True, exist_ok=True)
    text = "\n".join(stanza(deb, top) for deb in sorted(top.rglob("*.deb"))).encode()
    (packages / "Packages").write_bytes(text)
    (packages / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))
    made = [packages / "Packages", packages / "Packages.gz"]
    sums = [f" {sha256(p.read_bytes())} {p.stat().st_size} {p.relative_to(release)}" for p in made]
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    head = [f"{k}: {v}" for k, v in {**fields, "Date": now}.items()]
    (release / "Release").write_text("\n".join([*head, "SHA256:", *sums]) + "\n")
    sign(home, "--clearsign", release / "Release", release / "InRelease")


def sign(home: Path, how: str, source: Path, destination: Path) -> None:
    """Sign a file."""
    run("gpg", "--homedir", str(home), "--batch", "--yes", how, "-o", str(destination), str(source))


def cuda_repository(folder: Path, rows: Sequence[Mapping[str, Any]], home: Path, key: Path) -> None:
    """Make the package that holds CUDA's repository: its files in /var, its key beside them, its source for apt."""
    versions = tomllib.loads(VERSIONS.read_text())
    version = versions["sets"]["reference"]["cuda"]
    about = versions["cuda"][version]
    dashed, release = version.replace(".", "-"), about["release"]
    name = f"cuda-repo-ubuntu2204-{dashed}-local"
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        top = root / "var" / name
        for row in rows:
            package(row, {}, top)
        index(top, top, top, {"Origin": "NVIDIA", "Label": "NVIDIA CUDA"}, home)
        shutil.copy(key, top / about["keyring"])
        signed = f"signed-by=/usr/share/keyrings/{about['keyring']}"
        control = f"Package: {name}\nVersion: {release}-{about['driver']}-1\nArchitecture: all\n"
        control += f"Maintainer: The tutorial's lab <nobody@localhost>\nDescription: stand-in for {name}\n"
        listed = f"etc/apt/sources.list.d/cuda-ubuntu2204-{dashed}-local.list"
        write(root, {"DEBIAN/control": control, listed: f"deb [{signed}] file:///var/{name} /\n"})
        write(root, {"DEBIAN/conffiles": f"/{listed}\n"})
        deb = folder / release / "local_installers" / f"{name}_{release}-{about['driver']}-1_amd64.deb"
        build(root, deb)
    sums = f"{hashlib.md5(deb.read_bytes()).hexdigest()}  {deb.name}\n"
    write(folder, {f"{release}/docs/sidebar/md5sum.txt": sums, "repos/ubuntu2204/x86_64/cuda-ubuntu2204.pin": PIN})


def main(folder: Path, programs: Mapping[str, Path]) -> None:
    """Make all three repositories below a folder."""
    table = tomllib.loads(TABLE.read_text())
    with tempfile.TemporaryDirectory(prefix="gpg-") as name:
        home = Path(name)
        words = ["gpg", "--homedir", name, "--batch", "--quiet"]
        made = [
            "--passphrase",
            "",
            "--quick-gen-key",
            "Stand-in of NVIDIA's repositories (throw-away)",
            "ed25519",
            "sign",
        ]
        run(*words, *made, "never")
        run(*words, "--armor", "-o", str(home / "key.asc"), "--export")
        run(*words, "-o", str(home / "key.gpg"), "--export")
        shown = run(*words, "--with-colons", "--list-keys").splitlines()
        write(folder, {"fingerprint": next(x.split(":")[9] for x in shown if x.startswith("fpr")) + "\n"})

        architecture = run("dpkg", "--print-architecture").strip()
        for row in table["ppa"]:
            package(row, programs, folder / "ppa" / "pool")
        release = folder / "ppa" / "dists" / "jammy"
        fields = {
            "Origin": "LP-PPA-graphics-drivers",
            "Label": "Graphics Drivers",
            "Suite": "jammy",
            "Codename": "jammy",
        }
        fields |= {"Components": "main", "Architectures": architecture}
        index(folder / "ppa", release, release / "main" / f"binary-{architecture}", fields, home)

        flat = folder / "toolkit" / "stable" / "deb" / architecture
        for row in table["toolkit"]:
            package(row, programs, flat)
        index(flat, flat, flat, {"Origin": "https://nvidia.github.io/libnvidia-container"}, home)

        cuda_repository(folder / "cuda", table["cuda"], home, home / "key.gpg")
        for place in ("ppa/key.asc", "toolkit/gpgkey"):
            shutil.copy(home / "key.asc", folder / place)
        run("gpgconf", "--homedir", name, "--kill", "gpg-agent")


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]), {Path(p).name: Path(p) for p in sys.argv[2:]})
