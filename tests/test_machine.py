"""Chapters 02 to 05 on one machine, from nothing to the platform; then nothing is left to change."""

import subprocess
import sys

import pytest

from helpers.settings import ROOT
from helpers.target import Target

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(3600)]


def _tutorial(*words: str) -> str:
    argv = [sys.executable, "-m", "helpers.cli", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=3000, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.first
def test_chapters_02_to_05_provision_the_vm(machine: Target) -> None:
    said = _tutorial("run", "02", "03", "04", "05", "--target", "vm")
    assert said.count("passed") >= 4
