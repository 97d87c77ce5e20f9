"""What programs keep of the reader's environment: nothing that sends them elsewhere, all that reaching others takes."""

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers import airflow_git, helm, kind, processes, tools
from helpers.settings import ROOT, settings
from helpers.shell import OWN_REPOSITORY, environment
from helpers.target import Target
from helpers.target_local import LocalTarget, git_tracked, pipe_here, run_here
from helpers.terminal import converse

# What a reader may have set, and what each program must not see of it.
STEERING = {
    "helm": ("HELM_KUBEAPISERVER", "HELM_KUBECONTEXT", "HELM_KUBETOKEN", "HELM_REPOSITORY_CONFIG", "HELM_NAMESPACE",
             "HELM_DRIVER", "HELM_PLUGINS", "HELM_DEBUG"),
    "kubectl": ("KUBECONFIG", "KUBERNETES_MASTER", "KUBERNETES_SERVICE_HOST", "KUBECTL_EXTERNAL_DIFF", "KUBE_EDITOR"),
    "kind": ("KIND_EXPERIMENTAL_PROVIDER", "KIND_CLUSTER_NAME", "KIND_EXPERIMENTAL_DOCKER_NETWORK"),
    "docker": ("DOCKER_DEFAULT_PLATFORM", "DOCKER_CONTENT_TRUST", "DOCKER_BUILDKIT", "BUILDX_BUILDER", "COMPOSE_FILE"),
    "git": ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0", "GIT_TEMPLATE_DIR", "GIT_AUTHOR_NAME", "GIT_PROXY_COMMAND", "GIT_TRACE"),
    "ssh": ("SSH_ASKPASS", "SSH_ASKPASS_X"),
    "rsync": ("RSYNC_RSH", "RSYNC_PROXY", "RSYNC_PASSWORD"),
    "uv": ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_CONSTRAINT", "PIP_TARGET", "PIP_USER",
           "PIP_REQUIRE_VIRTUALENV"),
    "go": ("GOFLAGS", "GOOS", "GOARCH", "GOBIN", "CGO_ENABLED"),
    "python3": ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONBREAKPOINT", "PYTHONINSPECT",
                "JUPYTER_PATH", "MPLBACKEND"),
    "openstack": ("OS_CLOUD", "OS_AUTH_URL", "OS_TOKEN", "OS_PASSWORD"),
    "ansible": ("ANSIBLE_CONFIG", "ANSIBLE_INVENTORY", "PYINFRA_SSH_USER"),
    "ray": ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK"),
    "airflow": ("AIRFLOW_HOME", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW_CONN_X", "_AIRFLOW_DB_MIGRATE"),
    "celery": ("CELERY_BROKER_URL", "FLOWER_BASIC_AUTH", "REDIS_ENDPOINT", "REDISCLI_AUTH", "FORWARDER_TOKEN",
               "UVICORN_PORT", "PROMETHEUS_MULTIPROC_DIR"),
    "sh": ("BASH_ENV", "ENV", "CDPATH", "SHELLOPTS", "BASH_FUNC_docker%%", "GREP_OPTIONS", "TAR_OPTIONS", "LESSOPEN",
           "SYSTEMD_PAGER", "SYSTEMD_COLORS", "POSIXLY_CORRECT", "DF_BLOCK_SIZE", "PS_FORMAT", "FORCE_COLOR",
           "MAKEFLAGS"),
}  # fmt: skip
ALWAYS = ("HOME", "LANG", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "HTTPS_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
          "LD_LIBRARY_PATH", "TUTORIAL_VM", "TMPDIR")  # fmt: skip
KEPT = {
    "uv": ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_COMPANY_PASSWORD", "UV_NATIVE_TLS", "UV_INSECURE_HOST",
           "UV_PYTHON_INSTALL_MIRROR", "UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "PIP_INDEX_URL", "PIP_CERT",
           "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_CONFIG_FILE", "PIP_DEFAULT_TIMEOUT"),
    "docker": ("DOCKER_CONFIG",),
    "kind": ("DOCKER_CONFIG",),
    "git": ("GIT_SSL_CAINFO", "GIT_HTTP_PROXY_AUTHMETHOD"),
    "ssh": ("SSH_SK_PROVIDER", "SSH_AGENT_PID"),
    "go": ("GOPROXY", "GOPRIVATE", "GOCACHE"),
    "python3.12": ("OS_CLIENT_CONFIG_FILE", "UV_INDEX_URL", "DOCKER_CONFIG"),
    "sh": ("DOCKER_CONFIG", "GIT_SSL_CAINFO", "PIP_INDEX_URL"),
}  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Give a function that puts programs first on PATH, which write their environment into a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(*names: str, prints: str = "") -> Path:
        for name in names:
            program = folder / name
            program.write_text(f"#!/bin/sh\n/usr/bin/env >>{tmp_path}/seen\n{prints}\n")
            program.chmod(0o755)
        return tmp_path / "seen"

    return make


