"""Why a pod is not ready: each state has its own reason, and a remedy that names the container and can be pasted."""

# ruff: noqa: E501 - a row of the table is a line

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from helpers import kind
from helpers.pods import explain

unit = pytest.mark.unit
Pod = dict[str, Any]


def _pod(phase: str, main: Pod | None = None, *, init: list[Pod] | None = None, **status: Any) -> Pod:
    """Give a pod of a container `main`, and of the init containers `one`, `two`, …."""
    names = ("one", "two", "three")
    statuses = [
        {"name": n, "ready": False, "restartCount": 0, "state": s} for n, s in zip(names, init or (), strict=False)
    ]
    spec = {
        "nodeName": "worker",
        "containers": [{"name": "main"}],
        "initContainers": [{"name": s["name"]} for s in statuses],
    }
    made = {**status, "phase": phase, "initContainerStatuses": statuses}
    if main is not None:
        made["containerStatuses"] = [{"name": "main", "ready": False, "restartCount": 3, **main}]
    return {"metadata": {"name": "web-1", "namespace": "shop"}, "spec": spec, "status": made}


def _waits(reason: str, message: str = "", **more: Any) -> Pod:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def _ended(reason: str, code: int, message: str = "") -> Pod:
    return {"terminated": {"reason": reason, "exitCode": code, "message": message}}


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> list[Pod]:
    return [{"type": kind, "status": status, "reason": reason, "message": message}]


