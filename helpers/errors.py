"""The one class of error that a reader meets, and the masking of secrets in what it shows."""

import os
import re
from collections.abc import Sequence
from shlex import join

_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|PRIVATE_KEY|API_KEY)$", re.IGNORECASE)
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "***"),
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), "***:***"),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"), r"\1***"),
    (
        re.compile(r"(?i)((?:password|passwd|token|secret|api[-_]?key)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;}&\\]+"),
        r"\1***",
    ),
)
_LAST_LINES = 12


def mask(text: str) -> str:
    """Replace secrets in a text by `***`.

    Secrets are: the values of environment variables whose names end in PASSWORD, TOKEN, SECRET or KEY, private keys,
    credentials in addresses, authorisation headers, and `password=…` and the like.

    Args:
        text: Any text that is about to be shown, logged or stored.

    Returns:
        The same text without the secrets.
    """
    for name, value in os.environ.items():
        if len(value) >= 4 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class TutorialError(Exception):
    """What failed, why, and what to do next; shown without a stack trace.

    Args:
        what: What failed, in one sentence.
        why: The cause as far as it is known.
        remedy: What the reader can do now.
        target: The name of the target that it failed on.
        command: The command that failed, as its list of arguments.
        output: What that command printed; the last lines are shown, secrets masked.
    """

    def __init__(
        self,
        what: str,
        why: str = "",
        remedy: str = "",
        *,
        target: str = "",
        command: Sequence[str] = (),
        output: str = "",
    ) -> None:
        self.what, self.why, self.remedy = mask(what), mask(why), mask(remedy)
        self.target, self.command = target, mask(join(command))
        self.output = "\n".join(mask(output).strip().splitlines()[-_LAST_LINES:])
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f" (target {self.target})" if self.target else ""
        lines = [f"{self.what}{where}"]
        if self.why:
            lines.append(f"  why:     {self.why}")
        if self.command:
            lines.append(f"  command: {self.command}")
        if self.output:
            lines += ["  it said: " + self.output.replace("\n", "\n           ")]
        if self.remedy:
            lines.append(f"  remedy:  {self.remedy}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """Give IPython the message in place of a stack trace (IPython's hook for exceptions that render themselves)."""
        return str(self).splitlines()


class Overtime(TutorialError):
    """A command took longer than it may, and was ended."""


class Unreachable(TutorialError):
    """The machine could not be connected to; nothing was done on it."""
