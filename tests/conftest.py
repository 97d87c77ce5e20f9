"""What all tests share: the order of the tiers, required parts, a state folder of one's own."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from helpers import airgap, cpouta_lab, doctor, kind, processes, ssh, ssh_lab, vm
from helpers import cluster as deployed
from helpers.errors import TutorialError
from helpers.settings import ROOT, settings
from helpers.target import Target

_TIERS = ("unit", "component", "e2e")
_PARTS = {
    "docker": (doctor.docker_engine, "no Docker engine answers"),
    "chromium": (doctor.chromium, "no Chromium on PATH"),
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, and refuse a test without a tier: `make test` would never run it."""
    tests = [item for item in items if isinstance(item, pytest.Function)]  # cells of notebooks keep their order
    for item in tests:
        tiers = [t for t in _TIERS if item.get_closest_marker(t)]
        if len(tiers) != 1:
            raise pytest.UsageError(f"{item.nodeid} needs exactly one of the markers {', '.join(_TIERS)}")
    if len(tests) == len(items):
        items.sort(key=_rank)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the lab before the first test that needs it: from nothing that takes a quarter of an hour."""
    needing = [item for item in session.items if {"machine", "lab"} & set(getattr(item, "fixturenames", ()))]
    if not needing or session.config.option.collectonly or not doctor.docker_engine():
        return
    with suppress(TutorialError):  # such as a registry's rate limit: a test that needs an image says so
        if airgap.needed():
            airgap.build(quiet=True)


def _rank(item: pytest.Item) -> tuple[int, bool]:
    """Order by tier; in it first what makes for itself what other tests would have to make."""
    return next(i for i, t in enumerate(_TIERS) if item.get_closest_marker(t)), not item.get_closest_marker("first")


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """Give a function that skips a test where a part is missing; TUTORIAL_REQUIRE makes that a failure."""

    def part(name: str) -> str:
        look, reason = _PARTS[name]
        found = look()
        if not found and name in settings().require.split(","):
            pytest.fail(f"TUTORIAL_REQUIRE names {name}, but {reason}")
        if not found:
            pytest.skip(reason)
        return found

    return part


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the helpers a state and a build folder of the test's own; what still runs in the end is stopped."""
    monkeypatch.setenv("TUTORIAL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TUTORIAL_BUILD", str(tmp_path / "build"))
    settings.cache_clear()
    yield tmp_path
    _stop_processes()
    settings.cache_clear()


@pytest.fixture
def place(sandbox: Path) -> ssh.Endpoint:
    """Give the machine of chapter 01's sandbox, with its Host blocks written."""
    made = ssh_lab.endpoint("local")
    made.config.install(made.blocks())
    return made


def _stop_processes() -> None:
    """End what runs in the background on this machine, of all targets of the state folder in force."""
    for folder in settings().state.glob("*"):
        processes.stop_all(folder.name)


@pytest.fixture(scope="session")
def machine(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Give a VM of the tests' own, its SSH configuration in a home folder of its own; both are removed in the end."""
    require("docker")
    with pytest.MonkeyPatch.context() as patch:
        cache = Path.home() / ".cache"
        patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(cache))
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("TUTORIAL_VM", "tutorial-test-vm")
        patch.setenv("TUTORIAL_STATE", str(home / "state"))
        patch.setenv("TUTORIAL_BUILD", str(home / "build"))
        settings.cache_clear()
        try:
            with Target.open("vm") as target:
                yield target
        finally:
            cpouta_lab.lab().destroy()  # chapter 02 has played the cloud with it
            _stop_processes()  # chapters start some here, such as a service outside the cluster
            vm.destroy()
            settings.cache_clear()


@contextmanager
def _meant(name: str) -> Iterator[str]:
    """Have the target `vm` mean another VM; it is gone in the end, and the tests' own is meant again."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUTORIAL_VM", name)
            settings.cache_clear()
            try:
                yield name
            finally:
                vm.destroy()
    finally:
        settings.cache_clear()


@pytest.fixture
def other_vm(machine: Target) -> Iterator[str]:
    """Name a second VM, which a test may break or remove."""
    with _meant("tutorial-test-other") as name:
        yield name


@pytest.fixture(scope="module")
def docker_vm(machine: Target) -> Iterator[Target]:
    """Give a VM whose Docker a module's tests may stop, fill and move."""
    with _meant("tutorial-test-docker"), Target.open("vm") as target:
        yield target


@pytest.fixture(scope="session")
def session_cluster(machine: Target) -> Iterator[kind.Cluster]:
    """Give the course's cluster on the tests' VM."""
    kind.raise_inotify(machine)
    with kind.Cluster(machine) as made:
        made.create()
        yield made


@pytest.fixture
def cluster(session_cluster: kind.Cluster) -> kind.Cluster:
    """Give the cluster, reached anew where another test has cut the way to it."""
    session_cluster.target.run(["true"], repeatable=True)
    if session_cluster.kubectl("get", "--raw", "/readyz", check=False) != "ok":
        session_cluster.close()
    return session_cluster.connect()


@pytest.fixture(scope="session")
def stack(session_cluster: kind.Cluster) -> None:
    """Have the stack in the cluster, applied by hand as README says: git's files, and plain kubectl."""
    session_cluster.target.run(["true"], repeatable=True)
    deployed.build_images(session_cluster)
    deployed.supply_node(session_cluster)
    session_cluster.target.sync(ROOT / "deployments", "deployments")
    session_cluster.target.run(["kubectl", "apply", "-k", "deployments/forwarder/stack"], timeout=120)
    deployed.wait(session_cluster)
