"""Chapter 09: the stack's YAML read and checked, then applied in the tests' cluster, used, broken and mended."""

import copy
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from forwarder_stack import APPLICATIONS

from helpers import airflow_cluster, airflow_git, check, cluster_lab, kind, nvshare, oss_platform, processes, tools
from helpers import cluster as deployed
from helpers.errors import TutorialError
from helpers.forwarder import Forwarder
from helpers.settings import ROOT, settings

unit = pytest.mark.unit
SERVERS = ("fastapi-server", "celery-server", "flower-server", "redis-server", "postgres-server")
SERVICES = {"fastapi": 7600, "flower": 7601, "celery": 7602, "redis": 6379, "postgres": 5432}


def in_vm(test: Any) -> Any:
    """Mark a test that needs the tests' VM."""
    for mark in (pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)):
        test = mark(test)
    return test


def _pods(folder: Path) -> list[dict[str, Any]]:
    found = deployed.objects(folder)
    pods = [o["spec"] for o in found if o["kind"] == "Pod"]
    return pods + [o["spec"]["template"]["spec"] for o in found if o["kind"] == "Deployment"]


# ------------------------------------------------------------------------------------------------- the files


@unit
@pytest.mark.parametrize(("part", "port"), SERVICES.items())
def test_names_labels_and_ports_are_the_references(part: str, port: int) -> None:
    found = {(o["kind"], o["metadata"]["name"]): o for o in deployed.objects()}
    deployment = found["Deployment", f"{part}-server"]
    assert deployment["metadata"]["labels"]["app"] == f"{part}-server"
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": f"{part}-server"}
    service = found["Service", f"{part}-service"]["spec"]
    assert service["selector"] == {"app": f"{part}-server"}
    assert service["ports"] == [{"port": port, "targetPort": port}]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert {
        "app",
        "app.kubernetes.io/name",
        "app.kubernetes.io/component",
        "app.kubernetes.io/part-of",
    } <= labels.keys()


@unit
def test_the_environment_is_the_references() -> None:
    found = {o["metadata"]["name"]: o for o in deployed.objects() if o["kind"] == "Deployment"}
    frontend = found["fastapi-server"]["spec"]["template"]["spec"]["containers"][0]
    assert frontend["name"] == "frontend-server" and frontend["imagePullPolicy"] == "Always"
    values = {e["name"]: e.get("value") for e in frontend["env"]}
    expected = {"REDIS_ENDPOINT": "redis-service.forwarder.svc.cluster.local", "REDIS_PORT": "6379", "REDIS_DB": "0"}
    assert expected.items() <= values.items()
    backend = {e["name"] for e in found["celery-server"]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert backend >= {
        "CELERY_CONCURRENCY", "CELERY_LOGLEVEL", "FLOWER_ENDPOINT", "FLOWER_PORT", "FLOWER_USERNAME", "FLOWER_PASSWORD",
        "PROMETHEUS_PORT", "AIRFLOW_HOST", "AIRFLOW_USERNAME", "AIRFLOW_PASSWORD",
    }  # fmt: skip


@unit
@pytest.mark.parametrize(
    "folder",
    [
        deployed.STACK,
        deployed.SCHEDULER,
        airflow_cluster.FOLDER,
        airflow_git.FOLDER,
        nvshare.FOLDER,
        nvshare.FOLDER / "sharing",
    ],
    ids=lambda f: f.name,
)
def test_each_pod_has_the_least_rights_and_limits(folder: Path) -> None:
    for pod in _pods(folder):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
        if "restartPolicy" not in pod:  # what ends by itself needs no probes
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        assert pod["automountServiceAccountToken"] == ("serviceAccountName" in pod), "a token only where it is used"


@unit
def test_the_backend_may_make_connections_and_nothing_else() -> None:
    roles = {o["metadata"]["name"]: o for o in deployed.objects() if o["kind"] == "Role"}
    assert not [o for o in deployed.objects() if o["kind"].startswith("ClusterRole")]
    connections = roles["forwarder-connections"]
    assert connections["metadata"]["namespace"] == "forwarder-imports"
    assert {r for rule in connections["rules"] for r in rule["resources"]} == {
        "services", "endpointslices", "networkpolicies",
    }  # fmt: skip
    assert {v for rule in roles["forwarder-exports"]["rules"] for v in rule["verbs"]} == {"get", "list"}
    assert roles["forwarder-secrets"]["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]


@unit
def test_no_secret_is_in_a_file() -> None:
    files = subprocess.run(["git", "ls-files", str(deployed.FOLDER)], cwd=ROOT, capture_output=True, text=True)
    for path in files.stdout.split():
        text = (ROOT / path).read_text()
        assert "kind: Secret" not in text and not re.search(r"password=[^?…\s]", text), path


@unit
def test_the_stack_fits_itself() -> None:
    assert deployed.mismatches(deployed.objects()) == []


def _service_label(found: dict[str, Any]) -> None:
    found["Service/fastapi-service"]["spec"]["selector"]["app"] = "fastapi"


def _port(found: dict[str, Any]) -> None:
    found["Service/flower-service"]["spec"]["ports"][0]["targetPort"] = 5555


def _address(found: dict[str, Any]) -> None:
    container = found["Deployment/celery-server"]["spec"]["template"]["spec"]["containers"][0]
    container["env"][0]["value"] = "redis.forwarder.svc.cluster.local"


def _secret(found: dict[str, Any]) -> None:
    found["Pod/forwarder-secrets"]["spec"]["containers"][0]["args"].pop(0)


@unit
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_service_label, "no pod has that label"),
        (_port, "flower-service leads to port 5555"),
        (_address, "names redis, and there is no such Service"),
        (_secret, "needs password of redis-secret, which nobody makes"),
    ],
)
def test_what_does_not_fit_is_named(spoil: Callable[[dict[str, Any]], None], said: str) -> None:
    objects = copy.deepcopy(deployed.objects())
    spoil({f"{o['kind']}/{o['metadata']['name']}": o for o in objects})
    assert any(said in sentence for sentence in deployed.mismatches(objects))


