"""A script that asks questions, run on a target in a terminal (pexpect): answers are data, and it never hangs."""

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from subprocess import TimeoutExpired

import pexpect

from helpers.errors import TutorialError, mask
from helpers.shell import environment
from helpers.signals import let_children_hear
from helpers.target import Target
from helpers.target_ssh import MARK

_READ_SECONDS = 0.3  # output that stands still for so long is looked at
_TRIES = 3  # a question that is asked more often does not take its answer
_INTERRUPT_SECONDS = 30.0  # a script may clean up for so long after Ctrl-C
_TERM_SECONDS = 10  # and for so long after SIGTERM
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|\x07")
_PROMPT = re.compile(r"[:?>\])]\s*$")
# A question that ends its line: `echo "Go on? (y/n)"; read answer`.
_CHOICES = re.compile(r"[(\[]\s*[A-Za-z]+(\s*/\s*[A-Za-z]+)+\s*[)\]]\s*[:?]?$")
_SSH_FAILED = 255
# Whatever carries the mark is asked to end, and killed when that takes long. Without /proc the terminal's end must do.
_END = """marked() { for e in /proc/[0-9]*/environ; do
  if grep -qzxF "$0" "$e" 2>/dev/null; then p=${e#/proc/}; echo "${p%/environ}"; fi; done; }
found=$(marked); i=0; if [ -n "$found" ]; then kill $found 2>/dev/null; fi
while [ -n "$(marked)" ] && [ $i -lt "$1" ]; do sleep 1; i=$((i+1)); done
i=0
while found=$(marked); [ -n "$found" ] && [ $i -lt 20 ]; do kill -9 $found 2>/dev/null; sleep 0.2; i=$((i+1)); done
true"""


