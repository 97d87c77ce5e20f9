"""Chapters 01 to 05 on one machine without a parameter, from nothing to the platform; nothing is left to change."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.settings import ROOT, settings
from helpers.target import Target

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)]


def _tutorial(*words: str) -> dict[str, set[str]]:
    """Run chapters on the VM; give the green checkpoints of each."""
    argv = [sys.executable, "-m", "helpers.cli", "run", *words, "--target", "vm"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=3000, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = re.search(r"report: (\S+)", done.stdout)
    assert report
    print(done.stdout[-1500:])
    return {c["chapter"]: set(c["green"]) for c in json.loads(Path(report[1]).read_text())["chapters"]}


@pytest.mark.first
def test_chapters_01_to_05_provision_the_vm_and_a_second_run_changes_nothing(machine: Target) -> None:
    green = _tutorial("01", "02", "03", "04", "05")
    assert len(green) == 5 and "Two hops work" in green["01_ssh_config"]
    for chapter in ("03_docker_host", "05_oss_platform"):
        assert any("second run changes nothing" in name.lower() for name in green[chapter]), green[chapter]
    assert green["05_oss_platform"] >= {
        "The second run changes nothing", "Nothing but the namespace is new", "Both pods say PASS",
        "Ten pods have a share each", "The eleventh waits", "For want of a share", "The eleventh has the free share",
        "No share is advertised any more",
    }  # fmt: skip

    _tutorial("03", "04")
    executed = [
        nbformat.read(p, as_version=4) for p in sorted((settings().build / "executed" / "vm").glob("0[34]_*.ipynb"))
    ]
    shown = [text for book in executed for text in _texts(book)]
    assert any("no changes" in text for text in shown)
    assert not [text for text in shown if re.search(r" {2,}(would change|changed)$", text, re.MULTILINE)]


def _texts(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.get("data", {}).get("text/plain", "") for output in outputs]
