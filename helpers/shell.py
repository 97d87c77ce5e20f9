"""Small shell scripts: one way to ask a machine for values, and one reader of their `name=value` lines."""

import re
from collections.abc import Iterable, Mapping
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.target import Target

ANSWER_SECONDS = 10.0  # for each command of a query; a program that hangs is not asked a second time
_NEWLINE = "\x1e"  # stands for the line ends within a value, so that each value is one line
# Where there is no program `timeout` (macOS), the script ends a command and all that it started by itself.
_QUERY = """LC_ALL=C; LANGUAGE=; export LC_ALL LANGUAGE; hung=
end() {
  kill -STOP "$1"
  for child in $(ps -A -o ppid= -o pid= | awk -v of="$1" '$1 == of {print $2}'); do end "$child"; done
  kill -9 "$1"
}
watched() {
  "$@" & command=$!
  (trap 'kill $pause; exit' TERM; sleep "$limit" & pause=$!; wait $pause; end $command) >/dev/null 2>&1 & watch=$!
  wait $command; status=$?
  kill $watch 2>/dev/null; return $status
}
if command -v timeout >/dev/null; then watched() { timeout -k 1 "$limit" "$@"; }; fi
ask() {
  case " $hung " in *" $2 "*) return ;; esac
  value=$(watched sh -c "$3" 2>/dev/null </dev/null); status=$?
  case $status in 124|137) hung="$hung $2" ;; esac
  [ $status -eq 0 ] && printf '%s=%s\\n' "$1" "$(printf %s "$value" | tr '\\n' '\\036')"
}
"""


def read_facts(text: str, names: Iterable[str]) -> dict[str, str | None]:
    """Read the `name=value` lines that a script printed.

    Args:
        text: What the script printed. Lines of other names, and lines without `=`, do not count: a login shell may
            greet first.
        names: The names that are expected.

    Returns:
        Exactly these names. A value that is missing or empty is None. Where a name occurs twice, the last line counts.
    """
    found: dict[str, str | None] = dict.fromkeys(names)
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and name in found:
            found[name] = value.replace(_NEWLINE, "\n").strip() or None
    return found


def query_script(questions: Mapping[str, str]) -> str:
    """Write the script of `query`; see there."""
    asked = (f"ask {quote(name)} {quote(_program(command))} {quote(command)}" for name, command in questions.items())
    return "\n".join([f"limit={ANSWER_SECONDS:g}", _QUERY, *asked])


def _program(command: str) -> str:
    """Give the program that a command begins with, `sudo` and its options left out."""
    return next((w for w in re.split(r"[\s|;&]+", command) if w not in ("", "sudo", "-n") and "=" not in w), "")


def query(target: "Target", questions: Mapping[str, str], path: Iterable[str] = ()) -> dict[str, str | None]:
    """Ask a machine for values, each by a short shell command; what fails is None, and disturbs no other value.

    Args:
        target: The machine.
        questions: A command of `/bin/sh` for each name. It is ended after `ANSWER_SECONDS`. A program that had to be
            ended is not asked again. Messages are in English (`LC_ALL=C`), whatever the machine's language.
        path: Folders of the machine that are searched for programs before those of its `PATH`.

    Returns:
        What each command printed, without surrounding white space. It is None where the command failed (exit code
        other than 0), printed nothing, or took too long.

    Raises:
        TutorialError: The machine can't be reached.

    Example:
        >>> query(target, {"kernel": "uname -r", "engine": "docker version -f '{{.Server.Version}}'"})
        {'kernel': '6.1.0-18-amd64', 'engine': None}
    """
    limit = (ANSWER_SECONDS + 2.0) * len(questions) + 20
    script = "\n".join([*(f"PATH={quote(p)}:$PATH" for p in path), query_script(questions), "exit 0", ""])
    done = target.run(["/bin/sh"], input=script, timeout=limit, check=False, repeatable=True)
    return read_facts(done.stdout, questions)
