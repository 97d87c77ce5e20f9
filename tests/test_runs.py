"""Runs of chapters: one that fails costs no other its run, and never the last good page."""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from helpers import chapters, runner
from helpers.executed import Shelf, executed_folder
from helpers.settings import ROOT, settings

unit, component = pytest.mark.unit, pytest.mark.component
Write = Callable[..., None]


@pytest.fixture
def write(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Give a function that writes a chapter with one cell."""
    folder = sandbox / "notebooks"
    folder.mkdir()
    monkeypatch.setenv("TUTORIAL_NOTEBOOKS", str(folder))
    settings.cache_clear()

    def chapter(name: str, source: str = "print('good')", **meta: object) -> None:
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata["tutorial"] = {"title": name, "minutes": 1, "reads": [], "after": [], **meta}
        parameters = nbformat.v4.new_code_cell('target = "local"', metadata={"tags": ["parameters"]})
        notebook.cells = [nbformat.v4.new_markdown_cell(f"# {name}"), parameters, nbformat.v4.new_code_cell(source)]
        nbformat.write(notebook, folder / f"{name}.ipynb")

    return chapter


def _schedule(target: str, red: set[str]) -> tuple[dict[str, str], list[str]]:
    """Run the real schedule without notebooks: the chapters in `red` fail. Return the states, and the order."""
    chosen, order = chapters.select(), list[str]()
    outcomes = {c.name: runner.Outcome(c.name) for c in chosen}

    def execute(chapter: chapters.Chapter) -> None:
        order.append(chapter.name)
        outcomes[chapter.name].state = "failed" if chapter.name in red else "passed"

    runner._schedule(chosen, target, outcomes, execute, lambda outcomes: None)
    return {name: o.state for name, o in outcomes.items()}, order


@unit
def test_on_local_a_red_chapter_skips_nobody_and_the_order_stays(write: Write) -> None:
    write("01_a")
    write("02_b", after=["01_a"])
    write("03_c", after=["02_b"])

    states, order = _schedule("local", {"01_a", "02_b"})

    assert states == {"01_a": "failed", "02_b": "failed", "03_c": "passed"}
    assert order == ["01_a", "02_b", "03_c"], "they may want the same ports"


@unit
def test_elsewhere_only_those_that_need_the_red_chapter_are_skipped(write: Write) -> None:
    write("01_a")
    write("02_b", waits=["01_a"])
    write("03_c", after=["01_a"], waits=["02_b"])
    write("04_d", after=["03_c"])

    states, order = _schedule("cpouta", {"01_a"})

    assert states == {"01_a": "failed", "02_b": "passed", "03_c": "skipped", "04_d": "skipped"}
    assert order == ["01_a", "02_b"]


@unit
def test_chapters_of_one_machine_keep_their_order_though_one_between_them_is_left_out(write: Write) -> None:
    write("01_a")
    write("02_b", waits=["01_a"])
    write("03_c", waits=["02_b"])
    write("04_d")

    waits = chapters.earlier(chapters.select(["1", "3", "4"]))

    assert waits == {"01_a": set(), "03_c": {"01_a"}, "04_d": set()}


@unit
@pytest.mark.parametrize("red", [c.name for c in chapters.chapters()])
def test_in_the_course_a_red_chapter_skips_its_real_dependants(red: str, sandbox: Path) -> None:
    states, _ = _schedule("vm", {red})

    dependants = {
        "03_docker_host": "04 05 06 07 09 10",  # they need Docker
        "06_kind": "07 09 10",  # they need the cluster
        "09_yaml_deployment": "10",  # it needs the Forwarder in the cluster
    }
    skipped = [name[:2] for name, state in states.items() if state == "skipped"]
    assert skipped == dependants.get(red, "").split()


@unit
def test_an_error_of_the_run_itself_counts_for_its_chapter_only(write: Write) -> None:
    write("01_a")
    write("02_b")
    chosen = chapters.select()
    outcomes = {c.name: runner.Outcome(c.name) for c in chosen}

    def execute(chapter: chapters.Chapter) -> None:
        if chapter.name == "01_a":
            raise OSError(28, "No space left on device")
        outcomes[chapter.name].state = "passed"

    runner._schedule(chosen, "local", outcomes, execute, lambda outcomes: None)

    assert outcomes["01_a"].state == "failed" and "No space left on device" in outcomes["01_a"].why
    assert outcomes["02_b"].good


@unit
@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("warning: x\nTutorialError: no Redis\n  why:     it ended\n  remedy:  look\n", "TutorialError: no Redis"),
        ("a\nValueError: 2 is required\n\n", "ValueError: 2 is required"),
        ("  only this\n", "  only this"),
        ("", "it ended without a message"),
    ],
)
def test_the_reason_is_the_whole_last_error(tmp_path: Path, log: str, why: str) -> None:
    (tmp_path / "log").write_text(log)
    reason = runner._last_error(tmp_path / "log")

    assert reason.startswith(why) and ("remedy:  look" in reason) == ("TutorialError" in log)


@unit
def test_what_a_program_writes_among_the_progress_lines_is_passed_over() -> None:
    outcome = runner.Outcome("01_a")
    for line in ("[1, 4]\n", "a library greets\n", "[2]\n", "{}\n", '["x", 4]\n', "\n", "7\n"):
        runner._read_progress(line, outcome)

    assert (outcome.cell, outcome.cells) == (1, 4)


@component
def test_a_red_run_keeps_the_last_good_copy_and_says_when_and_why(write: Write) -> None:
    shelf = Shelf(executed_folder("local"), "01_a")
    write("01_a", "print('good')")
    assert runner.run(chapters.select()).good
    good, date = shelf.copy.read_bytes(), shelf.date()
    write("01_a", "from helpers import check\ncheck('One is two', False, remedy='password=hunter2')")

    assert not runner.run(chapters.select(), reuse=True).good
    assert shelf.copy.read_bytes() == good and shelf.date() == date
    failure = shelf.failure()
    assert failure and failure.red == "One is two" and failure.when > date[:19]

    write("01_a", "print('good')")
    again = runner.run(chapters.select(), reuse=True)
    assert again.outcomes[0].state == "passed", "what failed last is never taken as unchanged"
    assert shelf.failure() is None
    assert runner.run(chapters.select(), reuse=True).outcomes[0].state == "same"


@component
@pytest.mark.parametrize("source", ["import os; os._exit(9)", "1 / 0"], ids=["the kernel dies", "a cell fails"])
def test_a_chapter_that_never_ran_well_has_a_reason_and_no_copy(write: Write, source: str) -> None:
    write("01_a", source)
    write("02_b", after=["01_a"])

    states = [o.state for o in runner.run(chapters.select()).outcomes]

    assert states == ["failed", "passed"]
    shelf = Shelf(executed_folder("local"), "01_a")
    failure = shelf.failure()
    assert failure and failure.why and not shelf.copy.exists()


@unit
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"fingerprint": "f"}', '{"fingerprint": "f", "outcome": 3}'])
def test_a_damaged_record_means_that_the_chapter_runs_again(tmp_path: Path, damage: str) -> None:
    shelf = Shelf(tmp_path, "01_a")
    executed = tmp_path / "run.ipynb"
    executed.write_text(json.dumps({"cells": [{}], "metadata": {}}))
    shelf.keep(executed, "f", {"chapter": "01_a"})
    assert shelf.unchanged("f") == {"chapter": "01_a"}

    (tmp_path / "01_a.json").write_text(damage)

    assert shelf.unchanged("f") is None


@unit
@pytest.mark.parametrize(
    "text",
    [None, "", "{", '{"cells": [{}], "metadata": {"papermill": {"exception": true}}}'],
    ids=["missing", "empty", "torn", "of a failed run"],
)
def test_a_copy_that_is_not_good_is_not_reused(tmp_path: Path, text: str | None) -> None:
    shelf = Shelf(tmp_path, "01_a")
    (tmp_path / "01_a.json").write_text(json.dumps({"fingerprint": "f", "outcome": {"chapter": "01_a"}}))
    if text is not None:
        shelf.copy.write_text(text)

    assert not shelf.has_good_copy() and shelf.unchanged("f") is None


@unit
def test_a_crash_while_a_copy_is_kept_leaves_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, new = Shelf(tmp_path / "kept", "01_a"), tmp_path / "new.ipynb"
    for text in ("old", "new"):
        new.write_text(json.dumps({"cells": [{"source": text}], "metadata": {}}))
        if text == "old":
            shelf.keep(new, "f", {})

    def crash(source: object, destination: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.processes.os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        shelf.keep(new, "g", {})

    assert "old" in shelf.copy.read_text() and shelf.has_good_copy()
    assert [p.name for p in shelf.folder.iterdir()] == ["01_a.ipynb"]


@unit
def test_the_chapters_of_the_course_name_chapters_that_exist() -> None:
    names = {c.name for c in chapters.chapters()}
    for chapter in chapters.chapters():
        assert {*chapter.after, *chapter.waits} <= names, chapter.name
        assert all((ROOT / path).exists() for path in chapter.reads), chapter.name
