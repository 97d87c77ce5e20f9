"""What is shipped: pins, self-contained folders, refusals in production, and a run by hand as README says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from forwarder_stack import APPLICATIONS, port_is_open, stack, wait_until

from helpers.settings import ROOT

PARTS = {"fastapi": "run_fastapi.py", "celery": "run_celery.py", "flower": "run_flower.py", "beat": "run_beat.py"}


def _packages(part: str) -> dict[str, str]:
    return _pins(APPLICATIONS / part / "packages.txt")


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", path.read_text(), re.MULTILINE))


@pytest.mark.unit
@pytest.mark.parametrize("part", PARTS)
def test_packages_are_pinned_to_what_is_tested_here(part: str) -> None:
    locked = _pins(ROOT / "requirements.lock")
    packages = _packages(part)
    assert packages and all(locked[name] == version for name, version in packages.items())
    direct = (APPLICATIONS / part / "packages.in").read_text().split()
    assert {re.sub(r"\[.*\]", "", name) for name in direct} <= packages.keys()
    text = (APPLICATIONS / part / "packages.txt").read_text()
    assert len(re.findall(r"^\S+==.*\\\n +--hash=sha256:", text, re.MULTILINE)) == len(packages), "each with its hashes"


@pytest.mark.unit
def test_copies_of_shared_modules_are_equal_and_names_on_the_wire_agree() -> None:
    for module, count in {"environment": len(PARTS), "airflow": 2}.items():
        copies = [path.read_bytes() for path in APPLICATIONS.glob(f"*/forwarder_*/{module}.py")]
        assert len(copies) == count and len(set(copies)) == 1, module
    pattern = re.compile(r"^([A-Z_]+) = (.+)$", re.MULTILINE)
    front, back = (
        dict(pattern.findall((APPLICATIONS / place / "keys.py").read_text()))
        for place in ("fastapi/forwarder_frontend", "celery/forwarder_backend")
    )
    assert all(front[name] == back[name] for name in front.keys() & back.keys())
    assert len(front.keys() & back.keys()) >= 5


@pytest.mark.unit
@pytest.mark.parametrize("part", PARTS)
def test_dockerfiles_run_as_a_number_and_copy_what_they_need(part: str) -> None:
    text = (APPLICATIONS / part / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3.11-slim$", text, re.MULTILINE)
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    assert f'CMD ["python3", "{PARTS[part]}"]' in text
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (APPLICATIONS / part / source).exists(), line


@pytest.mark.unit
def test_the_compose_file_keeps_what_was_accepted() -> None:
    redis = yaml.safe_load((ROOT / "applications" / "redis.yaml").read_text())["services"]["redis"]
    assert redis["ports"] == ["127.0.0.1:6379:6379"]
    assert " ".join(redis["command"]).endswith("--appendonly yes --appendfsync always --maxmemory-policy noeviction")


@pytest.mark.component
@pytest.mark.parametrize(("part", "password"), [("celery", "FLOWER_PASSWORD"), ("flower", "FLOWER_PASSWORD")])
def test_production_refuses_the_printed_passwords(part: str, password: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "FORWARDER_ENV": "production", "LOG_FOLDER": str(tmp_path)}
    argv = [sys.executable, PARTS[part]]
    done = subprocess.run(argv, cwd=APPLICATIONS / part, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert password in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.component
@pytest.mark.timeout(400)
def test_each_part_runs_by_hand_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """As applications/README.md shows, but with uv in place of pip, which takes a tenth of the time."""
    uv = Path(sys.executable).with_name("uv")
    with stack(tmp_path) as made:
        programs = []
        for part, script in PARTS.items():
            environment = tmp_path / f"{part}_venv"
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, environment], check=True, timeout=60)
            python = environment / "bin" / "python"
            packages = APPLICATIONS / part / "packages.txt"
            argv = [uv, "pip", "install", "-q", "--python", python, "-r", packages]
            subprocess.run(argv, check=True, timeout=300)
            program = made.program(part, script)
            program.argv[0] = str(python)
            programs.append(program.start())
        wait_until(lambda: made.get("ready").status_code == 200, 30, programs[0].text())
        identity = made.accept()
        wait_until(lambda: made.done(identity), 30, programs[1].text())
        wait_until(lambda: port_is_open(int(made.env["FLOWER_PORT"])), 30, programs[2].text())
        wait_until(lambda: made.client.exists("forwarder:scheduler"), 30, programs[3].text())
        assert [program.stop() for program in programs] == [0, 0, 0, 0]


@pytest.mark.unit
def test_names_of_connections_in_a_cluster_are_dns_labels_and_no_two_are_the_same() -> None:
    places = [
        ("reader", "laptop/web"), ("a-b", "c/d"), ("a", "b-c/d"), ("a", "b/c-d"), ("A", "b/c"), ("1", "b/c"),
        ("a", "b.c/d"), ("a", "b_c/d"), ("x" * 64, "y" * 64 + "/z"), ("x" * 64, "y" * 64 + "/zz"), ("ä", "ö/ü"),
    ]  # fmt: skip
    script = (
        "import json, sys; from forwarder_backend.cluster import Service;"
        "from forwarder_backend.kubernetes_cluster import object_name;"
        "print(json.dumps([object_name(Service(u, p, 'import', 'h', 1)) for u, p in json.loads(sys.argv[1])]))"
    )
    argv = [sys.executable, "-c", script, json.dumps(places)]
    done = subprocess.run(argv, cwd=APPLICATIONS / "celery", check=True, capture_output=True, text=True, timeout=60)
    names = json.loads(done.stdout)
    assert names[0] == "reader-laptop-web"
    assert len(set(names)) == len(places)
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name) for name in names), names
