"""The one class of error that a reader meets. Secrets in what it shows are masked."""

from collections.abc import Sequence
from shlex import join

from helpers.masking import mask as mask

_LAST_LINES = 12


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