@unit
@pytest.mark.parametrize(
    ("service", "wrong"),
    [
        ({"type": "ExternalName", "externalName": "db.example.org"}, []),
        ({"clusterIP": "None", "ports": [{"port": 1}]}, []),
        ({"selector": {"app": "web"}}, []),
        ({"selector": {"app": "web"}, "ports": [{"port": 80}]}, []),
        ({"selector": {"app": "web"}, "ports": [{"port": 8080, "targetPort": "http"}]}, []),
        ({"selector": {"app": "web"}, "ports": [{"port": 80}, {"port": 81, "targetPort": 82}]}, ["port 82"]),
        ({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "https"}]}, ["port https"]),
        ({"selector": {"app": "other"}, "ports": [{"port": 80}]}, ["no pod has that label"]),
    ],
)
def test_services_of_all_forms_are_compared_with_their_pods(service: dict[str, Any], wrong: list[str]) -> None:
    container = {"name": "web", "ports": [{"containerPort": 80, "name": "http"}], "args": [1], "env": [{"name": "A"}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "side"}, container]}}
    objects = [
        {"kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {"template": template}},
        {"kind": "Pod", "metadata": {"name": "bare"}, "spec": {"containers": [{"name": "x", "env": None}]}},
        {"kind": "Service", "metadata": {"name": "web"}, "spec": service},
    ]
    found = deployed.mismatches(objects)
    assert len(found) == len(wrong) and all(part in text for part, text in zip(wrong, found, strict=True))


@unit
def test_a_kustomization_that_names_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]")
    with pytest.raises(TutorialError, match=r"gone\.yaml can't be read"):
        deployed.objects(tmp_path)


