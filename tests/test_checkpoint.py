"""Checkpoints: green goes on, red stops with the remedy; the runner can read both."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import TutorialError, check
from helpers.settings import settings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def text(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUTORIAL_DISPLAY", "text")
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_green_shows_a_row_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    check("Two is two", lambda: 2 == 2, remedy="count again")

    assert capsys.readouterr().out == "✔ Two is two\n"


def test_red_shows_the_remedy_and_stops(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TutorialError, match="Checkpoint: Docker answers"):
        check("Docker answers", False, remedy="start Docker")

    assert capsys.readouterr().out == "✘ Docker answers\n  remedy: start Docker\n"


def test_an_exception_is_a_no_and_its_message_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TutorialError, match="refused"):
        check("Redis answers", lambda: (_ for _ in ()).throw(ConnectionError("refused")), remedy="start it")

    assert "refused" in capsys.readouterr().out


def test_it_goes_on_asking_until_yes() -> None:
    answers = iter([False, ConnectionError(), True])

    def ask() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    check("It becomes ready", ask, remedy="wait", timeout=5, interval=0.01)
    assert next(answers, "asked thrice") == "asked thrice"


def test_it_gives_up_after_the_time_out() -> None:
    with pytest.raises(TutorialError, match="0.05 s"):
        check("Never", lambda: False, remedy="wait", timeout=0.05, interval=0.01)


def test_a_keyboard_interrupt_is_not_a_no() -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("Never mind", interrupted, remedy="none", timeout=5)


def test_the_runner_can_read_what_was_red_and_what_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints.jsonl"
    monkeypatch.setenv("TUTORIAL_CHECKPOINTS", str(path))
    settings.cache_clear()
    check("One", True, remedy="")
    with pytest.raises(TutorialError):
        check("Two", False, remedy="none")

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["name"], r["passed"]) for r in rows] == [("One", True), ("Two", False)]
