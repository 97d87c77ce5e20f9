"""What helpers show: plain text that never varies, HTML that is escaped, secrets masked in both."""

from collections.abc import Iterator

import pytest

from helpers import display
from helpers.settings import settings

pytestmark = pytest.mark.unit


@pytest.fixture(params=["text", "html", "live"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TUTORIAL_DISPLAY", request.param)
    settings.cache_clear()
    yield request.param
    settings.cache_clear()


def test_a_table_has_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    display.table([{"name": "redis", "state": "ready"}, {"name": "worker"}], title="Processes")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "Processes"
    assert [line.split() for line in lines[1:] if line.split()][0] == ["name", "state"]
    assert lines[-2].split() == ["redis", "ready"] and lines[-1].split() == ["worker"]


def test_an_empty_table_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    display.table([])

    assert capsys.readouterr().out.strip() == ""


def test_what_a_program_said_is_not_markup() -> None:
    rows = [{"said": "[red]<script>alert(1)</script>[/red]"}]

    assert "<script>" not in display._table_html(rows, ["said"], "<b>")
    assert "[red]" in display._table_text(rows, ["said"], "")


def test_states_are_coloured() -> None:
    html = display._table_html([{"a": "ready", "b": "FAILED", "c": "other"}], ["a", "b", "c"], "")

    assert '<td class="t-good">ready</td><td class="t-bad">FAILED</td><td>other</td>' in html


def test_the_front_end_gets_html_and_nbval_does_not(form: str) -> None:
    bundle = display._Shown("password=hunter2", "<b>password=hunter2</b>")._repr_mimebundle_()

    assert set(bundle) == ({"text/plain"} if form == "text" else {"text/plain", "text/html"})
    assert "hunter2" not in str(bundle)


def test_a_plan_says_that_it_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    display.plan("install Docker", [["apt-get", "install", "docker ce"], "content\nof a file"], "no root here")

    assert capsys.readouterr().out.splitlines() == [
        "Plan: install Docker",
        "  $ apt-get install 'docker ce'",
        "  content",
        "  of a file",
        "  not run: no root here",
    ]


def test_progress_shows_its_end_without_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with display.progress("Starting", 3, "processes") as report:
        report(1, "redis")

    assert capsys.readouterr().out == "Starting: done\n"


def test_progress_of_what_failed_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), display.progress("Starting"):
        raise ValueError

    assert "done" not in capsys.readouterr().out


def test_a_live_table_shows_the_last_state_headless(capsys: pytest.CaptureFixture[str]) -> None:
    states = iter(["starting", "ready"])
    state = next(states)
    with display.live_table(lambda: [{"state": state}]) as draw:
        draw()
        state = next(states)
        draw()

    shown = capsys.readouterr().out
    assert "ready" in shown and "starting" not in shown


def test_a_figure_is_svg_with_a_text_for_who_cannot_see_it(capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    display.figure(figure, "Requests grow")

    assert capsys.readouterr().out == "Requests grow\n"