@unit
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: x".encode("utf-16"), r"x\.yaml can't be read"),
        (b"apiVersion: v1\nkind: List\nitems:\n- =\n", "line 4"),
        (b"a:\n\tb: 1\n", "line 2: it is indented by a tab"),
        (b"kind: A\nkind: B\n", "line 2: `kind` is there twice"),
        (b"- a\n- b\n", "has no objects of Kubernetes"),
        (b"kind: ConfigMap\nmetadata: {name: x}\n", "it has no apiVersion"),
        (b"apiVersion: v1\nkind: ConfigMap\n", "it has no metadata"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [x.yaml]")
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(TutorialError, match=message):
        deployed.objects(tmp_path)


@unit
def test_a_kustomization_of_nothing_has_no_objects(tmp_path: Path) -> None:
    for text in ("", "{}", "resources:\n"):
        (tmp_path / "kustomization.yaml").write_text(text)
        assert deployed.objects(tmp_path) == []


@unit
@pytest.mark.parametrize("text", ["redis-secret", "redis-secret password", "redis-secret =x", "redis-secret password="])
def test_a_secret_that_is_described_wrongly_is_refused_before_anything_is_made(text: str) -> None:
    argv = [sys.executable, "run_secrets.py", "other-secret key=hidden-value", text]
    done = subprocess.run(argv, cwd=APPLICATIONS / "celery", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "redis-secret" in done.stderr
    assert "Traceback" not in done.stderr and "hidden-value" not in done.stderr


@unit
def test_own_images_take_the_place_of_the_local_registrys(sandbox: Path) -> None:
    made = deployed.overlay(deployed.STACK, "registry.example.org/me/forwarder")
    content = yaml.safe_load((made / "kustomization.yaml").read_text())
    assert (made / content["resources"][0]).resolve() == deployed.STACK.resolve()
    assert content["images"] == [
        {"name": "localhost:5001/multi-local-cloud-hpc-integration", "newName": "registry.example.org/me/forwarder"}
    ]
    assert deployed.overlay(deployed.STACK) == deployed.STACK


# ------------------------------------------------------------------------------------------------ the tools


@pytest.fixture(scope="module")
def built(require: Callable[[str], str]) -> str:
    """Give what kustomize makes of stack, scheduler and chapter 05's pods together."""
    require("docker")
    argv = [str(tools.find("kubectl")), "kustomize"]
    ours = (deployed.STACK, deployed.SCHEDULER, airflow_cluster.FOLDER, airflow_git.FOLDER)
    folders = (*ours, nvshare.FOLDER, nvshare.FOLDER / "sharing")
    texts = [subprocess.run([*argv, str(f)], check=True, capture_output=True, text=True).stdout for f in folders]
    return "---\n".join(texts)


@pytest.mark.component
@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_kube_score_finds_nothing_critical(built: str) -> None:
    version = tools.VERSIONS["cluster"]["kubernetes"].rpartition(".")[0]
    argv = [str(tools.find("kube-score")), "score", "--kubernetes-version", version, "--output-format", "ci", "-"]
    done = subprocess.run(argv, input=built, capture_output=True, text=True, timeout=60)
    assert "[OK]" in done.stdout, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]


@pytest.mark.component
@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_own_images_are_what_kustomize_makes(built: str, sandbox: Path) -> None:
    folder = deployed.overlay(deployed.STACK, "registry.example.org/me/forwarder")
    argv = [str(tools.find("kubectl")), "kustomize", str(folder)]
    made = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    images = set(re.findall(r"image: (\S+)", made))
    own = {f"registry.example.org/me/forwarder:study_forwarder_{p}_v0.0.5" for p in ("frontend", "backend", "monitor")}
    assert images == own | set(deployed.UPSTREAM)
    assert made.replace("registry.example.org/me/forwarder", f"localhost:5001/{deployed.REPOSITORY}") in built


def _schemas(cluster: kind.Cluster, folder: Path) -> None:
    """Write a strict JSON schema for each kind from the cluster's own OpenAPI document; no network is needed."""
    document = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"))
    definitions = document["definitions"]
    for name, schema in definitions.items():
        if name.endswith(".IntOrString"):
            schema.clear()
            schema["type"] = ["string", "integer"]
        elif "properties" in schema:
            schema["additionalProperties"] = False
    for name, schema in definitions.items():
        for known in schema.get("x-kubernetes-group-version-kind", []):
            group = f"{known['group'].partition('.')[0]}-" if known["group"] else ""
            path = folder / f"{known['kind'].lower()}-{group}{known['version']}.json"
            path.write_text(json.dumps({"definitions": definitions, "$ref": f"#/definitions/{name}"}))


@in_vm
def test_the_objects_are_valid_for_kubeconform(cluster: kind.Cluster, built: str, tmp_path: Path) -> None:
    _schemas(cluster, tmp_path)
    place = f"{tmp_path}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    argv = [str(tools.find("kubeconform")), "-strict", "-summary", "-schema-location", place]
    done = subprocess.run(argv, input=built, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Skipped: 0" in done.stdout, done.stdout + done.stderr
    spoiled = built.replace("containerPort:", "containerport:")
    done = subprocess.run(argv, input=spoiled, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, "a control: a misspelt field is found"


# ---------------------------------------------------------------------------------------------- the cluster


def _by_hand(cluster: kind.Cluster) -> None:
    cluster.target.run(["kubectl", "apply", "-k", "deployments/forwarder/stack"], timeout=120)
    deployed.wait(cluster)


@pytest.fixture
def ready(cluster: kind.Cluster, stack: None) -> Iterator[kind.Cluster]:
    """Give the cluster with the stack ready before the test."""
    deployed.wait(cluster)
    yield cluster
    deployed.stop_forwards(cluster)


@pytest.fixture
def forwarder(ready: kind.Cluster) -> Forwarder:
    client = Forwarder(port=deployed.forward(ready, "fastapi-service"), patience=120)
    _until(client.ready, 30)
    return client


def _until(test: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@in_vm
def test_kubectl_by_hand_deletes_all_of_it_and_applies_it_anew(ready: kind.Cluster) -> None:
    ready.target.run(["kubectl", "delete", "-k", "deployments/forwarder/stack", "--timeout=120s"], timeout=150)
    left = {n["metadata"]["name"] for n in ready.get("namespaces")}
    assert left.isdisjoint({"forwarder", "forwarder-imports"})
    _by_hand(ready)
    again = deployed.apply(ready, deployed.STACK)
    assert again["configured"] <= 1, "kubectl takes a budget's selector for changed, whatever it is"
    assert deployed.secrets_made(ready)


@in_vm
def test_the_set_up_script_of_chapter_05_applies_what_is_missing(ready: kind.Cluster) -> None:
    def changed() -> list[str]:
        words = "cd tutorial-platform/platform && DEPLOYMENT_OPTION=4 ./integration-setup.sh --defaults"
        return oss_platform.changes(ready.target.run(["sh", "-c", words], timeout=600).stdout.splitlines())

    oss_platform.fetch(ready.target, oss_platform.Platform())
    ready.kubectl("delete", "deployment", "flower-server", "-n", "forwarder")
    try:
        assert changed() == ["the Forwarder's stack applied", "the Forwarder's scheduler applied"]
        assert changed() == []
        deployed.wait(ready, timeout=5)
    finally:
        deployed.delete(ready, deployed.SCHEDULER)


@in_vm
def test_a_pod_with_more_rights_is_refused(ready: kind.Cluster) -> None:
    words = ["run", "root", "-n", "forwarder", "--image=redis:7", "--dry-run=server"]
    with pytest.raises(TutorialError, match="violates PodSecurity"):
        ready.kubectl(*words)


@in_vm
def test_the_backends_rights_in_the_cluster(ready: kind.Cluster) -> None:
    def may(verb: str, what: str, namespace: str) -> bool:
        account = "system:serviceaccount:forwarder:celery-server"
        words = ["auth", "can-i", verb, what, "-n", namespace, "--as", account]
        return ready.kubectl(*words, check=False).strip() == "yes"

    assert may("create", "services", "forwarder-imports") and may("patch", "endpointslices", "forwarder-imports")
    assert may("get", "services", "forwarder")
    for verb, what, namespace in (
        ("get", "secrets", "forwarder"), ("create", "services", "forwarder"), ("create", "services", "default"),
        ("create", "pods", "forwarder"), ("create", "pods", "forwarder-imports"), ("list", "nodes", ""),
    ):  # fmt: skip
        assert not may(verb, what, namespace), f"{verb} {what} in {namespace}"


@in_vm
def test_a_shell_in_the_backend_shows_its_log_and_can_write_nowhere_else(ready: kind.Cluster) -> None:
    _until(lambda: bool(cluster_lab.backend_log(ready)), 30)
    script = "cd logs && touch x && rm x && touch /app/x"
    words = ["exec", "-n", "forwarder", "deployment/celery-server", "--", "/bin/bash", "-c", script]
    with pytest.raises(TutorialError, match="/app/x.*Read-only file system"):
        ready.kubectl(*words)


def _logged(ready: kind.Cluster, deployment: str, wanted: tuple[str, ...]) -> bool:
    text = deployed.logs(ready, deployment, -1)
    return all(line in text for line in wanted)


@in_vm
def test_the_logs_have_the_references_lines(ready: kind.Cluster) -> None:
    lines = {
        "fastapi-server": ("Started server process [1]", "Application startup complete.", "http://0.0.0.0:7600 (Press"),
        "celery-server": ("celery@celery-server-", "concurrency: 8 (prefork)", ". tasks.forwarder-trigger"),
        "flower-server": ("Visit me at http://0.0.0.0:7601", "Broker: redis://", "Registered tasks:"),
    }
    for name, wanted in lines.items():
        _until(partial(_logged, ready, name, wanted), 30)  # where another test has restarted the node, they begin anew
        text = deployed.logs(ready, name, -1)
        secret = deployed.secret(ready, "redis-secret", "password")
        assert secret not in text


@in_vm
@pytest.mark.parametrize("name", SERVERS)
def test_no_accepted_request_is_lost_when_a_pod_is_killed(ready: kind.Cluster, forwarder: Forwarder, name: str) -> None:
    """500 requests, one after the other; the pod is deleted without grace after 150 of them."""
    accepted, refused, killed = list[str](), 0, threading.Event()
    connection = {"name": "web", "address": "10.0.0.1", "port": 80}

    def kill() -> None:
        deployed.delete_pod(ready, name)
        killed.set()

    began, killer = time.monotonic(), threading.Thread(target=kill)
    while len(accepted) < 500:
        if len(accepted) == 150 and killer.ident is None:
            killer.start()
        try:
            accepted.append(forwarder.forward_import("killer", name, [connection]))
        except TutorialError:  # nobody answers: the frontend itself is away, or Redis for long
            refused += 1
            assert time.monotonic() - began < 180
            time.sleep(0.2)
    killer.join()
    sent = time.monotonic() - began
    assert killed.is_set()
    deployed.wait(ready)
    _until(lambda: set(accepted) <= set(deployed.effects(ready)), 120)
    everything = deployed.effects(ready)
    assert len(everything) == len(set(everything)), "none had its effect twice"
    print(f"\n{name}: {len(set(accepted))} accepted in {sent:.0f} s, {refused} tries refused, all done")
    forwarder.wait(forwarder.forward_cancel("killer", name), timeout=60)


@in_vm
def test_a_port_forward_comes_back_when_its_pod_is_replaced(ready: kind.Cluster) -> None:
    port = deployed.forward(ready, "flower-service")
    assert cluster_lab.flower(ready, port).ok
    deployed.delete_pod(ready, "flower-server")
    deployed.wait(ready)

    def answers() -> bool:
        try:
            return cluster_lab.flower(ready, port).ok
        except requests.ConnectionError:
            return False

    _until(answers, 30)
    deployed.stop_forwards(ready)
    assert not processes.answers(f"127.0.0.1:{port}") and processes.running(ready.target.name) == []


@in_vm
def test_an_export_follows_its_service_to_another_pod(ready: kind.Cluster, forwarder: Forwarder) -> None:
    inside = {"name": "frontend", "address": "fastapi-service.forwarder.svc.cluster.local", "port": 7600}

    def leads_to() -> str:
        there = {row["service"]: row["to"] for row in cluster_lab.connections(ready)}
        return there.get("reader-moving-frontend", "")

    try:
        forwarder.wait(forwarder.forward_export("reader", "moving", [inside]), timeout=60)
        _until(lambda: bool(leads_to()), 30)
        before = leads_to()
        deployed.delete_pod(ready, "fastapi-server")
        deployed.wait(ready)
        _until(forwarder.ready, 30)
        forwarder.wait(forwarder.forward_import("reader", "other", [{**inside, "address": "10.0.0.1"}]), timeout=60)
        _until(lambda: leads_to() not in ("", before), 60)

        def answers() -> bool:
            status = forwarder.forward_status("reader", "moving")
            return "alive" in cluster_lab.read_from_machine(ready, status, "/health")

        check("It answers again", answers, remedy="", timeout=30)
    finally:
        for key in ("moving", "other"):
            forwarder.wait(forwarder.forward_cancel("reader", key), timeout=60)


@in_vm
def test_an_export_of_a_service_that_is_not_there_fails_by_name_and_works_later(
    ready: kind.Cluster, forwarder: Forwarder
) -> None:
    late = {"name": "late", "address": "late-service.forwarder.svc.cluster.local", "port": 7600}
    try:
        forwarder.wait(forwarder.forward_export("reader", "late", [late]), timeout=60)
        # 90 s: the lock of a worker that another test has killed lives 30
        _until(lambda: forwarder.forward_status("reader", "late")["state"] == "failed", 90)
        assert "404" in forwarder.forward_status("reader", "late")["connections"][0]["error"]
        selector = ["create", "service", "clusterip", "late-service", "--tcp=7600:7600", "-n", "forwarder"]
        ready.kubectl(*selector)
        ready.kubectl("set", "selector", "service/late-service", "app=fastapi-server", "-n", "forwarder")
        forwarder.wait(forwarder.forward_export("reader", "late", [late]), timeout=60)
        _until(lambda: forwarder.forward_status("reader", "late")["state"] == "active", 90)
    finally:
        ready.kubectl("delete", "service", "late-service", "-n", "forwarder", "--ignore-not-found")
        forwarder.wait(forwarder.forward_cancel("reader", "late"), timeout=60)


# ----------------------------------------------------------------------------------------------- what fails


@in_vm
def test_an_image_that_is_not_there_is_named_and_the_right_one_mends_it(ready: kind.Cluster) -> None:
    deployed.apply(ready, deployed.overlay(deployed.STACK / "flower", "localhost:5001/nothing"))
    with pytest.raises(TutorialError, match="flower-server is not ready after 15 s") as error:
        deployed.wait(ready, timeout=15)
    assert "ImagePull" in str(error.value) and "build and push the images" in error.value.remedy
    deployed.apply(ready, deployed.STACK / "flower")
    deployed.wait(ready)


@in_vm
@pytest.mark.parametrize("content", ["", "not: [yaml", "{apiVersion: v1, kind: Config}"])
def test_a_kubeconfig_that_is_broken_is_written_anew(ready: kind.Cluster, content: str) -> None:
    ready.connect()
    ready.kubeconfig.write_text(content)
    with pytest.raises(TutorialError, match="the way to the cluster anew"):
        ready.kubectl("get", "nodes")
    assert "control-plane" in ready.kubectl("get", "nodes")


@in_vm
def test_the_vm_is_stopped_in_mid_chapter_and_the_next_call_goes_on(ready: kind.Cluster) -> None:
    from helpers import vm

    assert "control-plane" in ready.kubectl("get", "nodes")
    vm.stop()
    with pytest.raises(TutorialError, match="the way to the cluster anew"):
        ready.kubectl("get", "nodes")
    assert "control-plane" in ready.kubectl("get", "nodes")
    deployed.wait(ready)
    assert ready.create() is False, "it is the same cluster"


@in_vm
def test_chapters_06_08_and_09_run_on_the_vm(ready: kind.Cluster) -> None:
    argv = [sys.executable, "-m", "helpers.cli", "run", "06", "08", "09", "--target", "vm"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1500, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert settings().state.exists() and processes.running("vm") == []
