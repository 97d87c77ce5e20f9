"""Chapter 10: Airflow's values, chart and DAG files, then Airflow in the tests' cluster, used, broken and mended."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import sync_playwright

from helpers import airflow_cluster, airflow_git, check, helm_lab, kind, processes, tools
from helpers import cluster as deployed
from helpers.airflow import Airflow
from helpers.errors import TutorialError
from helpers.helm import Helm
from helpers.helm_values import read
from helpers.settings import ROOT
from helpers.target import Target

unit = pytest.mark.unit
CHART = ROOT / "tests" / "airgap" / "charts" / "airflow"
APPLICATION = ROOT / "applications" / "forwarder" / "airflow"


# ------------------------------------------------------------------------------------------------- the files


@unit
def test_the_values_are_the_references() -> None:
    values = read(airflow_cluster.VALUES)
    assert values["defaultAirflowRepository"] == "localhost:5001/multi-local-cloud-hpc-integration"
    assert values["defaultAirflowTag"] == "study_forwarder_airflow_v3.0.6"
    assert f"{values['defaultAirflowRepository']}:{values['defaultAirflowTag']}" == deployed.image(deployed.AIRFLOW)
    assert values["airflowVersion"] == tools.VERSIONS["airflow"]["version"] == "3.0.6"
    sync = values["dags"]["gitSync"]
    assert sync["enabled"] is True and sync["wait"] == 15
    assert sync["branch"] == sync["ref"] == "studying"
    assert sync["repo"] == "https://github.com/K123AsJ0k1/multi-cloud-hpc-oss-mlops-platform.git"
    assert values["postgresql"] == {"enabled": False}


@unit
def test_no_key_and_no_password_is_in_the_values() -> None:
    values = read(airflow_cluster.VALUES)
    named = {values["fernetKeySecretName"], values["apiSecretKeySecretName"], values["jwtSecretName"]}
    assert named == {values["data"]["metadataSecretName"]} == {"airflow-keys"}
    secret = {e["name"]: e["valueFrom"]["secretKeyRef"]["name"] for e in values["createUserJob"]["env"]}
    assert secret == {"AIRFLOW_USERNAME": "airflow-secret", "AIRFLOW_PASSWORD": "airflow-secret"}
    assert "fernetKey" not in values and "webserver" not in values
    jobs = (values["createUserJob"], values["migrateDatabaseJob"])
    assert not any(job["useHelmHooks"] for job in jobs), "the pods wait for them, and hooks would wait for the pods"


@unit
def test_the_keys_are_made_where_the_values_look_for_them() -> None:
    (pod,) = (o for o in deployed.objects(airflow_cluster.FOLDER) if o["kind"] == "Pod")
    (words,) = pod["spec"]["containers"][0]["args"]
    name, *pairs = words.split()
    assert name == "airflow-keys"
    keys = dict(pair.split("=", 1) for pair in pairs)
    assert set(keys) == {"fernet-key", "api-secret-key", "jwt-secret", "connection"}
    assert keys["connection"].startswith("postgresql://$(POSTGRES_USER):$(POSTGRES_PASSWORD)@postgres-service.")


@unit
def test_the_fernet_key_is_one_and_another_one_each_time() -> None:
    script = "import run_secrets, base64; print(run_secrets.parse('k a=?fernet b=?fernet')[1])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=APPLICATION.parent / "celery", capture_output=True, text=True
    )
    made = yaml.safe_load(done.stdout)
    assert made["a"] != made["b"]
    assert {len(base64.urlsafe_b64decode(value)) for value in made.values()} == {32}


@unit
def test_the_dags_have_the_names_that_the_book_uses() -> None:
    texts = {path.name: path.read_text() for path in airflow_git.DAGS.glob("*.py")}
    assert 'dag_id="tutorial-hello-world"' in texts["hello_world_dag.py"]
    assert 'dag_id="tutorial-forwarder-import"' in texts["forwarder_import_dag.py"]
    for name, text in texts.items():
        compile(text, name, "exec")


@unit
def test_a_text_that_a_dag_does_not_have_is_a_clear_error(sandbox: Path) -> None:
    with Target.open("local") as target:
        server = airflow_git.Server(kind.Cluster(target))
    (server.folder / "dags").mkdir(parents=True)
    (server.folder / "dags" / "x.py").write_text("a = 1")
    with pytest.raises(TutorialError, match=r"x\.py has no 'b = 2'"):
        server.change("x.py", "b = 2", "b = 3")


# ------------------------------------------------------------------------------------------------ the chart


def _render(*words: str) -> "subprocess.CompletedProcess[str]":
    """Render the lab's chart with the course's values."""
    argv = [str(tools.find("helm")), "template", "airflow", str(CHART), "-n", "forwarder", "-f"]
    return subprocess.run([*argv, str(airflow_cluster.VALUES), *words], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def rendered(require: Callable[[str], str]) -> list[dict[str, Any]]:
    require("docker")
    done = _render()
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.component
@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_the_labs_chart_makes_upstreams_objects_of_these_values(rendered: list[dict[str, Any]]) -> None:
    names = {f"{o['kind']}/{o['metadata']['name']}" for o in rendered}
    assert names == {
        "ConfigMap/airflow-config", "Service/airflow-api-server", "Deployment/airflow-api-server",
        "Deployment/airflow-scheduler", "Deployment/airflow-dag-processor", "Job/airflow-run-airflow-migrations",
        "Job/airflow-create-user",
    }  # fmt: skip
    pods = [o["spec"]["template"] for o in rendered if o["kind"] in ("Deployment", "Job")]
    for pod in pods:
        assert {"tier": "airflow", "release": "airflow"}.items() <= pod["metadata"]["labels"].items(), (
            "for the policies"
        )
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    wait = {e["name"]: e.get("value") for p in pods for c in p["spec"]["containers"] for e in c["env"]}
    assert wait["GITSYNC_PERIOD"] == "15s"


@pytest.mark.component
@pytest.mark.docker
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("schedulers.replicas=2", "additional properties 'schedulers'"),
        ("postgresql.enabled=true", "/postgresql/enabled"),
    ],
)
def test_a_wrong_value_is_named(require: Callable[[str], str], setting: str, said: str) -> None:
    require("docker")
    done = _render("--set", setting)
    assert done.returncode != 0 and said in done.stderr


# ---------------------------------------------------------------------------------------------- the cluster


def in_vm(test: Any) -> Any:
    """Mark a test that needs the tests' VM."""
    for mark in (pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(1800)):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def installed(session_cluster: kind.Cluster, stack: None) -> Iterator[dict[str, Any]]:
    """Have Airflow in the cluster: chapter 10 installs it. Give the chapter's report; all of it is gone in the end."""
    deployed.wait(session_cluster)
    helm = Helm(session_cluster)
    argv = [sys.executable, "-m", "helpers.cli", "run", "10", "--target", "vm"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, cwd=ROOT)
    try:
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        report = re.search(r"report: (\S+)", done.stdout)
        assert report
        yield json.loads(Path(report[1]).read_text())["chapters"][0]
    finally:
        airflow_cluster.remove(helm)
        airflow_git.Server(session_cluster).stop()
        processes.stop_all(session_cluster.target.name)


