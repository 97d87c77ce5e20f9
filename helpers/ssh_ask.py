"""What OpenSSH makes of a configuration (`ssh -G`), and what of the reader's own settings counts beside ours."""

import re
from collections.abc import Mapping
from pathlib import Path

from helpers import openssh
from helpers.errors import Overtime, TutorialError
from helpers.target import failed
from helpers.target_local import run_here

NO_HOST = "tutorial-no-such-host"  # what holds for it holds for any host
Answers = dict[str, list[str]]
_SECONDS = 10.0  # for each question to ssh; it runs the commands of `Match exec`


def ask(config: Path, alias: str) -> Answers:
    """Ask OpenSSH what it makes of an alias: keyword in small letters → its values, in their order."""
    argv = ["ssh", "-G", "-F", str(config), alias]
    try:
        done = run_here(argv, check=False, timeout=_SECONDS)
    except Overtime as error:
        raise TutorialError(
            "OpenSSH does not get through the configuration",
            f"a command in it, such as that of `Match exec`, takes too long: {error.why}",
            "make that command quick, or remove it",
            command=argv,
        ) from None
    if done.returncode in (126, 127):
        raise failed("local", done)
    if done.returncode != 0:
        is_old = "bad configuration option: include" in done.stderr.lower()
        raise TutorialError(
            "OpenSSH does not understand the configuration",
            "it is older than version 7.3, which brought Include" if is_old else "a line is wrong",
            "install a newer OpenSSH client" if is_old else "correct the line that it names",
            command=argv,
            output=done.stderr,
        )
    return openssh.read_answers(done.stdout)


def notes_on(
    alias: str, own: Answers, answers: Answers, ours: Answers, general: Mapping[str, list[str]], before: bytes
) -> list[str]:
    """Say what of a Host that the reader has under the same name stays in force, and what no longer is.

    Args:
        alias: The name.
        own: What ssh makes of the name without our file.
        answers: What it makes of it with our file.
        ours: What it makes of it with our file alone.
        general: What it makes of any other name without our file.
        before: The reader's file, for the spelling of its keywords.
    """
    special = {
        (keyword, value)
        for keyword, values in own.items()
        for value in values
        if re.sub(re.escape(alias), NO_HOST, value, flags=re.IGNORECASE) not in general.get(keyword, [])
    }
    stays = [(k, v) for k, v in special if v in answers.get(k, []) and v not in ours.get(k, [])]
    # The reader's ControlPath often holds the host's name, user or hash (%C): it stays, and reads differently.
    goes = [(k, v) for k, v in special if v not in answers.get(k, []) and not (k == "controlpath" and k in answers)]
    if not stays and not goes:
        return []
    spelled = {w.decode().lower(): w.decode() for w in re.findall(rb"(?m)^\s*([A-Za-z0-9]+)", before)}
    rows = [f"Your own configuration has settings for {alias}. ssh takes the first value: the tutorial's."]
    for label, settings in (("stays in force", stays), ("no longer in force", goes)):
        if settings:
            rows.append(f"  {label}: " + "; ".join(sorted(f"{spelled.get(k, k)} {v}" for k, v in settings)))
    return rows
