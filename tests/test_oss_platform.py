"""Chapter 05: scripts that ask, answered and ended; the set-up by hand, killed, refused; stuck pods; what is booked."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from helpers import allocated, kind, kind_lab, nvshare, oss_platform, terminal
from helpers.errors import TutorialError
from helpers.oss_platform import Platform
from helpers.settings import ROOT
from helpers.target import Target

unit = pytest.mark.unit
SCRIPTS = sorted(oss_platform.FOLDER.rglob("*.sh"))
THERE = "tutorial-platform/platform"  # on the VM


def in_vm(test: Any) -> Any:
    """Mark a test that needs the tests' VM."""
    for mark in (pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)):
        test = mark(test)
    return test


# ------------------------------------------------------------------------------------------ scripts that ask


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[str]]:
    """Give a function that runs a bash script on this machine and answers it."""

    def converse(text: str, answers: Mapping[str, str], **how: Any) -> list[str]:
        script = tmp_path / "script.sh"
        script.write_text("#!/bin/bash\n\nset -eo pipefail\n" + textwrap.dedent(text))
        script.chmod(0o755)
        with Target.open("local") as target:
            return terminal.converse(target, ["./script.sh"], answers, folder=str(tmp_path), **{"quiet": 1.0, **how})

    return converse


def _runs(mark: str) -> list[psutil.Process]:
    """List the processes that carry a word in their environment, however deep they are."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().values() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@unit
def test_each_question_gets_its_answer(run: Callable[..., list[str]]) -> None:
    text = """
        read -r -p "Setup integration (y/n) [y]: " one
        printf 'Install local '; sleep 0.6; printf 'DOCKER   registry? '; read -r two
        echo "got $one and $two"
    """
    lines = run(text, {"setup integration": "y", "Install local Docker registry": "n"})
    assert lines[-1] == "got y and n"
    assert lines[0].startswith("Setup integration (y/n) [y]: y"), "the answer stands in the output, as when typed"


@unit
def test_a_question_above_its_menu_is_found_and_not_one_that_is_answered(run: Callable[..., list[str]]) -> None:
    """As the platform upstream asks: the words stand some lines above the prompt."""
    text = """
        read -r -p "Setup integration (y/n): " one
        echo "Please choose the deployment option:"
        for n in 1 2 3 4; do echo "[$n] a deployment"; done
        read -r -p "Enter the number of your choice [1-4] (default is [1]): " two
        echo "got $one$two"
    """
    assert run(text, {"Setup integration": "y", "deployment option": "4"})[-1] == "got y4"


@unit
def test_an_unknown_question_stops_with_its_text_and_nothing_runs_on(
    run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TEST_MARK", mark)
    text = """
        sleep 300 &
        echo "Cluster exists"
        read -r -p "Do you want to continue? (y/n): " answer
    """
    with pytest.raises(TutorialError, match=r"The script asks: Do you want to continue\? \(y/n\):") as error:
        run(text, {"Setup integration": "y"})
    assert "Cluster exists" in error.value.output and 'answers["words of the question"]' in error.value.remedy
    assert _runs(mark) == []


@unit
def test_an_answer_that_is_not_taken_is_given_three_times(run: Callable[..., list[str]]) -> None:
    text = 'until [[ $x == yes ]]; do read -r -p "Install Ray (yes/no): " x; echo "say yes or no"; done'
    with pytest.raises(TutorialError, match="does not take the answer to: Install Ray") as error:
        run(text, {"Install Ray": "y"})
    assert "it was given 3 times: y" in error.value.why


@unit
def test_output_without_a_lines_end_that_goes_on_is_no_question(run: Callable[..., list[str]]) -> None:
    text = (
        "for n in 1 2 3 4 5; do printf '.'; sleep 0.4; done; printf '\\r\\033[32mdone\\033[0m\\n'; sleep 1.5; echo end"
    )
    assert run(text, {}) == ["done", "end"]


@unit
def test_a_script_that_fails_shows_its_last_lines_and_no_secret(run: Callable[..., list[str]]) -> None:
    text = """
        for n in $(seq 30); do echo "line $n"; done
        echo "password=hunter2-of-the-script"
        ls /nowhere
        echo "never reached"
    """
    seen = list[str]()
    with pytest.raises(TutorialError, match="script.sh failed") as error:
        run(text, {}, watch=seen.append)
    assert "exit code 2" in error.value.why and "/nowhere" in error.value.output
    assert "line 29" in error.value.output and "line 5\n" not in error.value.output
    everything = "\n".join(seen) + str(error.value)
    assert "password=***" in everything and "hunter2" not in everything and "never reached" not in everything


@unit
def test_a_script_that_never_ends_is_ended_though_it_refuses(
    run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TEST_MARK", mark)
    monkeypatch.setattr(terminal, "_INTERRUPT_SECONDS", 1.0)
    monkeypatch.setattr(terminal, "_TERM_SECONDS", 1)
    text = """
        trap '' INT TERM HUP
        (trap '' INT TERM HUP; while true; do sleep 0.5; done) &
        while true; do echo tick; sleep 0.5; done
    """
    with pytest.raises(TutorialError, match="took too long"):
        run(text, {}, timeout=2)
    assert _runs(mark) == []


@unit
def test_ctrl_c_lets_the_script_clean_up_and_leaves_nothing(tmp_path: Path) -> None:
    mark, script = uuid.uuid4().hex, tmp_path / "script.sh"
    script.write_text(
        f"#!/bin/bash\ntrap 'echo cleaned >{tmp_path}/note; exit 130' INT\necho began\nsleep 300 & wait\n"
    )
    script.chmod(0o755)
    code = (
        "import sys; from helpers import terminal; from helpers.target import Target; "
        "terminal.converse(Target.open('local'), [sys.argv[1]], {}, watch=lambda line: print(line, flush=True))"
    )
    argv = [sys.executable, "-c", code, str(script)]
    environment = {**os.environ, "TEST_MARK": mark}
    child = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline().strip() == "began"
    child.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in child.communicate(timeout=60)[1]
    assert (tmp_path / "note").read_text() == "cleaned\n"
    assert _runs(mark) == []


# ------------------------------------------------------------------------------------------------- the files


@unit
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_each_script_begins_with_the_block_and_can_be_run(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/bash\n\nset -eo pipefail\n")
    assert os.access(script, os.X_OK)


@unit
@pytest.mark.parametrize("name", ["cluster.yaml", "gpu-cluster.yaml"])
def test_the_script_and_chapter_06_mean_the_same_cluster(name: str) -> None:
    path = kind.FOLDER / name
    said = _sourced(f'fingerprint "{path}"; echo "$NODE_IMAGE $REGISTRY_IMAGE $NODE"; marked "{path}"')
    fingerprint, names, text = said.split("\n", 2)
    with Target.open("local") as target:
        cluster = kind.Cluster(target, path)
        assert fingerprint == cluster.fingerprint()
    assert names == f"{kind.NODE_IMAGE} {kind.REGISTRY_IMAGE} tutorial-control-plane"
    marked = kind.configuration(path)
    marked["nodes"][0]["labels"] = {"tutorial-configuration": fingerprint}
    assert yaml.safe_load(text) == marked


@unit
def test_comments_do_not_change_which_cluster_it_is_and_everything_else_does(tmp_path: Path) -> None:
    text = (kind.FOLDER / "cluster.yaml").read_text()
    variants = {"same": f"# new\n\n{text}  # and here", "other": text.replace("7001", "7002")}
    for name, content in variants.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    with Target.open("local") as target:
        want = kind.Cluster(target).fingerprint()
        same, other = (kind.Cluster(target, tmp_path / f"{n}.yaml").fingerprint() for n in variants)
    assert same == want != other
    assert _sourced(f'fingerprint "{tmp_path}/same.yaml"').strip() == want


def _sourced(words: str) -> str:
    argv = ["bash", "-c", f'source "{oss_platform.FOLDER}/scripts/functions.sh"; {words}']
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


@unit
def test_needs_and_registry_are_those_of_chapter_06() -> None:
    said = _sourced(
        "echo $NEED_CORES $NEED_MEMORY $NEED_DISK $NEED_WATCHES $NEED_INSTANCES $REGISTRY_NAME $REGISTRY_PORT"
    )
    assert said.split() == [*map(str, kind.NEEDS.values()), kind.REGISTRY, str(kind.REGISTRY_PORT)]


@unit
def test_the_steps_are_where_the_table_says() -> None:
    text = (oss_platform.FOLDER / "integration-setup.sh").read_text()
    assert re.findall(r"^step (\d+) ", text, re.MULTILINE) == [str(n) for n in range(1, 11)]
    for _, place, _ in kind.SETUP_STEPS:
        assert (oss_platform.FOLDER / place.partition(",")[0]).is_file(), place


@unit
def test_every_question_has_an_answer_that_it_takes() -> None:
    assert oss_platform.unanswered(oss_platform.answers(gpu=True, ray=True)) == []
    assert oss_platform.unanswered({**oss_platform.answers(option=7), "Install Ray": "maybe"}) == [
        "Please choose deployment option", "Install Ray",
    ]  # fmt: skip


def _by_hand(*words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    argv = [str(oss_platform.FOLDER / "integration-setup.sh"), *words]
    return subprocess.run(argv, input=said, capture_output=True, text=True, timeout=30)


@unit
def test_help_and_wrong_words() -> None:
    done = _by_hand("--help")
    assert done.returncode == 0 and "asks five questions" in done.stdout
    done = _by_hand("--force")
    assert done.returncode == 2 and "unknown option: --force" in done.stderr


@unit
def test_a_wrong_answer_is_asked_again_and_no_answer_stops() -> None:
    done = _by_hand(said="maybe\nn\n")
    assert done.returncode == 0
    assert "maybe is none of y/n" in done.stdout and "nothing was asked for" in done.stdout
    done = _by_hand(said="y\n")
    assert done.returncode == 1 and "no answer to: Please choose deployment option" in done.stderr
    assert "stopped at step 2/10 (Gives options), exit code 1" in done.stderr


@unit
def test_a_script_without_the_block_is_not_added(tmp_path: Path) -> None:
    script = tmp_path / "team.sh"
    script.write_text("#!/bin/bash\nkubectl create namespace team\n")
    with Target.open("local") as target, pytest.raises(TutorialError, match="team.sh does not begin with the block"):
        oss_platform.add_script(target, Platform(), script)


@unit
@pytest.mark.parametrize("how", [{"source": "other"}, {"branch": "-x"}, {"repository": "--upload-pack=x"}])
def test_a_platform_that_is_none_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(TutorialError, match="is no platform|is not valid"):
        Platform(**how)


@unit
def test_the_plan_of_each_platform_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with Target.open("local") as target:
        oss_platform.plan(target, Platform(), oss_platform.answers())
        oss_platform.plan(target, Platform("upstream"), oss_platform.answers(gpu=True))
        with pytest.raises(TutorialError, match="No Docker engine answers"):
            oss_platform.fetch(target, Platform())
    course, upstream = capsys.readouterr().out.split("Plan: the platform\n")[1:]
    assert "$ ./integration-setup.sh" in course and "GPU cluster = n" in course
    assert f"$ git clone --branch studying {oss_platform.REPOSITORY}" in upstream and "GPU cluster = y" in upstream


@unit
@pytest.mark.parametrize(
    ("log", "verdict"),
    [
        ("nvshare-tf-matmul-1\nPASS\n--- 238.66402554512024 seconds ---\n", (True, "238.7")),
        ("100%|####| 10/10\rPASS\n", (False, "")),
        ("FAIL\n--- 2.0 seconds ---\n", (False, "")),
        ("", (False, "")),
    ],
)
def test_a_verdict_is_read_from_the_log(log: str, verdict: tuple[bool, str]) -> None:
    assert nvshare.verdict(log) == verdict


@unit
def test_images_of_operator_and_nvshare_are_named() -> None:
    def pod(namespace: str, *names: str) -> dict[str, Any]:
        return {"metadata": {"namespace": namespace}, "spec": {"containers": [{"image": name} for name in names]}}

    pods = [pod("gpu-operator", "nvcr.io/nvidia/gpu-operator:v24.9.0"), pod("default", "redis:7")]
    assert oss_platform.images([*pods, *pods], "gpu-operator") == "gpu-operator:v24.9.0"
    assert oss_platform.images(pods, "nvshare-system") == "not installed"


def _container(cpu: str, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}}, **more}


@unit
@pytest.mark.parametrize(
    ("spec", "cores"),
    [
        ({"containers": [_container("100m"), _container("0.5"), {}]}, "0.6"),
        ({"containers": [_container("100m")], "initContainers": [_container("2"), _container("1")]}, "2"),
        ({"containers": [_container("1")], "initContainers": [_container("500m", restartPolicy="Always")]}, "1.5"),
        (
            {
                "containers": [_container("1")],
                "initContainers": [_container("1", restartPolicy="Always"), _container("1500m")],
            },
            "2.5",
        ),
        ({"containers": [_container("1")], "overhead": {"cpu": "250m"}}, "1.25"),
        ({"containers": [_container("1")], "resources": {"requests": {"cpu": "3"}}}, "3"),
    ],
)
def test_a_pod_books_what_the_scheduler_counts(spec: dict[str, Any], cores: str) -> None:
    assert allocated.pod_sum({"spec": spec}, "requests", "cpu") == Decimal(cores)


# ------------------------------------------------------------------------------------------------- upstream


@pytest.mark.component
@pytest.mark.docker
def test_a_platform_is_cloned_set_up_and_removed(
    require: Callable[[str], str], sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository of the test's own stands for the one upstream: a real clone, a real script with its questions."""
    require("docker")
    home, origin = sandbox / "home", sandbox / "origin"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    origin.mkdir()
    script = origin / "integration-setup.sh"
    lines = [f'read -r -p "{q}? " answer; echo "{q}: $answer"' for q in oss_platform.answers()]
    script.write_text("\n".join(["#!/bin/bash", "", "set -eo pipefail", *lines]) + "\n")
    script.chmod(0o755)
    git = ["git", "-C", str(origin), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q", "-b", "studying"], ["add", "."], ["commit", "-qm", "script"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    platform = Platform("upstream", repository=str(origin))
    with Target.open("host") as target:
        for _ in range(2):  # a second time it is there already
            oss_platform.fetch(target, platform)
        said = oss_platform.setup(target, platform, oss_platform.answers())
        assert [line for line in said if "? " not in line] == [f"{q}: {a}" for q, a in oss_platform.answers().items()]
        with pytest.raises(TutorialError, match="The platform can't be had") as error:
            oss_platform.fetch(target, Platform("upstream", "other", str(sandbox / "nowhere")))
        assert 'platform = "course"' in error.value.remedy
    (left,) = oss_platform.leftovers("host")
    left.remove()
    assert oss_platform.leftovers("host") == [] and not (home / platform.place).exists()


# ---------------------------------------------------------------------------------------------- the cluster


@pytest.fixture(scope="session")
def scripts(session_cluster: kind.Cluster) -> kind.Cluster:
    """Have the platform's files on the VM, beside the cluster that chapter 06's helper has made."""
    session_cluster.target.run(["true"], repeatable=True)
    oss_platform.fetch(session_cluster.target, Platform())
    return session_cluster


def _there(
    target: Target, words: str = "./integration-setup.sh --defaults", **environment: str
) -> tuple[int, list[str]]:
    """Run the script on the VM as a person does; its exit code, and what it said."""
    done = target.run(["sh", "-c", f"cd {THERE} && {words} 2>&1"], check=False, timeout=600, env=environment)
    return done.returncode, done.stdout.splitlines()


@in_vm
def test_by_hand_the_cluster_of_chapter_06_is_used_and_nothing_changes(scripts: kind.Cluster) -> None:
    before = scripts.get("nodes")[0]["metadata"]["uid"]
    words = "printf 'y\\n1\\ny\\nn\\n\\n' | ./integration-setup.sh"
    code, said = _there(scripts.target, words)
    assert code == 0 and said[-1] == "Done: nothing changed", said
    assert [line for line in said if line.startswith("[")][0] == "[1/10] Loads the configuration"
    assert scripts.get("nodes")[0]["metadata"]["uid"] == before and scripts.create() is False


@in_vm
def test_what_is_missing_is_said_at_its_step(scripts: kind.Cluster) -> None:
    code, said = _there(scripts.target, PATH="/usr/bin:/bin")
    assert code == 1 and "stop: kind is not installed" in said
    assert said[-1] == "integration-setup.sh stopped at step 4/10 (Checks the OS), exit code 1"
    code, said = _there(scripts.target, GPU_CLUSTER="y")
    asked = ["docker", "info", "-f", "{{.DefaultRuntime}}"]
    nvidia = scripts.target.run(asked, repeatable=True).stdout.strip() == "nvidia"  # chapter 04 was here
    reason = "made from another configuration" if nvidia else "not nvidia"
    assert code == 1 and reason in said[-3] and "step 5/10" in said[-1]
    code, said = _there(scripts.target, NEED_CORES="999")
    assert code == 1 and "not enough: cores" in said[-3] and "step 3/10" in said[-1]


def _put_configuration(target: Target, name: str, port: int | None) -> tuple[Path, str]:
    path = kind_lab.lesson_configuration(name, port)
    target.put(path, f"{name}.yaml")
    return path, target.run(["sh", "-c", f"echo ~/{name}.yaml"]).stdout.strip()


@in_vm
def test_a_taken_port_is_named_and_nothing_is_made(scripts: kind.Cluster) -> None:
    path, there = _put_configuration(scripts.target, "tutorial-taken", 7001)
    code, said = _there(scripts.target, CLUSTER_CONFIG=there)
    assert code == 1 and "stop: port 7001 of the machine is taken" in said
    assert not kind.Cluster(scripts.target, path).exists()


@in_vm
def test_a_script_that_was_killed_in_mid_creation_is_completed_by_the_next_run(scripts: kind.Cluster) -> None:
    """kill -9 for the script and all of its processes, when the node is there and its control plane is not."""
    target = scripts.target
    path, there = _put_configuration(target, "tutorial-killed", None)
    environment = {"CLUSTER_CONFIG": there, "DEPLOYMENT_OPTION": "1"}
    start = "setsid ./integration-setup.sh --defaults >/tmp/killed.log 2>&1 </dev/null & echo $!"
    try:
        group = _there(target, start, **environment)[1][0]
        node = ["docker", "exec", "tutorial-killed-control-plane", "true"]
        deadline = time.monotonic() + 60
        while target.run(node, check=False).returncode != 0:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        target.run(["kill", "-9", "--", f"-{group}"])
        code, said = _there(target, **environment)
        assert code == 0, said
        assert "The creation of the cluster tutorial-killed was interrupted; it is made anew." in said
        assert "changed: cluster tutorial-killed created" in said
        with kind.Cluster(target, path) as made:
            assert made.create() is False, "chapter 06 takes it for its own"
            assert made.nodes()[0]["state"] == "ready"
    finally:
        kind.Cluster(target, path).delete()
        scripts.choose()


@in_vm
def test_a_terminal_on_the_vm_is_ended_with_all_that_runs_in_it(machine: Target) -> None:
    script = "trap 'echo cleaned >/tmp/cleaned; exit 130' INT; sleep 4321 & setsid sleep 4321 & echo began; wait"
    lines = list[str]()
    with pytest.raises(TutorialError, match="took too long"):
        terminal.converse(machine, ["bash", "-c", script], {}, timeout=2, watch=lines.append)
    assert lines == ["began"]
    assert machine.run(["cat", "/tmp/cleaned"]).stdout == "cleaned\n"
    assert machine.run(["pgrep", "-fx", "sleep 4321"], check=False).stdout == ""


@in_vm
def test_a_pod_that_is_stuck_is_named_with_its_events(cluster: kind.Cluster) -> None:
    cluster.kubectl("run", "stuck", "--image=localhost:5001/nothing:v1", "--restart=Never")
    try:
        with pytest.raises(TutorialError, match="Not ready after 5 s: .*stuck") as error:
            oss_platform.wait_for_pods(cluster, timeout=5)
        assert "default/stuck: " in error.value.output and "Failed: " in error.value.output
        assert "localhost:5001/nothing:v1" in error.value.output
    finally:
        cluster.kubectl("delete", "pod", "stuck", "--grace-period=0", "--force", "--ignore-not-found")


@in_vm
def test_what_is_booked_is_what_kubectl_describes(cluster: kind.Cluster) -> None:
    from kubernetes.utils import parse_quantity

    rows = {row.resource: row for row in allocated.read(cluster)}
    described = cluster.allocated()
    assert {str(row["resource"]) for row in described} == rows.keys()
    for there in described:
        row = rows[str(there["resource"])]
        for words, amount in ((there["requests"], row.requests), (there["limits"], row.limits)):
            quantity, _, percent = str(words).partition(" ")
            assert parse_quantity(quantity) == amount, there
            assert not percent or percent == f"({row.percent(amount)}%)", there


@in_vm
def test_shares_that_a_device_plugin_offers_are_not_touched(cluster: kind.Cluster) -> None:
    name, path = cluster.get("nodes")[0]["metadata"]["name"], "/status/capacity/nvshare.com~1gpu"

    def patch(**change: str) -> None:
        words = ["patch", "node", name, "--subresource=status", "--type=json"]
        cluster.kubectl(*words, "-p", json.dumps([{"path": path, **change}]))

    patch(op="add", value="10")  # as nvshare's device plugin has it, without the rehearsal's mark
    try:
        with pytest.raises(TutorialError, match="nvshare.com/gpu is offered already"):
            nvshare.advertise(cluster)
        nvshare.withdraw(cluster)
        assert cluster.get("nodes")[0]["status"]["capacity"][nvshare.RESOURCE] == "10"
    finally:
        patch(op="remove")