@pytest.fixture
def airflow(installed: dict[str, Any], cluster: kind.Cluster) -> Iterator[Airflow]:
    """Give a client of the deployed Airflow, which is healthy before the test."""
    port = processes.free_port()
    airflow_cluster.forward(cluster, port)
    with airflow_cluster.client(cluster, port) as client:
        check("Airflow is healthy", client.healthy, remedy="", timeout=180)
        yield client
    airflow_cluster.stop_forwards(cluster, port)


@in_vm
def test_chapter_10_runs_on_the_vm(installed: dict[str, Any], cluster: kind.Cluster) -> None:
    assert {
        "The release is deployed", "Airflow is healthy", "The run is a success", "The log has the greeting",
        "The pods have the new commit", "The next run greets as git says", "The import is done",
        "The Forwarder saw the run succeed", "Cancelled, it counts as failed", "Helm knows more than one revision",
    } <= set(installed["green"])  # fmt: skip
    assert sum(int(row["MiB"]) for row in airflow_cluster.memory(cluster)) < 12 * 1024


@in_vm
def test_airflow_takes_no_default_password_and_shows_its_page_to_who_has_the_right_one(
    airflow: Airflow, cluster: kind.Cluster, require: Callable[[str], str]
) -> None:
    with Airflow(airflow.url, "admin", "admin") as stranger, pytest.raises(TutorialError, match="did not let admin in"):
        stranger.dags()
    password = deployed.secret(cluster, "airflow-secret", "password")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=require("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{airflow.url}/dags", timeout=60_000)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", password)
        page.click("input[type=submit]")

        def listed() -> bool:
            page.goto(f"{airflow.url}/dags", timeout=60_000)
            page.get_by_text("tutorial-hello-world").first.wait_for(timeout=20_000)
            return True

        check("The page lists the DAG", listed, remedy="", timeout=90, interval=2)
        browser.close()


@in_vm
def test_an_image_that_is_not_there_is_named_and_the_right_one_mends_it(
    airflow: Airflow, cluster: kind.Cluster
) -> None:
    helm, chart = Helm(cluster), airflow_cluster.CHART
    charts = helm_lab.repository(chart.repository, airflow_cluster.CHARTS, cluster.target)  # a run's end has closed it
    helm.add_repository(chart.repository, charts)
    chosen = airflow_cluster.settings_for(cluster, airflow_git.SERVER, 5)
    with pytest.raises(TutorialError, match="ImagePullBackOff|ErrImagePull") as error:
        airflow_cluster.install(helm, {**chosen, "defaultAirflowTag": "gone"}, timeout=90)
    assert "airflow" in str(error.value) and "tag" in error.value.remedy
    assert airflow.version() == "3.0.6", "the pods of before go on"
    airflow_cluster.install(helm, chosen)
    check("Airflow is healthy again", airflow.healthy, remedy="", timeout=120)


SLOW = """
import time
from datetime import timedelta
from airflow.sdk import dag, task

@dag(dag_id="slow", schedule=None, catchup=False, is_paused_upon_creation=False)
def slow():
    @task(retries=2, retry_delay=timedelta(seconds=5))
    def sleep():
        time.sleep(25)
    sleep()

slow()
"""


@in_vm
def test_the_database_goes_away_in_mid_run_and_the_run_ends_well(airflow: Airflow, cluster: kind.Cluster) -> None:
    server = airflow_git.Server(cluster)
    server.start()
    (server.folder / "dags" / "slow_dag.py").write_text(SLOW)
    server.push("A slow DAG")
    check("Airflow has read it", lambda: airflow.has("slow"), remedy="", timeout=120, interval=1)
    run = airflow.trigger("slow")["dag_run_id"]
    check("It runs", lambda: airflow.tasks("slow", run)[0]["state"] == "running", remedy="", timeout=90)
    deployed.delete_pod(cluster, "postgres-server")
    deployed.wait(cluster)
    check("Airflow is healthy again", airflow.healthy, remedy="", timeout=120)
    assert airflow.wait("slow", run, timeout=240)["state"] == "success"
