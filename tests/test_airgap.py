"""Whether images have to be made here: the machine that pulls is asked, and each of Docker's errors has its name."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from helpers import airgap, docker_engine, shell, tools, vm
from helpers.errors import TutorialError
from helpers.settings import settings
from helpers.target import Completed, Target, failed
from helpers.target_local import LocalTarget

pytestmark = [pytest.mark.unit]
Add = Callable[..., None]
REGISTRY = "registry.example.org"
GET = f'Error response from daemon: Get "https://{REGISTRY}/v2/": '
UNREACHED = [
    GET + f"dial tcp: lookup {REGISTRY} on 127.0.0.53:53: no such host",
    GET + f"dial tcp: lookup {REGISTRY}: Temporary failure in name resolution",
    GET + f"dial tcp: lookup {REGISTRY} on [::1]:53: server misbehaving",
    GET + "dial tcp 203.0.113.7:443: i/o timeout",
    GET + "dial tcp 203.0.113.7:443: connect: connection refused",
    GET + "dial tcp 203.0.113.7:443: connect: network is unreachable",
    GET + "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
    GET + "net/http: TLS handshake timeout",
    GET + "context deadline exceeded",
    GET + "EOF",
    "Error: initializing source docker://hello-world:latest: pinging container registry: dial tcp: no such host",
]
ANSWERED = [
    ("rate limit", "docker login", "Error response from daemon: toomanyrequests: You have reached your limit."),
    ("rate limit", "mirror", "Error response from daemon: received unexpected HTTP status: 429 Too Many Requests"),
    ("rate limit", "wait", "error pulling image: You have reached your unauthenticated pull rate limit. See the page"),
    ("login", "docker login", GET + "unauthorized: authentication required"),
    ("login", "docker login", GET + "unauthorized: incorrect username or password"),
    ("login", "docker login", "Error response from daemon: pull access denied for hello-world, it may"),
    ("login", "docker login", "Error response from daemon: error parsing HTTP 403 response body: '<'"),
    ("proxy", "daemon.json", GET + "proxyconnect tcp: dial tcp 127.0.0.1:3128: connect: connection refused"),
    ("proxy", "daemon.json", GET + "proxyconnect tcp: dial tcp: lookup proxy.example.org: no such host"),
    ("proxy", "daemon.json", GET + "Proxy Authentication Required"),
    ("proxy", "daemon.json", GET + "Forbidden"),
    ("certificate", "update-ca-certificates", GET + "tls: failed to verify certificate: x509: certificate signed by "
     "unknown authority"),
    ("certificate", "update-ca-certificates", GET + "x509: certificate has expired or is not yet valid"),
    ("certificate", "update-ca-certificates", GET + "http: server gave HTTP response to HTTPS client"),
    ("disk", "chapter 03", "write /var/lib/docker/tmp/GetImageBlob1: no space left on device"),
    ("passwords", "credsStore", 'error getting credentials - err: exec: "docker-credential-desktop": executable file '
     "not found in $PATH, out: ``"),
    ("fault of its own", "run it again", "Error response from daemon: received unexpected HTTP status: 503 Service "
     "Unavailable"),
    ("exit code 1", "TUTORIAL_AIRGAP", "Error response from daemon: something nobody has seen yet"),
]  # fmt: skip


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Give a function that puts a program first on PATH; nothing is known of any machine before and after."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("TUTORIAL_AIRGAP", raising=False)
    settings.cache_clear()
    airgap.needed.cache_clear()  # type: ignore[attr-defined]

    def add(name: str, script: str, where: Path = folder) -> None:
        where.mkdir(exist_ok=True)
        (where / name).write_text(f"#!/bin/sh\n{script}\n")
        (where / name).chmod(0o755)

    yield add
    settings.cache_clear()
    airgap.needed.cache_clear()  # type: ignore[attr-defined]


def _docker(said: str, code: int = 1) -> str:
    """Write a `docker` whose engine answers, and whose pull ends like this."""
    return f"case $1 in version) echo 28.1.1; exit 0;; pull) cat >&2 <<'END'\n{said}\nEND\nexit {code};; esac"


class Cloud(LocalTarget):
    """A machine behind SSH, as far as its Docker goes: programs of its own are first on its PATH."""

    kind: ClassVar[str] = "ssh"

    def __init__(self, programs: Path, name: str = "cloud", others: str = ":/usr/bin:/bin") -> None:
        super().__init__(name)
        self.path = f"{programs}{others}"

    def run(self, argv: Any, *, env: Mapping[str, str] | None = None, **words: Any) -> Completed:
        return super().run(argv, env={"PATH": self.path, **(env or {})}, **words)


def test_a_pull_that_works_needs_no_lab(program: Add) -> None:
    program("docker", _docker("", 0))
    assert airgap.needed(Target.open("host")) is False


@pytest.mark.parametrize("said", UNREACHED)
def test_where_no_registry_is_reached_the_lab_makes_the_images(program: Add, said: str) -> None:
    program("docker", _docker(said))
    assert airgap.needed(Target.open("host")) is True


@pytest.mark.parametrize(("why", "remedy", "said"), ANSWERED)
def test_a_registry_that_answers_is_never_taken_for_none(program: Add, why: str, remedy: str, said: str) -> None:
    program("docker", _docker(said))
    with pytest.raises(TutorialError) as error:
        airgap.needed()
    assert why in error.value.why and remedy in error.value.remedy, str(error.value)


def test_a_mirror_that_lacks_the_image_answers_all_the_same(program: Add) -> None:
    program(
        "docker", _docker("Error response from daemon: manifest for hello-world:latest not found: manifest unknown")
    )
    assert airgap.needed() is False


def test_a_pull_that_hangs_means_no_registry(program: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airgap, "_PROBE_SECONDS", 0.5)
    program("docker", "case $1 in version) echo 28.1.1;; pull) sleep 41.5;; esac")
    assert airgap.needed() is True


@pytest.mark.parametrize(
    ("script", "what", "remedy"),
    [
        ("echo; echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1",
         "No Docker engine answers", "systemctl start docker"),
        ("echo 'permission denied while trying to connect to the Docker daemon socket at unix:///x' >&2; exit 1",
         "No Docker engine answers", "usermod -aG docker"),
        ("echo 'failed to connect to the docker API at unix:///x; dial unix /x: connect: no such file' >&2; exit 1",
         "No Docker engine answers", "systemctl start docker"),
        ('echo \'context "gone": context not found: open meta.json: no such file\' >&2; exit 1',
         "No Docker engine answers", "docker context use default"),
        ("echo 'Error response from daemon: client version 1.24 is too old.' >&2; exit 1",
         "No Docker engine answers", "update"),
        ("echo 'Emulate Docker CLI using podman.' >&2; exit 125", "No Docker engine answers", "podman-docker"),
        ("echo 'something new' >&2; exit 3", "No Docker engine answers", "docker info"),
        ("sleep 41.5", "hangs", "systemctl restart docker"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_answer_says_why(
    program: Add, monkeypatch: pytest.MonkeyPatch, script: str, what: str, remedy: str
) -> None:
    monkeypatch.setattr(shell, "ANSWER_SECONDS", 1.0)
    program("docker", script)
    with pytest.raises(TutorialError) as error:
        airgap.needed()
    assert what in error.value.what and remedy in error.value.remedy, str(error.value)


def test_no_docker_at_all_is_an_error_with_its_remedy(program: Add, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for name in ("sh", "tr", "timeout"):
        (small / name).symlink_to(f"/usr/bin/{name}")
    with pytest.raises(TutorialError, match="Docker is not installed on cloud") as error:
        airgap.needed(Cloud(small, others=""))
    assert "chapter 03" in error.value.remedy


def test_the_machine_that_pulls_is_asked_once_and_the_laptop_never(program: Add, tmp_path: Path) -> None:
    program("docker", f"echo laptop >>{tmp_path}/asked; exit 1")
    there = tmp_path / "there"
    program("docker", f'echo "$1" >>{tmp_path}/asked\n' + _docker("", 0), there)
    assert airgap.needed(Cloud(there)) is False and airgap.needed(Cloud(there)) is False
    airgap.supply(Cloud(there), ["python:3.11-slim"])
    assert (tmp_path / "asked").read_text().split() == ["version", "pull"]
    closed = tmp_path / "closed"
    program("docker", _docker(UNREACHED[0]), closed)
    assert airgap.needed(Cloud(closed, "closed")) is True, "another machine is asked by itself"


def test_an_error_is_not_kept(program: Add) -> None:
    program("docker", _docker("toomanyrequests"))
    with pytest.raises(TutorialError):
        airgap.needed()
    program("docker", _docker("", 0))
    assert airgap.needed() is False


@pytest.mark.parametrize("chosen", [True, False])
def test_the_setting_decides_and_nobody_is_asked(
    program: Add, monkeypatch: pytest.MonkeyPatch, chosen: bool, tmp_path: Path
) -> None:
    program("docker", f"touch {tmp_path}/asked")
    monkeypatch.setenv("TUTORIAL_AIRGAP", str(int(chosen)))
    settings.cache_clear()
    assert airgap.needed() is chosen and airgap.needed(Cloud(tmp_path)) is chosen
    assert not (tmp_path / "asked").exists()


def test_a_closed_machine_and_a_laptop_without_an_engine_are_told_the_ways_out(program: Add, tmp_path: Path) -> None:
    program("docker", "echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1")
    closed = tmp_path / "closed"
    program("docker", _docker(UNREACHED[0]), closed)
    with pytest.raises(TutorialError, match="There is no way to bring images to cloud") as error:
        airgap.supply(Cloud(closed), ["python:3.11-slim"])
    assert "mirror" in error.value.remedy and "systemctl start docker" in error.value.remedy


def test_images_are_not_built_without_an_engine(program: Add) -> None:
    program("docker", "echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1")
    for names in ((), ("vm",), ("tools", "python:3.11-slim")):
        with pytest.raises(TutorialError, match="No Docker engine answers"):
            airgap.build(*names)


def test_a_tool_is_found_without_asking_docker(program: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program("docker", f"touch {tmp_path}/asked; exit 1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tools, "_download", lambda name, path: path.write_text("#!/bin/sh\n"))
    tools.find.cache_clear()
    try:
        assert tools.find("kind").exists()
    finally:
        tools.find.cache_clear()
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("argv", "said", "why"),
    [
        (["docker", "pull", "-q", "x"], "toomanyrequests: limit", "rate limit"),
        (["sudo", "-n", "docker", "pull", "x"], "no space left on device", "disk"),
        (["docker", "build", "-"], 'Get "https://x/v2/": dial tcp: lookup x: no such host', "no container registry"),
        (
            ["docker", "build", "-"],
            "pip: connection refused\nThe command 'pip' returned a non-zero code: 1",
            "exit code",
        ),
        (["docker", "run", "x"], "Unable to find image 'x' locally\ndocker: toomanyrequests: limit", "rate limit"),
        (["docker", "run", "x"], "the program says: connection refused", "exit code"),
        (["docker", "push", "x"], "denied: requested access to the resource is denied", "login"),
        (["docker", "ps"], "permission denied while trying to connect to the Docker daemon socket", "socket"),
        (["ls", "pull"], "toomanyrequests", "exit code"),
    ],
)
def test_a_docker_command_that_fails_on_any_target_says_why(argv: list[str], said: str, why: str) -> None:
    assert why in failed("cloud", Completed(argv, 1, "", said, 0.1)).why


def test_the_vm_s_own_commands_say_the_same(program: Add) -> None:
    program("docker", _docker(ANSWERED[0][2]))
    with pytest.raises(TutorialError, match="rate limit"):
        vm.docker("pull", "-q", "debian")
    program("docker", "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1")
    with pytest.raises(TutorialError, match="usermod"):
        vm.status()
    for printed in ("\\377", "[1]", "<html>"):
        program("docker", f"printf '{printed}'")
        with pytest.raises(TutorialError, match="does not tell"):
            vm.status()
    program("docker", "sleep 41.5")
    with pytest.raises(TutorialError, match="took too long"):
        vm.docker("info", timeout=0.5)


def test_an_engine_tells_its_version(program: Add) -> None:
    program("docker", "echo 28.1.1")
    assert docker_engine.version(Target.open("host")) == "28.1.1"
    program("docker", "echo 'WARNING: 1.2 is odd' >&2; echo 20.10.24+dfsg1")
    assert docker_engine.version(Target.open("host")) == "20.10.24+dfsg1"
    program("docker", "exit 0")
    assert docker_engine.version(Target.open("host")) == "answers"
