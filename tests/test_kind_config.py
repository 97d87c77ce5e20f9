"""Chapter 06: what kind accepts is accepted and what it refuses is refused, as the real kind is asked, too."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kind_cases import ACCEPTED, DOCKER_REFUSES, HEAD, REFUSED

from helpers import kind, kind_config, tools
from helpers.errors import TutorialError
from helpers.target import Target

unit = pytest.mark.unit
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a configuration."""

    def to_file(text: str) -> Path:
        path = tmp_path / "cluster.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@unit
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_kind_accepts_is_accepted_and_all_can_be_asked_of_it(name: str, write: Write) -> None:
    path = write(ACCEPTED[name])
    content = kind.configuration(path)
    assert content["name"] and content["nodes"]
    assert all(node["role"] in ("control-plane", "worker") for node in content["nodes"])
    assert all(row["machine"] > 0 for row in kind.ports(content))
    with Target.open("local") as target:
        cluster = kind.Cluster(target, path)
        assert cluster.fingerprint().startswith("sha256-")
        assert cluster.node_names[0] == f"{cluster.name}-control-plane"
        kind.plan(target, path)


@unit
@pytest.mark.parametrize("name", REFUSED)
def test_what_kind_refuses_is_refused_with_the_place(name: str, write: Write) -> None:
    text, _, place = REFUSED[name]
    with pytest.raises(TutorialError) as error:
        kind.configuration(write(text))
    assert place in error.value.why and "cluster.yaml" in error.value.what and error.value.remedy


@unit
@pytest.mark.parametrize("name", DOCKER_REFUSES)
def test_what_can_never_become_a_cluster_is_refused(name: str, write: Write) -> None:
    text, place = DOCKER_REFUSES[name]
    with pytest.raises(TutorialError) as error:
        kind.configuration(write(text))
    assert error.value.why.startswith(place)


@unit
def test_all_faults_are_named_at_once(write: Write) -> None:
    with pytest.raises(TutorialError) as error:
        kind.configuration(write(f"{HEAD}name: A\nnodes:\n- role: x\n  extraPortMappings:\n  - hostPort: '1'\n"))
    for place in ("nodes[0].extraPortMappings[0].hostPort", "name: ", "nodes[0].role: ", "nodes: must have"):
        assert place in error.value.why
    assert "(line 7)" in error.value.why and "kind takes a number here, and '1' is the text" in error.value.why


@unit
def test_a_configuration_is_what_kind_reads_of_it(write: Write) -> None:
    assert kind.configuration(write(HEAD)) == {
        **yaml.safe_load(HEAD),
        "name": "kind",
        "nodes": [{"role": "control-plane"}],
    }
    content = kind.configuration(write(f"{HEAD}name: 1.10\nnodes:\n- labels: {{a: on, b: 22:22}}\n  extraMounts:\n-\n"))
    assert content["name"] == "1.10" and content["nodes"] == [
        {"labels": {"a": "on", "b": "22:22"}, "role": "control-plane"}
    ]
    content = kind.configuration(write(ACCEPTED["a port in other ways of writing"]))
    assert [row["machine"] for row in kind.ports(content)] == [80, 81]


@unit
def test_ports_that_kind_chooses_are_not_listed(write: Write) -> None:
    for name in ("no hostPort", "hostPort 0 and -1, twice each", "null mappings", "null nodes", "no nodes"):
        assert kind.ports(kind.configuration(write(ACCEPTED[name]))) == []
    three = kind.ports(kind.configuration(write(ACCEPTED["a port for three protocols"])))
    assert three == [{"machine": 53, "node": 53}] * 3
    content = kind.configuration(write(f"{HEAD}nodes: [{{extraPortMappings: [{{hostPort: 53, protocol: UDP}}]}}]"))
    assert kind.ports(content, "TCP") == [], "what listens at TCP is not in the way of UDP"


@unit
def test_nodes_have_the_names_that_kind_gives_them(write: Write) -> None:
    content = kind.configuration(write(ACCEPTED["several control planes"]))
    assert kind_config.node_names(content) == ["kind-control-plane", "kind-worker", "kind-control-plane2"]


@unit
@pytest.mark.parametrize(
    ("second", "collides"),
    [
        ("hostPort: 80", True), ("hostPort: 80, listenAddress: 127.0.0.1", True), ("hostPort: 81", False),
        ("hostPort: 80, protocol: UDP", False), ("hostPort: 0", False),
    ],
)  # fmt: skip
def test_a_port_that_two_nodes_want_is_found_before_docker_does(write: Write, second: str, collides: bool) -> None:
    nodes = f"nodes:\n- extraPortMappings: [{{hostPort: 80}}]\n- extraPortMappings: [{{{second}}}]\n"
    found = kind_config.collisions(kind.configuration(write(HEAD + nodes)))
    assert bool(found) == collides
    assert not found or found[0].startswith("nodes[1].extraPortMappings[0].hostPort")


@unit
def test_a_file_that_is_not_there_or_in_utf_16_is_read_or_refused(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="can't be read"):
        kind.configuration(tmp_path / "gone.yaml")
    path = tmp_path / "wide.yaml"
    path.write_bytes(f"{HEAD}name: wide\n".encode("utf-16"))
    with Target.open("local") as target:
        assert kind.Cluster(target, path).name == "wide", "kind reads it, too"
        assert kind.Cluster(target, path).fingerprint()


ENGINE = """#!/bin/sh
# A Docker that has every image and no cluster, and can make none: kind checks a configuration before it asks for more.
case "$1" in
  -v) echo "Docker version 27.0.0, build 0" ;;
  info) echo '{"CgroupVersion":"2","CgroupDriver":"systemd","MemoryLimit":true,"PidsLimit":true,"CPUShares":true}' ;;
  ps | inspect) ;;
  *) echo "this engine makes nothing" >&2; exit 1 ;;
esac
"""


@pytest.mark.component
@pytest.mark.docker
@pytest.mark.timeout(1800)
def test_the_tables_are_the_verdicts_of_the_real_kind(
    require: Callable[[str], str], write: Write, tmp_path: Path
) -> None:
    require("docker")  # without a way out the lab makes the program
    program = str(tools.find("kind"))
    engine = tmp_path / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)

    def verdict(text: str) -> tuple[bool, str]:
        argv = [program, "create", "cluster", "--config", str(write(text)), "--kubeconfig", str(tmp_path / "none")]
        env = {**os.environ, "PATH": f"{engine.parent}:{os.environ['PATH']}", "KIND_EXPERIMENTAL_PROVIDER": "docker"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        said = done.stdout + done.stderr
        assert done.returncode == 1
        return "Creating cluster" in said, said

    for name, text in ACCEPTED.items():
        accepted, said = verdict(text)
        assert accepted, f"{name}: {said}"
    for name, (text, reason, _) in REFUSED.items():
        accepted, said = verdict(text)
        assert not accepted and reason in said, f"{name}: {said}"
    for name, (text, _) in DOCKER_REFUSES.items():
        assert verdict(text)[0], f"{name}: kind's own check has become stricter; then it belongs into the other table"
