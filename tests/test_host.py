"""The target host, inside the tests' VM: the course is cloned there, opened through a tunnel, and run."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from helpers import airgap, kind
from helpers import cluster as deployed
from helpers.settings import ROOT
from helpers.target import Target

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)]
_TOKEN = "of-this-test-only"


@pytest.fixture(scope="module")
def clone(machine: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a clone of the course in the VM's home folder, its environment made as README says."""
    bundle = tmp_path_factory.mktemp("clone") / "course.bundle"
    subprocess.run(["git", "-C", str(ROOT), "bundle", "create", "-q", str(bundle), "HEAD"], check=True)
    machine.put(bundle, "course.bundle")
    machine.run(["git", "clone", "-q", "course.bundle", "course"])
    done = machine.run(["make", "-C", "course", "doctor"], timeout=900, check=False)
    assert "prerequisite" in done.stdout, done.stdout + done.stderr
    yield "course"
    machine.run(["rm", "-rf", "course", "course.bundle"])


def test_make_live_answers_through_the_tunnel(clone: str, machine: Target) -> None:
    words = f"make live LIVE='--no-browser --IdentityProvider.token={_TOKEN}'"
    script = f"cd {clone}; setsid {words} >live.log 2>&1 & echo $!"
    group = machine.run(["bash", "-c", script]).stdout.strip()
    try:
        with machine.tunnel(8888) as port:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/api/contents/06_kind.ipynb?content=0")
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(request, timeout=5)
                except urllib.error.HTTPError as refused:
                    assert refused.code == 403, "strangers are turned away"
                    break
                except OSError:
                    assert time.monotonic() < deadline, machine.run(["tail", f"{clone}/live.log"]).stdout
                    time.sleep(0.5)
            request.add_header("Authorization", f"token {_TOKEN}")
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert b"06_kind.ipynb" in answer.read()
    finally:
        machine.run(["bash", "-c", f"kill -- -{group}"], check=False)


def test_chapters_run_on_the_host_without_a_parameter_and_clean_lists_what_they_made(
    clone: str, cluster: kind.Cluster
) -> None:
    machine = cluster.target
    airgap.supply(machine, ["python:3.11-slim", *deployed.UPSTREAM])  # as whoever runs a closed network does
    tutorial = f"{clone}/.venv/bin/tutorial"
    done = machine.run([tutorial, "run", "01", "02", "06", "09", "--target", "host"], timeout=1500, check=False)
    logs = machine.run(["sh", "-c", f"tail -n 20 {clone}/_build/runs/*/*.log"], check=False).stdout
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:] + logs
    assert done.stdout.count("passed") >= 4

    words = ["env", "COLUMNS=200", tutorial, "clean", "--target", "host"]
    listed = machine.run(words, input="n\n", check=False, timeout=120)
    for word in ("the cluster with all its data", "the local registry", "the Forwarder's images"):
        assert word in listed.stdout, listed.stdout + listed.stderr
    assert cluster.exists()


def test_the_host_tells_what_it_can_do(clone: str, machine: Target) -> None:
    words = "from helpers.target import Target; print(*sorted(Target.open('host').capabilities()))"
    said = machine.run(["sh", "-c", f'cd {clone} && .venv/bin/python -c "{words}"'], timeout=60).stdout
    assert said.split() == ["docker", "root", "systemd"]