def converse(
    target: Target,
    argv: Sequence[str],
    answers: Mapping[str, str],
    *,
    folder: str = ".",
    path: Sequence[str] = (),
    timeout: float = 1800.0,
    quiet: float = 10.0,
    watch: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Run a script in a terminal and answer its questions.

    A prompt is output without a line's end that stands still: at once where it has the words of a known question, after
    `quiet` seconds elsewhere. The question may also stand in the lines since the last answer, as above a menu. A whole
    line is a prompt after `quiet` seconds where it ends in choices such as (y/n), or has the words of a known question.

    Args:
        target: Where to run it.
        argv: The script.
        answers: The answer to each question, by words of the question; upper and lower case are the same.
        folder: The folder there to run it in; a relative one starts at the home folder.
        path: Folders there in which programs are looked for first.
        timeout: Seconds that it may take in all.
        quiet: Seconds after which output that stands still is a prompt.
        watch: Called with each line that it prints, secrets masked.

    Returns:
        The lines that it printed.

    Raises:
        TutorialError: It asked something else, failed, or took too long; nothing of it runs on the target then.
    """
    mark = f"{MARK}={uuid.uuid4().hex}"
    where = f"cd {quote(folder)} && PATH={quote(':'.join([*path, '']))}$PATH"
    words = ["env", mark, "TERM=dumb", "sh", "-c", f'{where} && exec "$@"', "sh", *argv]
    talk = _Talk(target, argv, answers, quiet, watch)
    first, *others = target.terminal(words)
    child = pexpect.spawn(
        first,
        others,
        encoding="utf-8",
        codec_errors="replace",
        dimensions=(50, 160),
        cwd=str(Path.home()),
        env=environment(first),
        preexec_fn=let_children_hear(),
    )
    try:
        talk.listen(child, timeout)
        child.close()
    except BaseException:
        _end(target, child, mark)
        raise
    code = child.exitstatus if child.exitstatus is not None else 128 + int(child.signalstatus or 0)
    if code == _SSH_FAILED:  # of the script, or the connection broke: then it may run still
        _end(target, child, mark)
    if code != 0:
        why = f"exit code {code}" + (", or the connection was lost" if code == _SSH_FAILED else "")
        raise talk.error(f"{argv[0]} failed", why, "read its last lines, mend the cause, and run the cell again")
    return talk.lines


class _Talk:
    """What was said so far, and what it means."""

    def __init__(
        self,
        target: Target,
        argv: Sequence[str],
        answers: Mapping[str, str],
        quiet: float,
        watch: Callable[[str], None],
    ) -> None:
        self.target, self.argv, self.quiet, self.watch = target, argv, quiet, watch
        self.answers = {question_words(question): answer for question, answer in answers.items()}
        self.lines: list[str] = []
        self._pending, self._answered, self._reply = "", "", ""
        self._since = 0  # the first line after the last answer
        self._asked: dict[re.Pattern[str], int] = {}

    def listen(self, child: "pexpect.spawn[str]", timeout: float) -> None:
        """Read until the end, answering what is asked."""
        deadline, changed = time.monotonic() + timeout, time.monotonic()
        while True:
            try:
                self._hear(child.read_nonblocking(4096, timeout=_READ_SECONDS))
                changed = time.monotonic()
            except pexpect.TIMEOUT:
                answer = self._answer(time.monotonic() - changed)
                if answer is not None:
                    child.sendline(answer)
                    changed = time.monotonic()
            except pexpect.EOF:
                self._hear("\n" if self._pending.strip() else "")
                return
            if time.monotonic() > deadline:
                remedy = "see in its last lines what it waits for; allow more time with timeout="
                raise self.error(f"{self.argv[0]} took too long", f"it was ended after {timeout:g} s", remedy)

    def _hear(self, text: str) -> None:
        *whole, self._pending = _CONTROL.sub("", self._pending + text).split("\n")
        for line in whole:
            self.lines.append(mask(line.rstrip("\r").rpartition("\r")[2]))
            self._answered = ""
            self.watch(self.lines[-1])

    def _answer(self, still: float) -> str | None:
        """Give the answer to what is asked; None while nothing is."""
        shown = self._pending.rpartition("\r")[2].strip()
        if self._answered:
            shown = self._after_answer(shown)
            if not _PROMPT.search(shown):
                return None
        elif not shown:
            shown = next((line for line in reversed(self.lines[self._since :]) if line.strip()), "").strip()
            known = _PROMPT.search(shown) and self._known([shown])
            if still < self.quiet or not (known or _CHOICES.search(shown)):
                return None
        question = self._known([shown]) if _PROMPT.search(shown) else None
        if question is None:
            if still < self.quiet:
                return None
            question = self._known([*self.lines[self._since :], shown])
        if question is None:
            why = f"{self.quiet:g} s without another word: this is taken for a question, and no answer has its words"
            raise self.error(f"The script asks: {shown}", why, 'add it: answers["words of the question"] = "y"')
        self._asked[question] = self._asked.get(question, 0) + 1
        if self._asked[question] > _TRIES:
            why = f"it was given {_TRIES} times: {self.answers[question]}"
            raise self.error(f"The script does not take the answer to: {shown}", why, "choose one that it names")
        self._answered, self._since = self._pending.rpartition("\r")[2].strip() or shown, len(self.lines) + 1
        self._reply = self.answers[question]
        return self._reply

    def _after_answer(self, shown: str) -> str:
        """Give what stands after an answer in the same line, as where `read -n 1` takes one key only."""
        return shown.removeprefix(self._answered).strip().removeprefix(self._reply).strip()

    def _known(self, lines: Sequence[str]) -> re.Pattern[str] | None:
        """Find the question whose words stand in the last of some lines that has any."""
        return next((q for line in reversed(lines) for q in self.answers if q.search(line)), None)

    def error(self, what: str, why: str, remedy: str) -> TutorialError:
        """Make an error with the last lines."""
        output = "\n".join([*self.lines[-12:], self._pending])
        return TutorialError(what, why, remedy, target=self.target.name, command=self.argv, output=output)


def question_words(question: str) -> re.Pattern[str]:
    """Give the pattern that finds words of a question, in upper or lower case, with any spaces between them."""
    return re.compile(r"\s+".join(map(re.escape, question.split())), re.IGNORECASE)


def _end(target: Target, child: "pexpect.spawn[str]", mark: str) -> None:
    """End the script and all that it started: by Ctrl-C, which lets it clean up, then by the mark that they carry."""
    until = time.monotonic() + _INTERRUPT_SECONDS
    with suppress(OSError, pexpect.EOF):
        child.sendintr()
        while time.monotonic() < until:
            with suppress(pexpect.TIMEOUT):
                child.read_nonblocking(4096, timeout=_READ_SECONDS)
    child.close(force=True)
    with suppress(TutorialError, TimeoutExpired):
        target.run(["sh", "-c", _END, mark, str(_TERM_SECONDS)], check=False, timeout=_TERM_SECONDS + 30)
