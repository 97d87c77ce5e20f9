"""What a reader meets when something fails: one message, no stack trace, no secret."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.errors import TutorialError, mask

pytestmark = pytest.mark.unit


def test_the_message_says_what_where_why_how_and_what_next() -> None:
    error = TutorialError(
        "kind failed", "exit code 1", "start Docker", target="vm", command=["kind", "create cluster"], output="no\nyes"
    )

    assert str(error).splitlines() == [
        "kind failed (target vm)",
        "  why:     exit code 1",
        "  command: kind 'create cluster'",
        "  it said: no",
        "           yes",
        "  remedy:  start Docker",
    ]


def test_only_the_last_lines_of_an_output_are_shown() -> None:
    error = TutorialError("It failed", output="\n".join(f"line {i}" for i in range(100)))

    assert "line 99" in str(error) and "line 87" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hunter2@127.0.0.1:6379/0",
        "https://reader:hunter2@example.org/x",
        "Authorization: Bearer hunter2hunter2",
        "authorization: basic aHVudGVyMjpodW50ZXIy",
        "FLOWER_PASSWORD=hunter2",
        '{"pre-auth-token": "hunter2"}',
        "api_key: hunter2",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2 and the rest is cut off",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    shown = str(TutorialError(text, text, text, command=[text], output=text))

    assert "hunter2" not in shown and "aHVudGVy" not in shown and "***" in shown


def test_values_of_secret_variables_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_PASSWORD", "correct horse")

    assert mask("it is correct horse, you see") == "it is ***, you see"


@pytest.mark.parametrize("text", ["the password is asked for", "secrets are masked", "http://127.0.0.1:7600/docs"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text


def test_a_notebook_shows_the_message_in_place_of_a_stack_trace(tmp_path: Path) -> None:
    script = tmp_path / "cell.ipy"
    script.write_text(
        "from helpers import TutorialError\nraise TutorialError('Redis is away', 'refused', 'start Redis')\n"
    )
    done = subprocess.run([sys.executable, "-m", "IPython", str(script)], capture_output=True, text=True, timeout=60)

    shown = done.stdout + done.stderr
    assert "Redis is away" in shown and "remedy:  start Redis" in shown
    assert "Traceback" not in shown and "cell.ipy" not in shown