def _names(seen: Path) -> set[str]:
    return {line.partition("=")[0] for line in seen.read_text().splitlines()}


@pytest.mark.unit
@pytest.mark.parametrize("program", STEERING)
def test_nothing_steers_a_program_but_its_arguments(
    program: str, fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake(program, prints="exit 0")
    for name in (*STEERING[program], *ALWAYS):
        monkeypatch.setenv(name, "/reader") if name != "HOME" else None
    run_here([program])
    assert _names(seen) & set(STEERING[program]) == set()
    assert set(ALWAYS) <= _names(seen)


@pytest.mark.unit
@pytest.mark.parametrize("program", KEPT)
def test_what_a_closed_network_needs_is_kept(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEPT[program]:
        monkeypatch.setenv(name, "/reader")
    assert set(KEPT[program]) <= set(environment(program))
    assert set(KEPT[program]) <= set(environment(f"/opt/{program}"))


@pytest.mark.unit
def test_a_program_gets_no_other_ones_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_COMPANY_PASSWORD", "secret")
    assert "UV_INDEX_COMPANY_PASSWORD" not in environment("helm")


@pytest.mark.unit
def test_what_the_caller_gives_comes_over_it(fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake("helm")
    monkeypatch.setenv("HELM_CACHE_HOME", "/reader")
    run_here(["helm"], env={"HELM_CACHE_HOME": "/ours"})
    assert "HELM_CACHE_HOME=/ours" in seen.read_text()


def _run(target: Target) -> None:
    target.run(["anything"])


def _pipe_from(target: Target) -> None:
    pipe_here(["anything"], ["cat"], 10, "local")


def _pipe_to(target: Target) -> None:
    pipe_here(["echo"], ["anything"], 10, "local")


def _background(target: Target) -> None:
    processes.start("anything", ["anything"], ready=lambda: True).stop()


def _again(target: Target) -> None:
    seen = settings().state.parent / "seen"
    argv = [sys.executable, "-m", "helpers.again", "anything"]
    processes.start("again", argv, ready=seen.exists, cwd=ROOT).stop()


def _terminal(target: Target) -> None:
    converse(target, ["anything"], {}, timeout=20)


@pytest.mark.unit
@pytest.mark.parametrize("start", [_run, _pipe_from, _pipe_to, _background, _again, _terminal])
def test_every_way_to_start_a_program_cleans_its_environment(
    start: Callable[[Target], None], fake: Callable[..., Path], sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake("anything", prints="sleep 0.2")
    for name in ("KUBECONFIG", "HELM_KUBEAPISERVER", "PYTHONPATH", "BASH_ENV", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "/reader")
    monkeypatch.setenv("http_proxy", "http://proxy.corp.example:3128")
    start(LocalTarget("local"))
    text = seen.read_text()
    assert _names(seen) & {"KUBECONFIG", "HELM_KUBEAPISERVER", "PYTHONPATH", "BASH_ENV"} == set()
    assert "NO_PROXY=/reader,localhost,127.0.0.1,::1" in text and "no_proxy=/reader,localhost" in text


@pytest.mark.unit
def test_every_call_that_starts_a_program_says_its_environment() -> None:
    bare = []
    within_pyinfra = "pyinfra_openssh.py"  # pyinfra itself was started with a cleaned environment
    for file in {*(ROOT / "helpers").glob("*.py")} - {ROOT / "helpers" / within_pyinfra}:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = f"{ast.unparse(node.func.value)}.{node.func.attr}"
            starts = called in ("subprocess.run", "subprocess.Popen", "subprocess.check_output", "pexpect.spawn")
            if starts and not any(word.arg == "env" for word in node.keywords):
                bare.append(f"{file.name}:{node.lineno}")
    assert bare == [], "give env=environment(PROGRAM)"


def _context(folder: Path, name: str, host: str) -> None:
    place = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    place.mkdir(parents=True)
    (place / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("reader", "current", "expected"),
    [
        ({}, "", {}),
        ({"DOCKER_HOST": "unix:///run/user/1000/docker.sock"}, "", {"DOCKER_HOST": "unix:///run/user/1000/docker.sock"}),
        ({"DOCKER_HOST": "tcp://10.0.0.5:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"}, "", {}),
        ({"DOCKER_HOST": "ssh://me@elsewhere"}, "", {}),
        (
            {"DOCKER_HOST": "tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY": "1"}, "",
            {"DOCKER_HOST": "tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY": "1"},
        ),
        ({"DOCKER_CONTEXT": "colima"}, "", {"DOCKER_CONTEXT": "colima"}),
        ({"DOCKER_CONTEXT": "remote"}, "", {}),
        ({"DOCKER_CONTEXT": "gone"}, "", {}),
        ({}, "colima", {}),
        ({}, "remote", {"DOCKER_CONTEXT": "default"}),
        ({"DOCKER_HOST": "ssh://me@elsewhere", "DOCKER_CONTEXT": "colima"}, "remote", {"DOCKER_CONTEXT": "colima"}),
    ],
)  # fmt: skip
def test_an_engine_of_this_machine_is_kept_and_one_elsewhere_is_not(
    reader: dict[str, str], current: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _context(tmp_path, "colima", "unix:///home/me/.colima/default/docker.sock")
    _context(tmp_path, "remote", "ssh://me@elsewhere")
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": current} if current else {}))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**reader, "DOCKER_CONFIG": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for program in ("docker", "kind", "sh"):
        result = {n: v for n, v in environment(program).items() if n.startswith("DOCKER_") and n != "DOCKER_CONFIG"}
        assert result == expected


@pytest.mark.unit
def test_a_damaged_docker_configuration_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for text in ("", "[]", "{", '{"currentContext": 7}'):
        (tmp_path / "config.json").write_text(text)
        environment("docker")


class _Cluster:
    """As much of a cluster as helm needs: its own kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.target, self.kubeconfig = LocalTarget("local"), kubeconfig

    def connect(self) -> None:
        return None

    def close(self) -> None:
        return None


def _helm() -> Path | None:
    """Give the helm that is on PATH or was got before; none is got for this test."""
    kept = tools.cache_folder() / tools.TOOLS["helm"] / "helm"
    found = shutil.which("helm")
    return Path(found) if found else kept if kept.exists() else None


@pytest.mark.component
@pytest.mark.skipif(not _helm(), reason="helm is not on PATH, and was not got before")
def test_real_helm_asks_the_course_s_cluster_and_leaves_the_reader_s_repositories(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = sandbox / "repositories.yaml"
    theirs.write_text("apiVersion: v1\nrepositories: []\n")
    monkeypatch.setenv("HELM_REPOSITORY_CONFIG", str(theirs))
    monkeypatch.setenv("HELM_KUBEAPISERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("HELM_KUBECONTEXT", "no-such-context")
    server = f"http://127.0.0.1:{processes.free_port()}"
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
    }  # fmt: skip
    kubeconfig = sandbox / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(tools, "find", lambda name: _helm())
    done = helm.Helm(_Cluster(kubeconfig))._run("list", cluster=True)  # type: ignore[arg-type]
    assert server.removeprefix("http://") in done.stderr
    assert "no-such-context" not in done.stderr
    assert "repositories: []" in theirs.read_text()


@pytest.mark.unit
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not on PATH")
def test_real_kubectl_reads_no_configuration_of_the_reader_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "production"
    clusters = [{"name": "production", "cluster": {"server": "https://production.example"}}]
    theirs.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": clusters}))
    monkeypatch.setenv("KUBECONFIG", str(theirs))
    monkeypatch.setenv("HOME", str(tmp_path))
    argv = ["kubectl", "config", "view"]
    assert "production" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "production" not in run_here(argv).stdout


@pytest.mark.unit
def test_real_git_commits_whatever_the_reader_s_configuration_says(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = sandbox / "home"
    hooks, template = home / "hooks", home / "template"
    for folder in (hooks, template / "hooks"):
        folder.mkdir(parents=True)
        for name in ("pre-commit", "pre-push", "commit-msg"):
            (folder / name).write_text("#!/bin/sh\nexit 1\n")
            (folder / name).chmod(0o755)
    origin = sandbox / "origin.git"
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hooks}\n[init]\n\ttemplateDir = {template}\n\tdefaultBranch = other\n"
        "[commit]\n\tgpgsign = true\n[user]\n\tsigningkey = none\n[gpg]\n\tprogram = false\n"
        f'[url "https://mirror.corp.example/"]\n\tinsteadOf = {sandbox}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(sandbox / "elsewhere"))
    subprocess.run(
        ["git", "init", "-q", "--bare", str(origin)], check=True, env={**environment("git"), **OWN_REPOSITORY}
    )
    server = airflow_git.Server(_Cluster(sandbox))  # type: ignore[arg-type]
    airflow_git._git("clone", "--quiet", str(origin), str(server.folder))
    airflow_git._git("checkout", "--quiet", "-B", "main", cwd=server.folder)
    (server.folder / "dag.py").write_text("print()\n")
    commit = server.push("a DAG")
    assert airflow_git._git("ls-remote", str(origin), "main").startswith(commit)


@pytest.mark.unit
def test_the_course_s_own_files_are_listed_with_a_git_dir_of_the_reader_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert "versions.toml" in git_tracked(ROOT / "deployments")


@pytest.mark.unit
def test_kind_writes_no_kubeconfig_of_the_reader_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/reader/.kube/production")
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "podman")
    assert not {"KUBECONFIG", "KIND_EXPERIMENTAL_PROVIDER"} & set(environment(kind.__name__.partition(".")[2]))
