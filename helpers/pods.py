"""Why a pod is not ready: one place that reads a pod's state, its reason, and what to do, as `kubectl get pods` would.

Sources: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and kubectl's own printer of pods
(kubernetes/pkg/printers/internalversion/printers.go, printPod).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_Part = Mapping[str, Any]
_STARTING = ("", "PodInitializing", "ContainerCreating")
_STUCK_SECONDS = 60.0  # beyond its time of grace, a pod that ends is stuck
_DESCRIBE = "kubectl describe pod {pod} -n {namespace}"
_LOGS = "kubectl logs {pod} -n {namespace} -c {container}"
_AGAIN = f"{_LOGS} --previous"
_IMAGE = f"correct the image of {{container}} and check that its registry is reached: {_DESCRIBE}"
_PLACE = (
    f"free some of it on the node, or ask for less; then: kubectl delete pod {{pod}} -n {{namespace}}; see {_DESCRIBE}"
)
_ENDED = (
    f"its controller makes another one; remove this one: kubectl delete pod {{pod}} -n {{namespace}}; see {_DESCRIBE}"
)
# State → what to do; `Init:` before a state changes nothing.
_REMEDIES = {
    "pending": f"ask for less, or free resources; the scheduler's reason: {_DESCRIBE}",
    "SchedulingGated": f"its schedulingGates have to be removed by what has set them: {_DESCRIBE}",
    "CrashLoopBackOff": f"the log of the attempt before: {_AGAIN}",
    "Error": f"the log of the attempt before: {_AGAIN}",
    "failed": f"its log: {_LOGS}",
    "OOMKilled": f"raise the memory limit of {{container}}; its log: {_AGAIN}",
    "RunContainerError": f"correct the command of {{container}}: {_DESCRIBE}",
    "StartError": f"correct the command of {{container}}: {_DESCRIBE}",
    "PostStartHookError": f"correct the postStart hook of {{container}}: {_DESCRIBE}",
    "ContainerCannotRun": f"correct the command of {{container}}: {_DESCRIBE}",
    "CreateContainerConfigError": f"make the Secret or ConfigMap that {{container}} names: {_DESCRIBE}",
    "CreateContainerError": f"correct the command, mounts or name of {{container}}: {_DESCRIBE}",
    "ImagePullBackOff": _IMAGE,
    "ErrImagePull": _IMAGE,
    "ImageInspectError": _IMAGE,
    "RegistryUnavailable": _IMAGE,
    "InvalidImageName": f"correct the image's name of {{container}}: {_DESCRIBE}",
    "ErrImageNeverPull": f"put the image of {{container}} on the node, or change its imagePullPolicy: {_DESCRIBE}",
    "Evicted": _PLACE,
    "UnexpectedAdmissionError": f"the node has no such device or resource left: {_ENDED}",
    "NodeLost": "see whether the node is ready: kubectl get nodes; then kubectl describe node {node}",
    "ContainerStatusUnknown": f"the node has lost {{container}}, as after a restart: {_ENDED}",
    "DeadlineExceeded": f"raise activeDeadlineSeconds, or see what takes long: {_LOGS}",
    "Preempting": _ENDED,
    "Shutdown": _ENDED,
    "Terminated": _ENDED,
    "terminating": f"see what holds it: {_DESCRIBE}; kubectl get nodes shows whether its node is there",
    "running": f"{{container}} is not ready: {_LOGS}; its readiness probe: {_DESCRIBE}",
    "unknown": "see whether the node is ready: kubectl get nodes",
}
# Events of the kubelet and of the scheduler that say why a pod waits.
_TELLING = ("FailedScheduling", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Unhealthy", "Failed")


@dataclass(frozen=True)
class Explanation:
    """What is known of a pod.

    Attributes:
        state: `ready`, `succeeded`, `running`, `pending`, `terminating`, or its own reason, such as `Evicted`,
            `Init:0/2`, `CrashLoopBackOff`.
        why: The reason in the words of who knows it: the scheduler, the kubelet, the container; empty where none does.
        container: The container that it is about; empty where it is about the pod.
        remedy: What to do, with commands that can be pasted; empty where all is well.
    """

    state: str
    why: str
    container: str
    remedy: str


def explain(pod: _Part, events: Sequence[_Part] = ()) -> Explanation:
    """Say what state a pod is in, why, and what to do.

    Args:
        pod: The pod, as `kubectl get pod -o json` gives it.
        events: Events, also of other objects, oldest first; they tell what a pod that still starts waits for.
    """
    pod, events = _without_nulls(pod), _without_nulls(list(events))
    metadata = pod.get("metadata", {})
    state, why, container = _found(pod)
    name = str(metadata.get("name", ""))
    said = [e for e in events if e.get("involvedObject", {}).get("name") == name and e.get("reason") in _TELLING]
    if said and (not why or state == "running") and state not in ("ready", "succeeded"):
        words = " ".join(str(said[-1].get("message", "")).split())
        why = "; ".join(filter(None, (why, f"{said[-1]['reason']}: {words}")))
    remedy = "" if state in ("ready", "succeeded") or (state, why) == ("terminating", "") else _remedy(state, why)
    remedy = remedy if container else remedy.replace(" -c {container}", "").replace("{container}", "the pod")
    place, node = metadata.get("namespace") or "default", pod.get("spec", {}).get("nodeName") or "NODE"
    remedy = remedy.format(pod=name or "POD", namespace=place, container=container, node=node)
    return Explanation(state, why, container, remedy)


def _without_nulls(part: Any) -> Any:
    """Leave out what is null: to the API it is the same as what is not there."""
    if isinstance(part, Mapping):
        return {name: _without_nulls(value) for name, value in part.items() if value is not None}
    return [_without_nulls(value) for value in part if value is not None] if isinstance(part, list) else part


def _remedy(state: str, why: str) -> str:
    if "OOMKilled" in why:
        return _REMEDIES["OOMKilled"]
    if state.startswith("OutOf"):  # OutOfcpu, OutOfmemory, OutOfpods, …
        return _PLACE
    return _REMEDIES.get(state.removeprefix("Init:"), f"the pod's events: {_DESCRIBE}")


def pod_state(pod: _Part) -> str:
    """Say a pod's state in a word: ready, running, what it waits for, or why it failed."""
    return explain(pod).state


