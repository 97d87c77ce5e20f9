"""The notebooks as integration tests: papermill runs each, nbval compares what git keeps. Negative controls first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from recording_proxy import recording_proxy

from helpers import airflow_local, chapters, notebook_outputs, processes, runner
from helpers.errors import TutorialError
from helpers.settings import ROOT, settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
CONTROLS = ROOT / "tests" / "controls"
SERVED_HERE = ("07_helm", "08_forwarder_local", "09_yaml_deployment", "10_airflow")  # with servers on loopback


def _nbval(*paths: Path, state: Path) -> "subprocess.CompletedProcess[str]":
    """Run nbval by itself, as people write it in CI."""
    argv = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", *map(str, paths)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    environment["TUTORIAL_STATE"] = str(state)
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100)


@pytest.fixture
def controls(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTORIAL_NOTEBOOKS", str(CONTROLS))
    settings.cache_clear()
    return sandbox


def test_control_a_false_checkpoint_turns_the_run_red(controls: Path) -> None:
    argv = [sys.executable, "-m", "helpers.cli", "run", "01", "03"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)

    assert done.returncode == 1
    assert "One is two" in done.stdout and "01_false_checkpoint: failed" in done.stdout
    assert "03_true: passed" in done.stdout, "a chapter that fails must not hide the others"
    (report,) = (settings().build / "runs").glob("*/report.json")
    red, green = json.loads(report.read_text())["chapters"]
    assert (red["state"], red["red"], red["green"]) == ("failed", "One is two", ["One is one"])
    assert green["state"] == "passed"

    bundle = Path(red["bundle"])
    assert str(bundle) in done.stdout
    executed = nbformat.read(bundle / "01_false_checkpoint.ipynb", as_version=4)
    assert not any(c.outputs for c in executed.cells if c.id == "never")
    assert json.loads((bundle / "processes.json").read_text())[0]["name"] == "sleeper"
    assert {p.name for p in bundle.iterdir()} >= {"logs", "versions.txt", "environment.txt"}
    everything = "".join(p.read_text(errors="replace") for p in bundle.rglob("*") if p.is_file())
    assert "hunter2-of" not in everything and "password=***" in everything, "secrets are masked"

    pid = json.loads((bundle / "processes.json").read_text())[0]["pid"]
    assert not psutil.pid_exists(pid), "what the notebook started is ended, whatever its kernel did"
    assert processes.running() == []


def test_control_a_changed_output_turns_nbval_red(tmp_path: Path) -> None:
    changed = _nbval(CONTROLS / "02_changed_output.ipynb", state=tmp_path)
    same = _nbval(CONTROLS / "03_true.ipynb", state=tmp_path)

    assert changed.returncode == 1 and "what is printed today" in changed.stdout
    assert same.returncode == 0, same.stdout


def test_control_an_unknown_parameter_is_an_error_and_nothing_runs(controls: Path) -> None:
    with pytest.raises(TutorialError, match="sceonds") as caught:
        runner.run(chapters.select(["03"]), "local", {"sceonds": 1})

    assert "seconds" in caught.value.remedy
    assert not (settings().build / "runs").exists()


def test_control_a_notebook_that_hangs_is_ended(controls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_NOTEBOOK_TIMEOUT", "12")
    settings.cache_clear()
    before = {p.pid for p in psutil.Process().children(recursive=True)}

    result = runner.run(chapters.select(["03"]), "local", {"seconds": 120})

    assert not result.good
    assert "12 s" in result.outcomes[0].why
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_an_unchanged_chapter_is_not_run_again_and_a_changed_one_is(controls: Path) -> None:
    chosen = chapters.select(["03"])
    states = [runner.run(chosen, reuse=True).outcomes[0].state for _ in range(2)]
    other = runner.run(chosen, "local", {"seconds": 1}, reuse=True).outcomes[0].state

    assert states == ["passed", "same"]
    assert other == "passed"


@pytest.mark.parametrize("chapter", chapters.chapters(), ids=lambda c: c.name)
def test_papermill_runs_the_chapter(chapter: chapters.Chapter, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recording_proxy() as proxy:
        if chapter.name in SERVED_HERE:
            airflow_local.install()  # packages come from outside, through whatever proxy this machine has
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            for name, url in proxy.environment.items():
                monkeypatch.setenv(name, url)
        result = runner.run([chapter])

    outcome = result.outcomes[0]
    assert result.good, f"{outcome.red or 'a cell failed'}: {outcome.why}\nsee {outcome.bundle}"
    assert outcome.green, "a chapter has checkpoints"
    assert proxy.seen == [], "a request to this machine takes no proxy"
    assert processes.running() == []


def test_the_committed_outputs_are_true(tmp_path: Path) -> None:
    done = _nbval(ROOT / "notebooks", state=tmp_path)

    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.parametrize("chapter", chapters.chapters(), ids=lambda c: c.name)
def test_the_frame_is_the_same_in_every_chapter(chapter: chapters.Chapter) -> None:
    notebook = nbformat.read(chapter.path, as_version=4)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    code = [c for c in notebook.cells if c.cell_type == "code"]

    assert headings[0].startswith("# ") and sum(h.startswith("# ") for h in headings) == 1
    frame = ["## What you will have", "## Before you start", "## Summary", "## Undo", "## What's next", "## Resources"]
    assert [h for h in headings if h in frame] == frame
    parameters = [c for c in code if "parameters" in c.metadata.get("tags", ())]
    assert len(parameters) == 1 and parameters[0].source.startswith('target = "local"')
    for cell in code:
        assert len(cell.source.splitlines()) <= 14 and "def " not in cell.source, cell.id
    assert any(c.outputs for c in code), "text outputs of a local run are kept"


def test_the_policy_strips_what_differs_from_run_to_run(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(metadata={"papermill": {"start_time": "now"}})
    image = nbformat.v4.new_output("display_data", {"text/plain": "a plot", "image/png": "aGk=", "text/html": "<p>"})
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    notebook.cells = [
        nbformat.v4.new_code_cell("1", id="a", outputs=[image], execution_count=3, metadata={"execution": {"t": "1"}}),
        nbformat.v4.new_code_cell("2", id="b", outputs=[image], metadata={"tags": [notebook_outputs.VARIES]}),
    ]
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook, path)

    assert notebook_outputs.main([str(path)]) == 1
    assert notebook_outputs.main([str(path)]) == 0
    stripped = nbformat.read(path, as_version=4)
    assert stripped.cells[0].outputs[0].data == {"text/plain": "a plot"}
    assert stripped.cells[0].execution_count is None and stripped.cells[1].outputs == []
    assert "papermill" not in stripped.metadata

    notebook.cells[0].outputs = [error]
    with pytest.raises(TutorialError, match="failed cell"):
        notebook_outputs.strip(notebook)