LOGS, BEFORE, DESCRIBE = (
    "kubectl logs web-1 -n shop -c main", "kubectl logs web-1 -n shop -c main --previous",
    "kubectl describe pod web-1 -n shop",
)  # fmt: skip
DONE, RUNS = _ended("Completed", 0), {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
OOM = _ended("OOMKilled", 137)
CASES: dict[str, tuple[Pod, str, str, str]] = {
    "evicted": (_pod("Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage."), "Evicted", "ephemeral-storage", "kubectl delete pod web-1 -n shop"),
    "not admitted": (_pod("Failed", reason="UnexpectedAdmissionError", message="Allocate failed due to no devices left"), "UnexpectedAdmissionError", "no devices left", "device"),
    "out of time": (_pod("Failed", {"state": _ended("Error", 143)}, reason="DeadlineExceeded", message="Pod was active too long"), "DeadlineExceeded", "too long", LOGS),
    "node shut down": (_pod("Failed", reason="Shutdown", message="Node is shutting down"), "Shutdown", "shutting down", "kubectl delete pod"),
    "preempted": (_pod("Failed", reason="Preempting", message="Preempted in order to admit critical pod"), "Preempting", "critical pod", "kubectl delete pod"),
    "node lost": (_pod("Unknown", reason="NodeLost", message="Node worker which was running pod web-1 is unresponsive"), "NodeLost", "unresponsive", "kubectl describe node worker"),
    "ended for memory": (_pod("Failed", {"state": OOM}), "OOMKilled", "exit code 137", "raise the memory limit of main"),
    "ended for memory, to be started again": (_pod("Running", {"state": OOM}), "OOMKilled", "main", BEFORE),
    "crashes for memory": (_pod("Running", _waits("CrashLoopBackOff", "back-off 5m0s restarting", lastState=OOM)), "CrashLoopBackOff", "OOMKilled (exit code 137)", "raise the memory limit of main"),
    "crashes": (_pod("Running", _waits("CrashLoopBackOff", lastState=_ended("Error", 1, "no such file\n"))), "CrashLoopBackOff", "Error (exit code 1): no such file", BEFORE),
    "no Secret": (_pod("Pending", _waits("CreateContainerConfigError", 'secret "keys" not found')), "CreateContainerConfigError", 'secret "keys" not found', DESCRIBE),
    "not created": (_pod("Pending", _waits("CreateContainerError", "name is in use")), "CreateContainerError", "name is in use", "of main"),
    "not started": (_pod("Running", _waits("RunContainerError", "exec: no such file")), "RunContainerError", "no such file", "command of main"),
    "could not be run": (_pod("Failed", {"state": _ended("StartError", 128, "exec failed")}), "StartError", "exec failed", "command of main"),
    "image name": (_pod("Pending", _waits("InvalidImageName", 'couldn\'t parse image name "A:"')), "InvalidImageName", "parse image", "image's name of main"),
    "image never pulled": (_pod("Pending", _waits("ErrImageNeverPull", "not present with pull policy of Never")), "ErrImageNeverPull", "Never", "imagePullPolicy"),
    "image not pulled": (_pod("Pending", _waits("ImagePullBackOff", 'Back-off pulling image "x"')), "ImagePullBackOff", "Back-off", "image of main"),
    "status lost": (_pod("Failed", {"state": _ended("ContainerStatusUnknown", 137, "could not be located")}), "ContainerStatusUnknown", "could not be located", "kubectl delete pod"),
    "failed": (_pod("Failed", {"state": _ended("Error", 2)}), "failed", "exit code 2", LOGS),
    "first of two init containers": (_pod("Pending", _waits("PodInitializing"), init=[RUNS, {"waiting": {"reason": "PodInitializing"}}]), "Init:0/2", "", "kubectl describe"),
    "second of two init containers": (_pod("Pending", _waits("PodInitializing"), init=[DONE, RUNS]), "Init:1/2", "", "kubectl describe"),
    "init container failed": (_pod("Pending", _waits("PodInitializing"), init=[_ended("Error", 1)]), "Init:Error", "exit code 1", "-c one --previous"),
    "init container crashes": (_pod("Pending", _waits("PodInitializing"), init=[_waits("CrashLoopBackOff")["state"]]), "Init:CrashLoopBackOff", "", "-c one --previous"),
    "init container's image": (_pod("Pending", _waits("PodInitializing"), init=[DONE, _waits("ImagePullBackOff", "no such host")["state"]]), "Init:ImagePullBackOff", "no such host", "image of two"),
    "no place": (_pod("Pending", conditions=_condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available: 1 Insufficient memory.")), "pending", "Insufficient memory", "ask for less"),
    "gated": (_pod("Pending", conditions=_condition("PodScheduled", "False", "SchedulingGated", "Scheduling is blocked")), "SchedulingGated", "blocked", "schedulingGates"),
    "not ready": (_pod("Running", {"state": RUNS}, conditions=_condition("ContainersReady", "False", "", "containers with unready status: [main]")), "running", "unready status: [main]", LOGS),
    "held by a readiness gate": (_pod("Running", {"state": RUNS, "ready": True}, conditions=[*_condition("ContainersReady", "True"), *_condition("Ready", "False", "ReadinessGatesNotReady", "no condition of the gate")]), "running", "of the gate", DESCRIBE),
    "no room on the node": (_pod("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"), "OutOfcpu", "cpu", "ask for less"),
    "hook failed": (_pod("Running", _waits("PostStartHookError", "exited with 126")), "PostStartHookError", "126", "postStart hook of main"),
    "nulls": ({"metadata": {"name": "web-1", "namespace": "shop", "deletionTimestamp": None}, "spec": None, "status": {"phase": "Pending", "conditions": None, "containerStatuses": [{"name": "main", "state": None, "lastState": None}]}}, "pending", "", DESCRIBE),
    "unknown": (_pod("Unknown"), "unknown", "", "kubectl get nodes"),
    "nothing known": ({"metadata": {"name": "web-1", "namespace": "shop"}, "status": {}}, "unknown", "", "kubectl get nodes"),
    "something new": (_pod("Pending", _waits("BrandNewError", "new")), "BrandNewError", "main: new", DESCRIBE),
}  # fmt: skip


@unit
@pytest.mark.parametrize("name", CASES)
def test_a_pod_shows_its_own_reason_and_a_remedy_to_paste(name: str) -> None:
    pod, state, why, remedy = CASES[name]
    found = explain(pod)
    assert (found.state, kind.pod_state(pod)) == (state, state)
    assert why in found.why and remedy in found.remedy
    assert "{" not in found.remedy and "--previous" not in found.remedy.replace("-c main --prev", "").replace(
        "-c one --prev", ""
    )
    for command in found.remedy.split("kubectl ")[1:]:
        assert shlex.split(command.partition(";")[0].partition(". ")[0]), "it can be pasted"


@unit
def test_what_is_well_has_no_remedy() -> None:
    ready = _pod("Running", {"state": RUNS, "ready": True}, conditions=_condition("Ready", "True"))
    for pod, state in ((ready, "ready"), (_pod("Succeeded", {"state": DONE}), "succeeded")):
        found = explain(pod)
        assert (found.state, found.why, found.remedy) == (state, "", "")
    starts = explain(_pod("Pending", _waits("ContainerCreating")))
    assert (starts.state, starts.why) == ("ContainerCreating", "")


@unit
def test_a_sidecar_that_runs_is_no_init_container_that_is_waited_for() -> None:
    pod = _pod("Running", {"state": RUNS, "ready": True}, init=[RUNS], conditions=_condition("Ready", "True"))
    pod["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    pod["status"]["initContainerStatuses"][0]["started"] = True
    assert explain(pod).state == "ready"
    pod["status"]["initContainerStatuses"][0] |= {"state": _waits("CrashLoopBackOff")["state"], "started": False}
    assert explain(pod).state == "Init:CrashLoopBackOff"


@unit
def test_a_pod_that_does_not_end_says_what_holds_it() -> None:
    pod = _pod("Running", {"state": RUNS})
    pod["metadata"] |= {"deletionTimestamp": datetime.now(UTC).isoformat(), "finalizers": ["example.org/keep"]}
    assert (explain(pod).state, explain(pod).why) == ("terminating", "")
    pod["metadata"]["deletionTimestamp"] = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert "example.org/keep" in explain(pod).why and DESCRIBE in explain(pod).remedy
    del pod["metadata"]["finalizers"]
    assert "its node does not say" in explain(pod).why


@unit
def test_events_say_what_a_pod_that_starts_waits_for() -> None:
    def event(name: str, reason: str, message: str) -> Pod:
        return {"involvedObject": {"name": name}, "reason": reason, "message": message}

    events = [
        event("web-1", "FailedMount", 'MountVolume.SetUp failed:\n configmap "x" not found'),
        event("web-2", "FailedMount", "another pod's"),
        event("web-1", "Pulled", "not telling"),
    ]
    starts = _pod("Pending", _waits("ContainerCreating"))
    assert explain(starts, events).why == 'FailedMount: MountVolume.SetUp failed: configmap "x" not found'
    unready = _pod("Running", {"state": RUNS}, conditions=_condition("ContainersReady", "False", "", "unready: [main]"))
    probe = [event("web-1", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")]
    assert (
        explain(unready, probe).why
        == "unready: [main]; Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503"
    )
    assert explain(_pod("Failed", {"state": OOM}), events).why.startswith("main: OOMKilled"), "it knows better itself"