def _found(pod: _Part) -> tuple[str, str, str]:
    """Give state, reason and container."""
    metadata, status = pod.get("metadata", {}), pod.get("status", {})
    phase, reason, message = (str(status.get(key) or "") for key in ("phase", "reason", "message"))
    if reason == "NodeLost":
        return "NodeLost", message or "its node does not answer", ""
    if "deletionTimestamp" in metadata:
        return "terminating", _held(metadata), ""
    if reason and phase != "Running":  # Evicted, UnexpectedAdmissionError, DeadlineExceeded, Shutdown, …
        return reason, message or _condition_message(status, "DisruptionTarget"), _first(_blamed(pod))
    if phase == "Succeeded":
        return "succeeded", "", ""
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        gated = scheduled.get("reason") == "SchedulingGated"
        return "SchedulingGated" if gated else "pending", str(scheduled.get("message") or ""), ""
    if found := _init(pod) or _containers(status):
        return found
    if _condition(status, "Ready").get("status") == "True":
        return "ready", "", ""
    if phase == "Running":
        why = _condition_message(status, "ContainersReady") or _condition_message(status, "Ready")
        return "running", why, _first(_unready(pod))
    return phase.lower() or "unknown", message, _first(_blamed(pod))


def _init(pod: _Part) -> tuple[str, str, str] | None:
    """Give what an init container waits for or has failed by, and `Init:1/2` while one runs."""
    status, spec = pod.get("status", {}), pod.get("spec", {})
    parts: Sequence[_Part] = status.get("initContainerStatuses") or ()
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    for done, part in enumerate(parts):
        state = part.get("state", {})
        if state.get("terminated", {}).get("exitCode") == 0 and part["name"] not in sidecars:
            continue
        if part["name"] in sidecars and part.get("started"):
            continue
        if found := _trouble(part):
            return f"Init:{found[0]}", found[1], found[2]
        return f"Init:{done}/{max(len(parts), len(spec.get('initContainers') or ()))}", "", part["name"]
    return None


def _containers(status: _Part) -> tuple[str, str, str] | None:
    """Give the container with a reason of its own, a failed one before one that still starts."""
    parts: Sequence[_Part] = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    if found := next(filter(None, (_trouble(part) for part in parts)), None):
        if found[0] == "Error" and status.get("phase") == "Failed":
            return "failed", found[1], found[2]
        return found
    waiting = [part for part in parts if "waiting" in part.get("state", {})]
    if waiting:
        return waiting[0]["state"]["waiting"].get("reason") or "ContainerCreating", "", waiting[0]["name"]
    return None


def _trouble(part: _Part) -> tuple[str, str, str] | None:
    """Give state, reason and name of a container that waits for more than its start, or that has failed."""
    state, name = part.get("state", {}), str(part.get("name", ""))
    waiting, ended = state.get("waiting", {}), state.get("terminated", {})
    reason = str(waiting.get("reason") or "")
    if "waiting" in state and reason not in _STARTING:
        before = _ended(part.get("lastState", {}).get("terminated", {}))
        why = before if reason == "CrashLoopBackOff" and before else str(waiting.get("message") or "")
        return reason, f"{name}: {why}" if why else "", name
    if ended and ended.get("exitCode") != 0:
        return str(ended.get("reason") or "Error"), f"{name}: {_ended(ended)}", name
    return None


def _ended(part: _Part) -> str:
    """Say how a container ended, in the kubelet's words and the container's own."""
    if not part:
        return ""
    words = " ".join(str(part.get("message") or "").split())[-300:]
    signal = f", signal {part['signal']}" if part.get("signal") else ""
    how = f"{part.get('reason') or 'ended'} (exit code {part.get('exitCode', '?')}{signal})"
    return f"{how}: {words}" if words else how


def _held(metadata: _Part) -> str:
    """Say what keeps a pod from ending, where it should have ended."""
    try:
        due = datetime.fromisoformat(str(metadata["deletionTimestamp"])).timestamp()
    except ValueError:
        return ""
    if time.time() < due + _STUCK_SECONDS:
        return ""
    names = ", ".join(metadata.get("finalizers") or ())
    return f"its finalizers hold it: {names}" if names else "its node does not say that it has ended"


def _blamed(pod: _Part) -> Iterator[str]:
    """Name the containers that did not end well."""
    for part in pod.get("status", {}).get("containerStatuses") or ():
        if part.get("state", {}).get("terminated", {}).get("exitCode") != 0:
            yield part["name"]


def _unready(pod: _Part) -> Iterator[str]:
    status = pod.get("status", {})
    for part in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if not part.get("ready") and "running" in part.get("state", {}):
            yield part["name"]


def _first(names: Iterator[str]) -> str:
    return next(names, "")


def _condition(status: _Part, name: str) -> _Part:
    return next((c for c in status.get("conditions") or () if c.get("type") == name), {})


def _condition_message(status: _Part, name: str) -> str:
    return str(_condition(status, name).get("message") or "")
